"""The status command."""

import json

import pytest
import typer
from typer.testing import CliRunner

from electra_fast.cli.status import status


@pytest.fixture
def run(tmp_path):
    (tmp_path / "config.toml").write_text('data = "d"\noutput = "o"\ntotal_steps = 400\n')
    figures = {"discriminator_loss": 0.3, "entropy": 0.39, "fake_rate": 0.13, "tokens_per_second": 8100.0, "mfu": 0.447}
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step, auc in ((100, 0.5), (200, 0.75)):
            file.write(json.dumps({"step": step, "split": "train", "auc": auc, "seconds": step, **figures}) + "\n")
    return tmp_path


def call(*words: str):
    app = typer.Typer()
    app.command()(status)
    return CliRunner().invoke(app, list(words))


def test_status(run):
    result = call(str(run))
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "step 200 of 400 (50%) · stopped · 3:20 so far · 3:20 left · 8,100 tokens/s · MFU 45%" in said
    assert "no checkpoint yet" in said
    assert "disc. AUC training 0.500 → 0.750 ▁█" in said
    assert "The discriminator is learning" in said
    assert "…" not in said
    assert "--resume" in said


def test_json(run):
    found = json.loads(call(str(run), "--json").output)
    assert (found["state"], found["step"], found["train"]["auc"], found["validation"]) == ("stopped", 200, 0.75, None)
    assert found["verdict"][0].startswith("The discriminator is learning")
