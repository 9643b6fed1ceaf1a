"""The figures of docs/pretraining.md that are computed are those that the code computes, and its options exist."""

import re
from pathlib import Path

import pytest

from electra_fast.models import ElectraConfig
from electra_fast.models.flops import step_flops
from electra_fast.workflows.pretraining.options import PretrainOptions

GUIDE = (Path(__file__).parents[1] / "docs" / "pretraining.md").read_text(encoding="utf-8")
PEAKS = (121e12, 165e12, 312e12, 989e12, 2250e12)
ROW = re.compile(r"^\| (small|base|large), (\d+) × (\d+), ([\d,]+) steps \| (\S+) \| (\d+) % \| (.*) \|$", re.MULTILINE)
OF_PREPARE = {
    "cased",
    "input",
    "keep-accents",
    "machines",
    "max-length",
    "tokenizer",
    "validation-fraction",
    "vocab-size",
}
OF_OTHER_COMMANDS = {"auto-resume", "help", "hourly-price", "nproc-per-node", "out", "resume", "text"}


def test_the_cost_table():
    rows = ROW.findall(GUIDE)
    assert len(rows) == 4
    for size, batch, length, steps, operations, mfu, hours in rows:
        config = getattr(ElectraConfig, size)()
        assert (int(batch), int(length)) == (config.pretraining.batch_size, config.pretraining.sequence_length)
        tokens = int(batch) * int(length)
        flops = step_flops(config, tokens, tokens * int(length)) * int(steps.replace(",", ""))
        assert float(operations) == pytest.approx(flops, rel=5e-3)
        for peak, text in zip(PEAKS, hours.split(" | "), strict=True):
            expected = flops / (peak * int(mfu) / 100) / 3600
            assert float(text.removesuffix(" h").replace(",", "")) == pytest.approx(expected, rel=6e-3)


def test_its_options_are_options():
    named = set(re.findall(r"--([a-z][a-z-]+)", GUIDE))
    fields = {name.replace("_", "-") for name in PretrainOptions.__dataclass_fields__} | {"config"}
    assert len(named & fields) > 15
    assert named - fields <= OF_PREPARE | OF_OTHER_COMMANDS
