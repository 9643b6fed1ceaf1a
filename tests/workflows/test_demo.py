"""The demo from text to a sentence with the replaced words pointed at, in a few seconds and without a download."""

import json

import pytest
import typer
from typer.testing import CliRunner

from electra_fast.cli.demo import demo as command
from electra_fast.errors import ElectraError
from electra_fast.workflows import demo

TEXT = "\n\n".join(
    f"The function number {i} returns the value of the object.\nIt raises an exception if {i} is not given."
    for i in range(400)
)


@pytest.fixture
def small(monkeypatch):
    """Other text than the standard library's, and a network that fits a test."""
    monkeypatch.setattr(demo, "write", lambda path: path.write_text(TEXT, encoding="utf-8"))
    monkeypatch.setattr(demo, "VOCABULARY", 200)
    network = {"embedding_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    monkeypatch.setattr(demo, "NETWORK", {**demo.NETWORK, **network, "generator_layers_fraction": 1.0})
    monkeypatch.setattr(demo, "RECIPE", {**demo.RECIPE, "batch_size": 2})


def call(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def test_from_text_to_a_sentence(small, picture, tmp_path):
    shown = call("--output", tmp_path, "--minutes", 0.05)
    assert shown.exit_code == 0, shown.output
    assert "What it learned" in shown.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["validation"]["auc"] > 0
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000
    assert (tmp_path / "run" / "model" / "discriminator" / "config.json").exists()
    with pytest.raises(ElectraError, match="already holds a run"):
        demo.demo(tmp_path, 0.05)


def test_an_interrupted_run_says_how_to_go_on(small, tmp_path, monkeypatch):
    from electra_fast.workflows.pretraining import PretrainResult

    stopped = PretrainResult(tmp_path / "run", 3, signal=15)
    monkeypatch.setattr(demo, "resume", lambda output: stopped)
    shown = call("--output", tmp_path, "--resume")
    assert shown.exit_code == 143
    assert "--resume" in shown.output


def test_options_are_valid():
    options = demo.run_options(demo.Path("somewhere"), 5.0, seed=1)
    assert options.seed == 1
    assert options.to_dict()["max_time"] == "5.0m"
