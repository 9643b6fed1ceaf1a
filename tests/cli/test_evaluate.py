"""The evaluate command, on an evaluation that is made up."""

import pytest

from electra_fast.errors import ConfigError
from electra_fast.workflows.evaluation import Evaluation, ModelResult, run
from electra_fast.workflows.evaluation.significance import Comparison

RESULT = ModelResult(
    name="a",
    model="runs/a",
    task="classification",
    headline="accuracy",
    examples=200,
    figures={"accuracy": 0.9, "mcc": 0.8},
    intervals={"accuracy": (0.85, 0.94)},
    baseline=None,
    classes=None,
    confusion=None,
    calibration=None,
    temperature=None,
    takes_temperature=True,
    slices=[],
    mistakes=[],
    precision="fp32",
    hygiene=[],
    predictions=[],
)


@pytest.fixture
def call(command, monkeypatch, capsys):
    given = {}

    def made_up(models, data, output, **options):
        given.update(models=models, data=data, output=output, **options)
        if len(models) > 2:
            raise ConfigError("temperature_from is for tasks whose answers are labels")
        comparison = Comparison("a", "b", "accuracy", 0.05, 0.01, 0.09, "McNemar", 0.02, 3, 13)
        return Evaluation("t.tsv", 10, 0, [RESULT], [comparison] * (len(models) - 1), {})

    monkeypatch.setattr(run, "evaluate", made_up)

    def run_(*arguments):
        code = command("evaluate", *arguments)
        said = capsys.readouterr()
        return code, said.out, said.err, given

    return run_


def test_figures_comparisons_and_the_page(call):
    code, said, _, given = call("m/a", "m/b", "--data", "t.tsv", "-o", "out", "--mistakes", "3", "--precision", "int8")
    assert code == 0
    assert said.splitlines() == [
        "a, 200 examples: Accuracy 90.0% (95 %: 85.0% – 94.0%), Matthews correlation 0.800",
        "b is better than a in accuracy by 5.0 points (95 %: +1.0 to +9.0). McNemar: p = 0.02; only a is right in 3, "
        "only b in 13",
        "out/report.html",
    ]
    assert [str(model) for model in given["models"]] == ["m/a", "m/b"]
    assert (given["mistakes"], given["precision"], given["resamples"]) == (3, "int8", 1000)


def test_mistakes_are_one_line(call):
    assert call("a", "b", "c", "-d", "t")[2] == "error: --temperature-from is for tasks whose answers are labels\n"
    assert call("a")[2].startswith("error: electra-fast evaluate needs --data: File with labels")
    assert call("--data", "t")[2].startswith("error: electra-fast evaluate needs MODELS")
    assert call("a", "--data", "t", "--resamples", "-1")[2].startswith("error: --resamples must be a whole number")
