"""The tune and selftrain commands: what they hand on, and what a mistake says."""

import inspect

import pytest

from electra_fast.cli.mistakes import flags
from electra_fast.cli.selftrain import selftrain
from electra_fast.cli.tune import tune
from electra_fast.workflows import self_training, tuning
from electra_fast.workflows.finetuning.options import FinetuneOptions
from electra_fast.workflows.self_training.options import SelfTrainOptions
from electra_fast.workflows.self_training.run import SelfTrainResult
from electra_fast.workflows.tuning.options import TuneOptions
from electra_fast.workflows.tuning.run import TuneResult


@pytest.fixture
def run(command, capsys):
    """``run(*arguments)``: the exit code and what stderr says."""

    def call(*arguments):
        return command(*arguments), capsys.readouterr().err

    return call


@pytest.mark.parametrize(("command", "table"), [(tune, TuneOptions), (selftrain, SelfTrainOptions)])
def test_every_option_is_one_of_the_command(command, table):
    names = {*FinetuneOptions.__dataclass_fields__, *table.__dataclass_fields__, "config"}
    assert set(inspect.signature(command).parameters) == names
    assert not set(FinetuneOptions.__dataclass_fields__) & set(table.__dataclass_fields__)
    assert flags(command)["learning_rate"] == "--learning-rate"


def test_tune_hands_on_its_options(run, monkeypatch, tmp_path):
    calls = []
    result = TuneResult(tmp_path, 3, {}, 0.5, None, 2)
    monkeypatch.setattr(tuning, "tune", lambda *given: (calls.append(given), result)[1], raising=False)
    config = tmp_path / "config.toml"
    config.write_text('batch_size = 8\nmodel = "here"\n')
    searched = ("--search", "learning_rate=log:1e-5:5e-4", "--search", "epochs=int:2:5")
    code, _ = run("tune", "ner", "--config", config, "--output", tmp_path / "o", *searched, "--sampler", "random")
    assert code == 130  # the signal that ended it
    options, search = calls[0]
    assert options == FinetuneOptions(task="ner", batch_size=8, model="here", output=tmp_path / "o")
    assert search == TuneOptions(search=["learning_rate=log:1e-5:5e-4", "epochs=int:2:5"], sampler="random")


def test_selftrain_hands_on_its_options(run, monkeypatch, tmp_path):
    calls = []
    result = SelfTrainResult(tmp_path, tmp_path, [], 0, None)
    monkeypatch.setattr(self_training, "selftrain", lambda *given: (calls.append(given), result)[1], raising=False)
    texts = tmp_path / "texts.txt"
    texts.write_text("a\n")
    code, said = run("selftrain", "classification", "--unlabelled", texts, "--balanced", "--cap", 5, "--seeds", "0,1")
    assert (code, said) == (0, "")
    options, training = calls[0]
    assert options == FinetuneOptions(seeds="0,1")
    assert training == SelfTrainOptions(unlabelled=texts, balanced=True, cap=5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tune", "sentiment"), "TASK must be classification, ner, qa, choice or translation"),
        (("tune", "ner", "--sampler", "bayes"), "--sampler must be tpe, random or grid, got 'bayes'"),
        (("tune", "ner", "--trials", "0"), "--trials must be at least 1, got 0"),
        (("tune", "ner", "--max-time", "soon"), "--max-time must be a duration such as 90 (seconds), 5m or 1h30m, got"),
        (("tune", "ner", "--output", "o", "--search", "epochs"), "search must be NAME=VALUES, got 'epochs'"),
        (
            ("tune", "ner", "--output", "o", "--search", "epoch=1,2"),
            "has no option 'epoch': did you mean 'epochs'?",
        ),
        (("tune", "ner", "--serch", "epochs=1,2"), "has no option --serch: did you mean --search?"),
        (("selftrain", "ner"), "--unlabelled is missing: name a file with texts without labels (--unlabelled)"),
        (("selftrain", "ner", "--unlabelled", "no.txt"), "there is no file no.txt"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, found = run(*arguments)
    assert code == 2
    assert said in found
    assert found.count("\n") == 1
    assert not list(tmp_path.iterdir())
