"""The report command."""

import typer
from typer.testing import CliRunner

from electra_fast.cli.report import report


def test_report(tmp_path):
    (tmp_path / "config.toml").write_text('data = "d"\noutput = "o"\nmodel = "small"\ntotal_steps = 400\n')
    app = typer.Typer()
    app.command()(report)
    result = CliRunner().invoke(app, [str(tmp_path), "--hourly-price", "3"])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "step 0 of 400" in text
    assert "cost at 3 an hour" in text
