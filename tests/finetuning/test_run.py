"""Fine-tuning from files to a model in use: figures, comparisons, interruptions, and what is refused."""

import dataclasses
import json
import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from electra_fast import load_task
from electra_fast.errors import CheckpointError, ConfigError, DataError, DivergenceError
from electra_fast.workflows.finetuning import finetune, resume
from electra_fast.workflows.finetuning.order import EpochOrder

from .conftest import rows, write_tsv


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def losses(output, seed=0):
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if r["split"] == "train" and r["seed"] == seed]


def test_from_files_to_predictions_with_a_picture(tiny, tmp_path):
    test = write_tsv(tmp_path / "test.tsv", ("sentence", "label"), rows(20, 2))
    result = finetune(tiny(seeds="0,1", test=test))
    figures = result.summary["figures"]["accuracy"]
    assert figures["min"] > 0.9
    assert figures["min"] <= figures["median"] <= figures["max"]
    assert result.summary["test"]["accuracy"] > 0.9
    assert result.summary["seconds_per_epoch"] > 0
    assert [len(seed["epoch_seconds"]) for seed in result.summary["seeds"]] == [4, 4]
    assert (result.summary["rows"], result.summary["precision"]) == ({"train": 96, "dev": 32, "test": 20}, "fp32")
    assert json.loads((result.output / "summary.json").read_text()) == result.summary
    assert (result.output / "curves.png").read_bytes()[1:4] == b"PNG"
    assert sorted(path.name for path in (result.output / "seed-1").iterdir()) == ["best", "result.json"]
    best = result.summary["best_seed"]
    assert same(weights(result.model), weights(result.output / f"seed-{best}" / "best"))
    found = load_task(result.model, precision="fp32").predict(["the film was good and lovely", "a bad and awful end"])
    assert [prediction["label"] for prediction in found] == ["good", "bad"]


def test_an_interrupted_run_goes_on_to_the_same_weights(tiny):
    whole = finetune(tiny("whole", seeds="0,1", dropout=0.1, log_every=1))

    def interrupt(seed, step, figures):
        if (seed, step) == (0, 24):
            os.kill(os.getpid(), signal.SIGTERM)

    options = tiny(seeds="0,1", dropout=0.1, log_every=1)
    stopped = finetune(options, on_evaluation=interrupt)
    assert (stopped.signal, stopped.model) == (signal.SIGTERM, None)
    assert [path.name for path in (stopped.output / "seed-0").glob("checkpoint-*")] == ["checkpoint-25"]
    ended = resume(stopped.output)
    for seed in (0, 1):
        assert same(*(weights(run.output / f"seed-{seed}" / "best") for run in (whole, ended)))
        assert losses(whole.output, seed) == losses(ended.output, seed)
    assert ended.summary["figures"] == whole.summary["figures"]
    assert ended.summary["seeds"][0]["train_seconds"] > 0
    again = finetune(options, or_resume=True)  # all seeds are done
    assert again.summary["seeds"] == ended.summary["seeds"]


class Stop(Exception):
    pass


def test_a_crash_loses_nothing_but_the_steps_since_the_checkpoint(tiny):
    def crash(seed, step, figures):
        if step == 36:
            raise Stop

    whole = finetune(tiny("whole", log_every=12))
    with pytest.raises(Stop):
        finetune(tiny(log_every=12), on_evaluation=crash)
    half_written = tiny().output_path / "seed-0" / "checkpoint-99"  # as kill -9 leaves it
    half_written.mkdir()
    ended = resume(tiny().output_path)
    assert not half_written.exists()
    assert same(weights(whole.model), weights(ended.model))
    assert losses(whole.output) == losses(ended.output)


def test_resuming_is_refused_where_it_would_be_another_run(tiny, reviews, tmp_path):
    train_file = shutil.copy(reviews[0], tmp_path / "train.tsv")
    options = tiny(train=train_file, max_steps=2, epochs=None)
    finetune(options)
    with pytest.raises(ConfigError, match="already holds a run: continue it with --resume"):
        finetune(options)
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.003 when this run began and cannot become 0\.1"):
        resume(options.output_path, {"learning_rate": 0.1})
    assert resume(options.output_path, {"threads": 1, "precision": "auto"}).summary["seeds"][0]["steps"] == 2
    write_tsv(train_file, ("sentence", "label"), rows(50, 7))
    with pytest.raises(CheckpointError, match="has changed since this run began"):
        resume(options.output_path)
    with pytest.raises(CheckpointError, match="there is no run to resume"):
        resume(tmp_path / "none")


def test_the_same_recipe_through_transformers(tiny):
    """Without dropout, rounding is all that differs; rows and initial weights are the same."""
    ours = finetune(tiny("ours", log_every=1, max_steps=10, epochs=None))
    theirs = finetune(tiny("theirs", log_every=1, max_steps=10, epochs=None, backend="transformers"))
    assert losses(theirs.output) == pytest.approx(losses(ours.output), abs=2e-4)
    assert theirs.summary["backend"] == "transformers"


def test_random_weights_instead(tiny, checkpoint):
    one = finetune(tiny("one", from_scratch=True, max_steps=1, epochs=None, learning_rate=1e-9))
    other = finetune(tiny("other", max_steps=1, epochs=None, learning_rate=1e-9))
    name = "electra.encoder.layer.0.output.dense.weight"
    pretrained = load_file(checkpoint / "model" / "discriminator" / "model.safetensors")[name]
    assert torch.allclose(weights(other.model)[name], pretrained)
    assert not torch.allclose(weights(one.model)[name], pretrained, atol=0.01)
    assert one.summary["recipe"]["layer_decay"] == 1.0


def test_early_stopping_and_evaluation_by_steps(tiny):
    result = finetune(tiny(eval_every=5, early_stopping=2, learning_rate=1e-9))
    assert (
        result.summary["seeds"][0] | {"stopped_early": True, "steps": 15, "best_step": 5} == result.summary["seeds"][0]
    )
    result = finetune(tiny("other", eval_every=5, max_steps=7, epochs=None))
    records = [json.loads(line) for line in (result.output / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["split"] == "dev"] == [5, 7]


def test_accumulation_gives_the_same_steps(tiny):
    whole = finetune(tiny("whole", log_every=1, max_steps=6, epochs=None))
    parts = finetune(tiny("parts", log_every=1, max_steps=6, epochs=None, accumulation=4))
    assert losses(parts.output) == pytest.approx(losses(whole.output), abs=1e-4)


def test_rows_of_similar_length_share_a_batch():
    lengths = [length for length in range(40) for _ in range(5)]
    order = EpochOrder(200, 3, 8, lambda: 1, lengths)
    found = list(order)
    assert sorted(found) == list(range(200))
    assert found == list(order)
    assert found != list(EpochOrder(200, 3, 8, lambda: 2, lengths))
    spreads = [max(part) - min(part) for part in ([lengths[i] for i in found[at : at + 8]] for at in range(0, 200, 8))]
    assert max(spreads) <= 2


def test_held_out_rows_where_no_dev_is_given(tiny):
    result = finetune(tiny(dev=None, dev_fraction=0.25, max_steps=1, epochs=None))
    assert result.summary["rows"] == {"train": 72, "dev": 24}


def test_precision_is_measured_where_nothing_is_said(tiny):
    result = finetune(tiny(precision="auto", max_steps=2, epochs=None))
    assert result.summary["precision"] in ("fp32", "bf16")
    assert f'precision = "{result.summary["precision"]}"' in (result.output / "config.toml").read_text()
    finetune(tiny("bf16", precision="bf16", max_steps=2, epochs=None))


def test_a_loss_that_is_not_finite_ends_the_run(tiny):
    with pytest.raises(DivergenceError, match=r"of seed 0\. Lower learning_rate"):
        finetune(tiny(learning_rate=1e30, clip_norm=0.0))


def test_nothing_is_left_where_nothing_was_begun(tiny, tmp_path):
    refused = {
        "dev": (tmp_path / "none.tsv", DataError, "there is no file"),
        "model": (tmp_path, CheckpointError, "holds no model"),
        "max_length": (65, ConfigError, "max_length must be at most 64"),
        "device": ("tpu", ConfigError, "device 'tpu' cannot be used"),
        "dev_fraction": (0.001, DataError, "too few to hold out 0.001 of them"),
        "metric": ("bleu", ConfigError, "metric must be one of accuracy, .*, got 'bleu'"),
    }
    for name, (value, kind, message) in refused.items():
        changes = {name: value, **({"dev": None} if name == "dev_fraction" else {})}
        with pytest.raises(kind, match=message):
            finetune(tiny(**changes))
        assert not (tmp_path / "run").exists()
    for name in ("model", "train", "output"):
        with pytest.raises(ConfigError, match=f"{name} is missing"):
            finetune(dataclasses.replace(tiny(), **{name: None}))
