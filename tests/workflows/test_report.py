"""The page and the picture about a run, finished, going on, or just begun."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from electra_fast.errors import CheckpointError
from electra_fast.workflows.pretraining import write_report
from electra_fast.workflows.pretraining.curves import _series, curves_svg, draw_curves

CONFIG = """\
# Everything that this run of electra_fast 0.1, torch 2.13, x86_64 depends on. Repeat it with --config.
# precision fp32: this CPU is old
data = "corpus <one>"
output = "o"
model = "base"
precision = "fp32"
learning_rate = 2e-4
total_steps = 100
hidden_size = 64
generator_hidden_fraction = 0.3333333333
"""


class Tables(HTMLParser):
    """Rows of all tables of a page as lists of texts; an unclosed tag is an error."""

    def __init__(self):
        super().__init__()
        self.rows, self.open = [], []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def record(step, split="train", **figures):
    usual = {
        "step": step, "split": split, "seconds": 0.02 * step, "generator_loss": 6.0, "discriminator_loss": 0.30,
        "entropy": 0.39, "loss_minus_entropy": -0.09, "auc": 0.8, "fake_rate": 0.13, "recall": None,
    }  # fmt: skip
    speed = {"tokens_per_second": 5000.0, "tflops": 0.25, "mfu": 0.5, "data_wait": 0.001, "memory_mb": 700.0}
    return usual | (speed if split == "train" else {}) | figures


@pytest.fixture
def run(tmp_path):
    def write(*records, summary=None):
        (tmp_path / "config.toml").write_text(CONFIG)
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        if summary is not None:
            (tmp_path / "summary.json").write_text(json.dumps(summary))
        return tmp_path

    return write


def page(folder, *arguments):
    text = write_report(folder, *arguments).read_text(encoding="utf-8")
    tables = Tables()
    tables.feed(text)
    assert tables.open == []
    return text, {row[0]: row[1:] for row in tables.rows}


def test_a_finished_run(run):
    summary = {"parameters": 1234567, "environment": {"device": "A & B", "threads": "2"}}
    folder = run(record(50), record(100, auc=0.9), record(100, "validation", auc=0.75), summary=summary)
    text, rows = page(folder, 1800.0)
    assert "finished · step 100 of 100 · 0:02 of training · 1,234,567 parameters" in text
    assert '<p class="verdict">The discriminator is learning: its loss is 0.300' in text
    assert rows["AUC"] == ["0.750", "0.900"]
    assert rows["Discriminator's loss less that"] == ["-0.0900", "-0.0900"]
    assert "Recall" not in rows
    assert rows["cost at 1800 an hour"] == ["1.00"]
    assert rows["tokens"] == ["10,000 (100 a step)"]
    assert rows["operations of matrix products"] == ["5e+11 (0.25 TFLOP/s)"]
    assert rows["MFU (share of the measured peak)"] == ["50.0%"]
    assert rows["waiting for data"] == ["0.10% of the time"]
    assert rows["data"] == ["corpus <one>", ""]
    assert rows["model"] == ["base", ""]
    assert rows["hidden_size"] == ["64", "768"]
    assert rows["total_steps"] == ["100", "766000"]
    assert not rows.keys() & {"learning_rate", "generator_hidden_fraction"}  # as the size has them
    assert rows["begun with"] == ["electra_fast 0.1, torch 2.13, x86_64"]
    assert rows["decided"] == ["precision fp32: this CPU is old"]
    assert rows["device"] == ["A & B"]


def test_a_run_that_goes_on_and_one_that_has_reported_nothing(run):
    text, rows = page(run(record(50, tflops=None, mfu=None)))
    assert "stopped · step 50 of 100" in text
    assert "0:01 left" in text
    assert "MFU (share of the measured peak)" not in rows
    assert rows["speed"] == ["5,000 tokens/s, 50.00 steps/s"]
    text, rows = page(run())
    assert "Nothing has been reported yet." in text
    assert rows["hidden_size"] == ["64", "768"]


def test_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="there is no run in"):
        write_report(tmp_path)


def test_curves(tmp_path, picture):
    pytest.importorskip("matplotlib")
    assert draw_curves([], tmp_path / "empty.png")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")
    some = [record(1), record(2, "validation")]
    svg = curves_svg(some)
    assert svg.startswith("<svg")
    assert svg == curves_svg(some)


def test_long_curves_go_through_means():
    long = [record(step, auc=step / 1000) for step in range(1, 1001)]
    steps, values = _series(long, "train", "auc")
    assert len(steps) == 400
    assert values == pytest.approx([step / 1000 for step in steps])
    assert (steps[0], steps[-1]) == (1.5, 999.0)
