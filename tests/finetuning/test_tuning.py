"""The whole of tune on tiny networks: what it leaves, how it goes on, what it refuses."""

import dataclasses
import json
import os
import signal

import pytest

pytest.importorskip("optuna", reason="needs the optional package optuna")

import optuna

from electra_fast.errors import ConfigError
from electra_fast.workflows.finetuning import FinetuneOptions, outcome
from electra_fast.workflows.pretraining.config_file import read_config
from electra_fast.workflows.tuning import TuneOptions, run, tune
from electra_fast.workflows.tuning import outcome as told
from electra_fast.workflows.tuning.options import DEFAULT_SPACE
from electra_fast.workflows.tuning.run import search_space

SPACE = ("learning_rate=1e-5,3e-3", "batch_size=8,16")
QUICK = {"search": SPACE, "sampler": "grid", "pruner": "none", "final_seeds": 0}


@pytest.fixture(autouse=True)
def _no_picture(request, monkeypatch):
    """Pictures take longer than tiny runs: only tests that ask for ``pictures`` draw them."""
    monkeypatch.setattr(outcome, "draw_curves", lambda *_: True)
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(told, "draw_plots", lambda *_: {})


@pytest.fixture
def pictures():
    """Asks for the pictures to be drawn."""


@pytest.fixture
def options(tiny):
    return tiny("study", epochs=1.0, learning_rate=None, batch_size=None)


def test_it_finds_what_is_best_and_trains_with_it(options, pictures, capsys):
    options = dataclasses.replace(options, epochs=2.0)
    result = tune(options, TuneOptions(**QUICK | {"final_seeds": 2}))
    assert (result.trials, result.signal) == (4, None)
    assert result.best["learning_rate"] == 3e-3
    said = capsys.readouterr().err
    assert "searching learning_rate=1e-05,0.003 batch_size=8,16 for the best accuracy" in said
    assert (
        f"trial 4 of 4: accuracy {json.loads((result.output / 'summary.json').read_text())['trials'][3]['value']:.4f}"
        in said
    )

    summary = json.loads((result.output / "summary.json").read_text())
    assert [trial["state"] for trial in summary["trials"]] == ["complete"] * 4
    assert summary["best"]["value"] == max(trial["value"] for trial in summary["trials"]) == result.value
    assert sum(summary["importance"].values()) == pytest.approx(1)
    assert all(len(trial["evaluations"]) == 2 for trial in summary["trials"])
    final = json.loads((result.final / "summary.json").read_text())
    assert [seed["seed"] for seed in final["seeds"]] == [1, 2]  # none of the search's
    assert summary["final"] == final["figures"]
    assert (result.final / "best" / "model.safetensors").exists()
    assert not list((result.output / "trials").rglob("*.safetensors"))
    for name in ("history", "importance", "parallel", "slice"):
        assert (result.output / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG"), said

    again = read_config(result.output / "best.toml", FinetuneOptions)
    assert {name: again[name] for name in result.best} == result.best
    assert FinetuneOptions(**again) == dataclasses.replace(options, output=None, **result.best)


def test_ctrl_c_loses_nothing(options, monkeypatch):
    search = TuneOptions(**QUICK)
    from electra_fast.workflows.finetuning import train

    whole = tune(dataclasses.replace(options, output=f"{options.output}-whole"), search)
    taken = train.FinetuneTrainer.compute_loss
    steps = []

    def interrupting(self, *args, **kwargs):
        steps.append((self.folder.parent.name, self.state.global_step))
        if len(steps) == 27:  # in the midst of a trial, whatever their order
            os.kill(os.getpid(), signal.SIGINT)
        return taken(self, *args, **kwargs)

    monkeypatch.setattr(train.FinetuneTrainer, "compute_loss", interrupting)
    stopped = tune(options, search)
    assert stopped.signal == signal.SIGINT
    assert 0 < stopped.trials < 4
    result = tune(options, search)
    assert (result.trials, result.best, result.value) == (4, whole.best, whole.value)
    assert len(steps) == len(set(steps))  # no step is taken twice

    monkeypatch.setattr(train.FinetuneTrainer, "compute_loss", None)  # all is done
    assert tune(options, search).value == result.value


def test_a_pruned_trial_ends_at_once(options, tmp_path):
    study = optuna.create_study()
    steps = []

    def report(step, value):
        steps.append(step)
        raise optuna.TrialPruned

    objective = run._objective(study, dataclasses.replace(options, epochs=3.0), "accuracy", lambda *_: None)
    with pytest.raises(optuna.TrialPruned):
        objective({"batch_size": 48}, tmp_path / "0000", report)
    assert steps == [2]
    assert study.user_attrs["precision"] == "fp32"


def test_options_that_were_given_are_not_searched(options):
    assert set(search_space(options, TuneOptions())) == set(DEFAULT_SPACE) - {"epochs"}
    bare = FinetuneOptions(model="m", train="t", output="o")
    assert set(search_space(bare, TuneOptions())) == set(DEFAULT_SPACE)
    assert "epochs" not in search_space(dataclasses.replace(bare, max_steps=5), TuneOptions())


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (("learning_rte=1,2",), "search has no option 'learning_rte': did you mean 'learning_rate'?"),
        (("epochs=1,2",), "epochs is both given (1.0) and searched: leave one out"),
        (("warmup=float:0:2",), "search: warmup=float:0:2: FinetuneOptions: warmup must be in [0, 1), got 2.0"),
        (("optimizer=adamw,sgd",), "search: optimizer=adamw,sgd: optimizer must be electra or adamw, got 'sgd'"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_is_written(options, search, said, tmp_path):
    with pytest.raises(ConfigError) as error:
        tune(options, TuneOptions(search=search))
    assert said in str(error.value)
    assert not (tmp_path / "study").exists()


def test_another_search_in_the_same_place_is_refused(options, monkeypatch):
    from electra_fast.workflows.tuning import study

    monkeypatch.setattr(study, "run_trials", lambda *_, **__: iter(()))
    tune(options, TuneOptions(**QUICK))
    with pytest.raises(ConfigError, match=r"holds a study with search = '.*', now it is 'layer_decay=0.7,0.9'"):
        tune(options, TuneOptions(**QUICK | {"search": ("layer_decay=0.7,0.9",)}))
    with pytest.raises(ConfigError, match=r"with dropout = 0.0, now it is 0.2"):
        tune(dataclasses.replace(options, dropout=0.2), TuneOptions(**QUICK))
