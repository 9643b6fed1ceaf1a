"""The notation of the search space: what is read, what is refused, and the grid that is made of it."""

import pytest

from electra_fast.errors import ConfigError
from electra_fast.workflows.tuning.options import searchable

pytest.importorskip("optuna", reason="needs the optional package optuna")

import optuna

from electra_fast.workflows.tuning import space

KINDS = {
    "learning_rate": float | None,
    "epochs": float | None,
    "batch_size": int,
    "optimizer": str,
    "published_decay": bool,
}


def built(*given):
    return space.build_space(space.parse_assignments(given), KINDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rate=log:1e-5:5e-4", optuna.distributions.FloatDistribution(1e-5, 5e-4, log=True)),
        ("learning-rate=float:0:0.3:0.1", optuna.distributions.FloatDistribution(0, 0.3, step=0.1)),
        ("learning_rate=float:0:0.35:0.1", optuna.distributions.FloatDistribution(0, 0.3, step=0.1)),
        ("epochs=int:2:5", optuna.distributions.IntDistribution(2, 5)),
        ("batch_size=int:8:32:8", optuna.distributions.IntDistribution(8, 32, step=8)),
        ("batch_size=log:8:128", optuna.distributions.IntDistribution(8, 128, log=True)),
        ("batch_size=16,32", optuna.distributions.CategoricalDistribution([16, 32])),
        ("learning_rate=1e-4, 3e-4", optuna.distributions.CategoricalDistribution([1e-4, 3e-4])),
        ("optimizer=electra,adamw", optuna.distributions.CategoricalDistribution(["electra", "adamw"])),
        ("published_decay=yes,no", optuna.distributions.CategoricalDistribution([True, False])),
    ],
)
def test_notation(text, expected):
    (found,) = built(text).values()
    assert found == expected
    assert space.build_space({next(iter(built(text))): space.as_text(found)}, KINDS) == built(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate", "search must be NAME=VALUES, got 'learning_rate'"),
        ("learning_rat=1e-4", "search has no option 'learning_rat': did you mean 'learning_rate'?"),
        ("zzz=1", "search has no option 'zzz': known are batch_size, epochs, learning_rate, optimizer"),
        ("epochs=int:5:2", "the low end of epochs must be below its high end, got 'int:5:2'"),
        ("epochs=int:2", "epochs needs a low and a high end, got 'int:2'"),
        ("learning_rate=log:0:1", "the low end of learning_rate must be above 0 for log"),
        ("learning_rate=log:1e-5:1e-3:3", "learning_rate needs a low and a high end"),
        ("learning_rate=float:0:inf", "learning_rate takes numbers, got 'inf'"),
        ("learning_rate=float:0:1:2", "the step of learning_rate must be above 0 and fit"),
        ("batch_size=float:1:2", "batch_size is no option for float:…, got 'float:1:2': it takes whole numbers"),
        ("optimizer=log:1:2", "optimizer is no option for log:…, got 'log:1:2': it takes words"),
        ("batch_size=16,many", "batch_size takes whole numbers, got 'many'"),
        ("published_decay=maybe", "published_decay takes yes or no, got 'maybe'"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(ConfigError) as error:
        built(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_option_is_searched_once():
    with pytest.raises(ConfigError, match="search names epochs twice: 2,3 and int:2:5"):
        built("epochs=2,3", "epochs=int:2:5")


def test_a_file(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text('learning_rate = "log:1e-5:5e-4"\nbatch_size = [16, 32]\n')
    found = space.build_space(space.read_space(path), KINDS)
    assert found == built("learning_rate=log:1e-5:5e-4", "batch_size=16,32")
    path.write_text("batch_size = 16\n")
    with pytest.raises(ConfigError, match="batch_size must be a list of values or text, got 16"):
        space.build_space(space.read_space(path), KINDS)
    path.write_text("batch_size: 16\n")
    with pytest.raises(ConfigError, match=r"space.toml is not a TOML file"):
        space.read_space(path)
    with pytest.raises(ConfigError, match=r"cannot read the search space .*none.toml: No such file"):
        space.read_space(tmp_path / "none.toml")


def test_grid():
    points = space.grid(built("learning_rate=log:1e-5:1e-3", "epochs=int:2:3", "batch_size=16,32"), 3)
    assert len(points) == 3 * 2 * 2
    assert sorted({point["learning_rate"] for point in points}) == pytest.approx([1e-5, 1e-4, 1e-3])
    assert {point["epochs"] for point in points} == {2, 3}
    assert [p["learning_rate"] for p in space.grid(built("learning_rate=float:0:0.3:0.1"), 9)] == [0, 0.1, 0.2, 0.3]
    assert [p["batch_size"] for p in space.grid(built("batch_size=log:8:128"), 5)] == [8, 16, 32, 64, 128]


def test_what_can_be_searched():
    assert {"learning_rate", "epochs", "batch_size", "dropout", "model", "max_length"} <= set(searchable())
    assert not {"output", "train", "dev", "seeds", "task"} & set(searchable())
