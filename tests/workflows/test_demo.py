"""The demo from text to a sentence with the replaced words pointed at, in a few seconds and without a download."""

import json
import re
import time

import pytest
import typer
from typer.testing import CliRunner

from electra_fast.cli.app import app
from electra_fast.cli.demo import demo as command
from electra_fast.errors import ConfigError
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
    one = typer.Typer()
    one.command()(command)
    return CliRunner().invoke(one, list(map(str, arguments)), catch_exceptions=False)


def test_from_text_to_a_sentence(small, picture, tmp_path, monkeypatch):
    prepared = []
    prepare = demo.prepare
    monkeypatch.setattr(demo, "prepare", lambda *arguments: prepared.append(arguments) or prepare(*arguments))
    began = time.monotonic()
    shown = call("--output", tmp_path, "--minutes", 0.05)
    seconds = time.monotonic() - began
    assert shown.exit_code == 0, shown.output
    assert len(prepared) == 1
    assert prepared[0][1] is not None  # its progress is shown
    assert "What it learned" in shown.output
    minutes, rest = re.search(r"All of this took (\d+):(\d\d)\.", shown.output).groups()
    assert seconds - 1.5 <= 60 * int(minutes) + int(rest) <= seconds + 0.5
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["validation"]["auc"] > 0
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000
    assert (tmp_path / "run" / "model" / "discriminator" / "config.json").exists()
    with pytest.raises(ConfigError, match="already holds a run"):
        demo.demo(tmp_path, 0.05)

    # The same command again shows what is there, without training.
    monkeypatch.setattr(demo, "pretrain", None)
    again = call("--output", tmp_path, "--minutes", 0.05)
    assert again.exit_code == 0, again.output
    assert f"is finished: {summary['steps']:,} steps" in " ".join(again.output.split())
    assert summary["verdict"] in " ".join(again.output.split())
    assert "To train anew, name another directory: electra-fast demo --output DIRECTORY" in again.output
    learned = shown.output.partition("What it learned")[2].partition("All of this")[0]
    assert again.output.partition("What it learned")[2].startswith(learned)


def test_an_interrupted_run_says_how_to_go_on(small, tmp_path, monkeypatch):
    from electra_fast.workflows.pretraining import PretrainResult

    stopped = PretrainResult(tmp_path / "run", 3, signal=15)
    monkeypatch.setattr(demo, "resume", lambda output: stopped)
    shown = call("--output", tmp_path, "--resume")
    assert shown.exit_code == 143
    assert "--resume" in shown.output
    assert not list(tmp_path.iterdir())  # what goes on was prepared when it began


@pytest.mark.parametrize(("option", "value"), [("minutes", 2), ("seed", 0)])
def test_a_run_that_goes_on_has_its_own_time_and_seed(small, tmp_path, option, value):
    with pytest.raises(ConfigError, match=f"{option} was settled when the run began: leave it out to resume"):
        call("--output", tmp_path, "--resume", f"--{option}", value)


def test_help_is_wrapped_for_the_terminal():
    """Line ends of the docstring are none of the help: it fills the width there is."""
    shown = CliRunner().invoke(app, ["demo", "--help"], env={"COLUMNS": "160", "TERMINAL_WIDTH": "160"}).output
    assert "(no download), trains a tokenizer, pretrains on 95 % of the documents" in shown
    prepare = CliRunner().invoke(app, ["prepare", "--help"], env={"COLUMNS": "160", "TERMINAL_WIDTH": "160"}).output
    assert "Stopped in the middle (Ctrl-C, kill, full disk), the same command" in prepare


def test_options_are_valid():
    options = demo.run_options(demo.Path("somewhere"), 5.0, seed=1)
    assert options.seed == 1
    assert options.to_dict()["max_time"] == "5.0m"
