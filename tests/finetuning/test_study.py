"""A study with an objective that takes no time: interrupted anywhere, it goes on as if it had run through."""

import pytest

from electra_fast.errors import ConfigError, DivergenceError

pytest.importorskip("optuna", reason="needs the optional package optuna")

import optuna

from electra_fast.workflows.tuning import study

SPACE = {
    "rate": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True),
    "epochs": optuna.distributions.IntDistribution(2, 4),
}
FACTS = {"task": "classification", "seeds": [0]}


def figure(params, epoch):
    return 1 - abs(params["rate"] - 1e-3) * 50 - 1 / (epoch + 1)


def objective(params, folder, report):
    for epoch in range(params["epochs"]):
        report(10 * epoch, figure(params, epoch))
    return figure(params, params["epochs"] - 1)


def run(folder, objective=objective, trials=8, sampler="tpe", pruner="median", **changes):
    found = study.open_study(folder, sampler, pruner, FACTS)
    more = {"sampler": sampler, "seed": 0, "trials": trials, "seconds": None} | changes
    return list(study.run_trials(found, SPACE, objective, folder / "trials", **more)), found


def seen(found):
    return [(t.params, t.state, t.value, t.intermediate_values) for t in found.get_trials()]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_an_interrupted_study_is_the_same_study(tmp_path, sampler):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, whole = run(tmp_path / "a", sampler=sampler)
    calls = []

    def interrupted(params, folder, report):
        calls.append((dict(params), folder.name))
        for epoch in range(params["epochs"]):
            if len(calls) in (2, 5, 6) and epoch == 1:
                raise KeyboardInterrupt
            report(10 * epoch, figure(params, epoch))
        return figure(params, params["epochs"] - 1)

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "b", interrupted, sampler=sampler)
    rest, found = run(tmp_path / "b", interrupted, sampler=sampler)
    assert seen(found) == seen(whole)
    assert calls[1] == calls[2]  # the trial at work goes on in its folder
    assert calls[4] == calls[5] == calls[6]
    assert len(calls) == 8 + 3
    assert len(rest) < 8
    assert run(tmp_path / "b", sampler=sampler)[0] == []


def test_a_worse_trial_is_pruned(tmp_path):
    def falls_behind(params, folder, report):
        value = -1.0 if int(folder.name) == 6 else 1.0
        for epoch in range(3):
            report(epoch, value)
        return value

    trials, _ = run(tmp_path, falls_behind)
    states = [trial.state.name for trial in trials]
    assert states == ["COMPLETE"] * 6 + ["PRUNED", "COMPLETE"]
    assert len(trials[6].intermediate_values) == 1


def test_a_diverging_trial_is_recorded(tmp_path):
    def diverges(params, folder, report):
        if int(folder.name) == 1:
            raise DivergenceError("the loss is nan at step 3\nmore")
        return float("nan") if int(folder.name) == 2 else 0.5

    trials, _ = run(tmp_path, diverges, trials=4)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert trials[1].user_attrs["error"] == "the loss is nan at step 3"
    assert trials[2].user_attrs["error"] == "the figure to maximise is nan"


def test_a_mistake_ends_the_study(tmp_path):
    def fails(params, folder, report):
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        run(tmp_path, fails)
    trials, _ = run(tmp_path, trials=1)
    assert [trial.number for trial in trials] == [0]


def test_a_grid_is_tried_whole_and_once(tmp_path):
    found = study.open_study(tmp_path, "grid", "none", FACTS)
    assert study.enqueue_grid(found, SPACE, 3, seed=0) == 9
    first, _ = run(tmp_path, trials=4, sampler="grid", pruner="none")
    assert study.enqueue_grid(found, SPACE, 3, seed=0) == 9
    rest, _ = run(tmp_path, trials=9, sampler="grid", pruner="none")
    points = [tuple(trial.params.values()) for trial in first + rest]
    assert len(points) == len(set(points)) == 9


def test_the_time_of_all_sessions_counts(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(study.time, "monotonic", lambda: next(clock))
    trials, found = run(tmp_path, trials=float("inf"), seconds=12)
    assert len(trials) == 3
    assert study.time_spent(found) == 15
    assert run(tmp_path, trials=float("inf"), seconds=12)[0] == []
    assert len(run(tmp_path, trials=float("inf"), seconds=18)[0]) == 1


def test_another_study_is_refused(tmp_path):
    run(tmp_path, trials=1)
    with pytest.raises(ConfigError, match=r"holds a study with seeds = \[0\], now it is \[1\]: give the same options"):
        study.open_study(tmp_path, "tpe", "median", {**FACTS, "seeds": [1]})
    (tmp_path / "study.db").write_text("no database, but longer than the header of one would be " * 40)
    with pytest.raises(ConfigError, match=r"study.db is not a study of electra-fast tune"):
        study.open_study(tmp_path, "tpe", "median", FACTS)
