"""The compress command."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from electra_fast.cli.compress import compress
from electra_fast.errors import ConfigError
from electra_fast.workflows.deployment.compress import run
from electra_fast.workflows.deployment.compress.measure import Measurement
from electra_fast.workflows.deployment.compress.run import CompressReport


@pytest.fixture
def call(monkeypatch):
    """``call("runs/a", "--method", …)``: what comes of the command line, and the options that it was understood as."""
    calls = []

    def stand_in(options, say):
        calls.append(options)
        say("a student of 6 layers")
        before = Measurement({"mcc": 0.8, "accuracy": 0.9125}, 120.0, "bf16", 2, 14_000_000, 56_000_000)
        after = Measurement({"mcc": 0.7, "accuracy": 0.9}, 230.0, "bf16", 2, 9_000_000, 36_000_000)
        signal = 15 if options.seed == 15 else None
        return CompressReport(options.method, Path(options.output), "accuracy", before, after, "done", signal)

    monkeypatch.setattr(run, "compress", stand_in)
    app = typer.Typer()
    app.command()(compress)
    return lambda *arguments: (CliRunner().invoke(app, arguments), calls)


def test_compress(call, tmp_path):
    line = ("runs/a", "--method", "distill", "--train", "t.tsv", "--dev", "d.tsv", "-o", str(tmp_path / "o"))
    result, (options,) = call(*line, "--layers", "6", "--temperature", "3")
    assert result.exit_code == 0, result.output
    assert (options.layers, options.temperature, options.output) == (6, 3.0, str(tmp_path / "o"))
    rows = [row.split() for row in result.output.splitlines()]
    assert ["a", "student", "of", "6", "layers"] in rows
    assert rows.index(["accuracy", "0.9125", "0.9000"]) < rows.index(["mcc", "0.8000", "0.7000"])
    assert ["examples/s", "120.0", "230.0"] in rows
    assert ["parameters", "14,000,000", "9,000,000"] in rows
    result, _ = call(*line, "--seed", "15")
    assert result.exit_code == 128 + 15


def test_what_is_missing_is_named(call):
    result, calls = call("runs/a", "--method", "int8", "--output", "o")
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("dev is missing")
    assert calls == []
