"""Fine-tuning from files to a model in use."""

import json

from electra_fast import load_task
from electra_fast.workflows.finetuning import finetune


def test_from_files_to_predictions(tiny):
    result = finetune(tiny())
    assert result.summary["figures"]["accuracy"]["median"] > 0.9
    predictor = load_task(result.model, precision="fp32")
    found = predictor.predict(["the film was good and lovely", "a very bad and awful story"])
    assert [prediction["label"] for prediction in found] == ["good", "bad"]
    assert json.loads((result.output / "summary.json").read_text()) == result.summary
