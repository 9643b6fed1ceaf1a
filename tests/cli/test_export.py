"""The export command."""

import pytest
import typer
from typer.testing import CliRunner

from electra_fast.cli.export import export
from electra_fast.workflows.deployment.export import run
from electra_fast.workflows.deployment.export.comparison import Difference
from electra_fast.workflows.deployment.export.run import ExportReport, Int8Report


@pytest.fixture
def called(monkeypatch):
    """What the command passes on; the answer is a report of a model of 2 MB, and of 8 bits if asked for."""
    calls = []

    def stand_in(model, format, output, **options):
        calls.append((model, format, output, options))
        difference = Difference("pairs 1 to 2", "2 × 9", "logits", (0, 1), 1.5, 1.5, 3.1e-7)
        eight = Int8Report([difference], 0.975, 1.5, 600_000) if options["int8"] else None
        return ExportReport(
            format, output, "ElectraForPreTraining", 1e-4, [difference], "2 × 9", 5.25, 2.5, 2_000_000, eight
        )

    monkeypatch.setattr(run, "export", stand_in)
    return calls


def test_export(called, tmp_path):
    app = typer.Typer()
    app.command()(export)
    out = str(tmp_path / "out")
    result = CliRunner().invoke(app, ["runs/a", "--format", "torch-export", "-o", out, "--samples", "x.txt"])
    assert result.exit_code == 0, result.output
    ((model, format, output, options),) = called
    assert (model, format, str(output), str(options["samples"])) == ("runs/a", "torch-export", out, "x.txt")
    assert not options["int8"]
    assert "3.1e-07" in result.output
    assert "transformers 5.2 ms, torch-export 2.5 ms" in result.output.replace("\n", " ")
    result = CliRunner().invoke(app, ["runs/a", "--format", "onnx", "-o", out, "--int8"])
    assert "97.5% of the decisions stay the same" in result.output
    assert "0.6 MB instead of 2.0 MB" in result.output
