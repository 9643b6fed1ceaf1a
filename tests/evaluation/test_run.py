"""From models and a file to results and a page; comparisons, temperatures, and what is wrong input."""

import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from electra_fast.errors import CheckpointError, ConfigError, DataError
from electra_fast.workflows.evaluation import evaluate, load_task

OPTIONS = {"precision": "fp32", "device": "cpu", "resamples": 50}


class Page(HTMLParser):
    """An unclosed tag is an error."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(path):
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert not re.search(r"(src|href)=['\"](?!data:|#)", text)  # nothing beside it
    return text, page.text


def test_one_model(models, data, tmp_path):
    found = evaluate(models[0], data, tmp_path, mistakes=5, **OPTIONS)
    (result,) = found.models
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json", "report.html", "predictions.jsonl", "confusion.png", "reliability.png",
    }  # fmt: skip
    assert (tmp_path / "confusion.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["models"][0]["figures"] == result.figures
    assert written["models"][0]["name"] == "run0"
    predictions = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    labels = [line.split("\t")[1] for line in data.read_text().splitlines()[1:]]
    right = np.mean([p["label"] == label for p, label in zip(predictions, labels, strict=True)])
    assert result.figures["accuracy"] == right
    low, high = result.intervals["accuracy"]
    assert low <= right <= high
    assert len(result.mistakes) == 5
    text, said = read(tmp_path / "report.html")
    assert text.count("data:image/png;base64,") == 2
    for part in (
        "run0",
        f"{right:.1%}",
        "95 %:",
        "Matthews correlation",
        "Class by class",
        "plain",
        "sure to",
        str(data),
    ):
        assert part in said
    again = evaluate(models[0], data, **OPTIONS)
    assert again.models[0].intervals == result.intervals


def test_models_side_by_side(models, data, tmp_path):
    found = evaluate([*models, models[0]], data, tmp_path, **OPTIONS)
    assert [result.name for result in found.models] == ["run0", "run1", "run0-2"]
    assert len(found.comparisons) == 3
    one, same, _ = found.comparisons
    right = [np.array([m.figures["accuracy"] for m in found.models])]
    assert one.difference == pytest.approx(right[0][1] - right[0][0])
    assert one.test == "McNemar"
    plain = stats.binomtest(one.only_first, one.only_first + one.only_second).pvalue
    assert one.p_value >= plain  # adjusted for three comparisons
    assert (same.first, same.second, same.difference, same.p_value) == ("run0", "run0-2", 0, 1)
    assert (same.low, same.high) == (0, 0)
    assert (tmp_path / "run1" / "confusion.png").is_file()
    _, said = read(tmp_path / "report.html")
    assert "3 models" in said
    assert "run0 and run0-2 are equal in accuracy. McNemar: p = 1; only run0 is right in 0, only run0-2 in 0" in said


def test_a_temperature_is_fitted_kept_and_used(make_model, data):
    model = make_model(2)
    before = evaluate(model, data, **OPTIONS).models[0]
    fitted = evaluate(model, data, temperature_from=data, **OPTIONS).models[0]
    assert fitted.temperature.value != 1
    assert fitted.figures["log_loss"] < before.figures["log_loss"]
    assert fitted.figures["log_loss"] == pytest.approx(fitted.temperature.loss_after, abs=1e-6)
    assert before.figures["log_loss"] == pytest.approx(fitted.temperature.loss_before, abs=1e-6)
    assert fitted.figures["accuracy"] == before.figures["accuracy"]
    assert load_task(model, precision="fp32", device="cpu").temperature == fitted.temperature.value
    later = evaluate(model, data, **OPTIONS).models[0]
    assert later.figures == fitted.figures
    again = evaluate(model, data, temperature_from=data, **OPTIONS).models[0]
    assert again.temperature.value == pytest.approx(fitted.temperature.value, rel=1e-4)  # not fitted twice over


def test_no_resamples_no_intervals(models, data):
    found = evaluate(models, data, **OPTIONS | {"resamples": 0})
    assert found.comparisons == []
    assert found.models[0].intervals == {}


def test_rows_that_cannot_be_judged_are_counted(models, tmp_path):
    path = tmp_path / "some.tsv"
    path.write_text("sentence\tlabel\ngood film\tgood\n\tbad\na film\t\nbad\tbad\n")
    found = evaluate(models[0], path, tmp_path / "out", **OPTIONS).models[0]
    assert found.examples == 2
    assert "2 of 4 rows left out" in found.hygiene
    assert "2 of 4 rows left out." in read(tmp_path / "out" / "report.html")[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sentence\tlabel\ngood\tgood\nbad\tbad\tx\n", "bad.tsv, line 3: 3 fields parted by tabs, expected 2"),
        ("sentence\tlabel\ngood\tgood\nbad\tawful\n", "bad.tsv, row 2: "),
        ("sentence\ngood\n", "bad.tsv has no column 'label'"),
        ("sentence\tlabel\n\tgood\n", "bad.tsv has no row with text and label"),
        ("", "bad.tsv is empty"),
    ],
)
def test_a_bad_file_is_named_with_the_line(models, tmp_path, text, message):
    (tmp_path / "bad.tsv").write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        evaluate(models[0], tmp_path / "bad.tsv", **OPTIONS)


def test_what_cannot_be(models, data, make_model, tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        evaluate(models[0], tmp_path / "none.tsv", **OPTIONS)
    with pytest.raises(CheckpointError, match="holds no fine-tuned model"):
        evaluate(tmp_path, data, **OPTIONS)
    with pytest.raises(ConfigError, match="models must name at least one fine-tuned directory"):
        evaluate([], data, **OPTIONS)
    with pytest.raises(ConfigError, match="mistakes must be at least 0, got -1"):
        evaluate(models[0], data, mistakes=-1, **OPTIONS)
    other = make_model(3, label_column="label")
    swapped = tmp_path / "two.tsv"
    lines = data.read_text().splitlines()
    swapped.write_text("\n".join([lines[0] + "\tclass", *(f"{line}\tgood" for line in lines[1:])]) + "\n")
    evaluate([models[0], other], swapped, **OPTIONS)
    with pytest.raises(ConfigError, match="models must see the same examples to be compared"):
        evaluate([models[0], make_model(4, label_column="class")], swapped, **OPTIONS)


def test_without_the_extra_the_message_names_it(models, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ConfigError, match=re.escape("a fine-tuned model needs transformers: pip install 'electra-fast[fi")
    ):
        evaluate(models[0], data, **OPTIONS)
