"""A whole run: it learns, it writes what it promises, and it says in words what came of it."""

import json
import time

import pytest
import torch

from electra_fast.data.job import open_directory
from electra_fast.errors import ConfigError, CorpusError
from electra_fast.workflows.pretraining import Evaluation, PretrainOptions, calibrate, pretrain, resume, run, writers
from electra_fast.workflows.pretraining.build import choose_device, open_training_corpus, resolve
from electra_fast.workflows.pretraining.config_file import read_config
from electra_fast.workflows.pretraining.display import Display, clock, describe, verdict
from electra_fast.workflows.pretraining.journal import read_records


def test_it_learns(tiny, capsys):
    """On text with strong regularities 150 small steps suffice to find replaced words in unseen sentences."""
    schedule = {"total_steps": 150, "warmup_steps": 20, "learning_rate": 2e-3, "batch_size": 8}
    reports = {"log_every": 10, "eval_every": 0, "checkpoint_every": 1000}
    result = pretrain(tiny(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **schedule, **reports))
    train = [r for r in read_records(result.output / "metrics.jsonl") if r["split"] == "train"]
    assert train[-1]["loss"] < 0.85 * train[0]["loss"]
    assert train[-1]["generator_loss"] < 0.75 * train[0]["generator_loss"]
    assert result.figures["split"] == "validation"
    assert result.figures["auc"] > 0.65
    assert result.figures["loss_minus_entropy"] < -0.04
    assert "The discriminator is learning" in capsys.readouterr().err


def test_a_run_writes_what_it_promises(tiny, picture):
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")
    from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, AutoTokenizer

    result = pretrain(tiny(tensorboard=True))
    output = result.output
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (output / "report.html").read_text()
    assert list((output / "tensorboard").glob("events.*"))
    assert [path.name for path in sorted((output / "checkpoints").iterdir())] == [
        "step-00000003.pt",
        "step-00000006.pt",
        "step-00000008.pt",
    ]
    summary = json.loads((output / "summary.json").read_text())
    assert summary["steps"] == 8
    assert summary["validation"]["auc"] == result.figures["auc"]
    records = read_records(output / "metrics.jsonl")
    assert [(r["step"], r["split"]) for r in records if r["split"] == "validation"] == [
        (4, "validation"),
        (8, "validation"),
    ]
    last = [r for r in records if r["split"] == "train"][-1]
    assert last["learning_rate"] == pytest.approx(1e-3 * (1 - 7 / 8))
    assert last["tokens_per_second"] > 0
    assert last["mfu"] == pytest.approx(last["tflops"] * 1e12 / 1e11)
    assert 0 <= last["data_wait"] < 1
    assert last["memory_mb"] > 10
    assert 0 <= last["padding"] < 0.5

    tokenizer = AutoTokenizer.from_pretrained(output / "model" / "discriminator")
    inputs = tokenizer("the red fox sees the green apple", return_tensors="pt")
    for name, kind in (("discriminator", AutoModelForPreTraining), ("generator", AutoModelForMaskedLM)):
        model, info = kind.from_pretrained(output / "model" / name, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert model(**inputs).logits.isfinite().all()


def test_its_config_repeats_a_run(tiny, tmp_path):
    first = pretrain(tiny("first", hidden_dropout_prob=0.1))
    values = read_config(first.output / "config.toml")
    second = pretrain(PretrainOptions.from_mapping({**values, "output": tmp_path / "second"}))
    assert second.figures["loss"] == first.figures["loss"]
    assert values["num_hidden_layers"] == 2
    assert values["adam_epsilon"] == 1e-6
    assert values["threads"] == torch.get_num_threads()


def test_without_optional_packages(tiny, picture, monkeypatch, capsys):
    import sys

    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(writers, "find_spec", lambda name: None)
    result = pretrain(tiny(total_steps=2, tensorboard=True))
    assert not (result.output / "curves.png").exists()
    assert "matplotlib is not installed" in (result.output / "report.html").read_text()
    assert not (result.output / "tensorboard").exists()
    assert "matplotlib is not installed" in capsys.readouterr().err


def test_without_held_out_text(tiny, corpus, tmp_path, capsys):
    import shutil

    from electra_fast.data import Manifest

    folder = tmp_path / "no-validation"
    shutil.copytree(corpus, folder)
    manifest = Manifest.load(folder)
    manifest.splits["validation"].shards = []
    manifest.splits["validation"].examples = manifest.splits["validation"].tokens = 0
    manifest.save(folder)
    values = {**tiny(total_steps=2).to_dict(), "data": folder}
    result = pretrain(PretrainOptions.from_mapping(values))
    assert result.figures["split"] == "train"
    assert "On training text (there is none held out)" in capsys.readouterr().err


def test_evaluation_is_the_same_every_time_and_leaves_the_model_as_it_was(tiny):
    options = tiny()
    corpus = open_training_corpus(options.data_paths)
    config = resolve(options, corpus.manifest)
    from electra_fast.models import ElectraPretrainingPair

    pair = ElectraPretrainingPair(config)
    before = {name: p.clone() for name, p in pair.state_dict().items()}
    evaluation = Evaluation(corpus, 160, 100)
    total = sum(batch.tokens for batch in evaluation.batches)
    assert total == corpus.manifest.splits["validation"].tokens
    first = evaluation.run(pair)
    torch.rand(3)
    assert evaluation.run(pair) == first
    assert pair.training
    assert all(torch.equal(p, before[name]) for name, p in pair.state_dict().items())
    assert all(p.grad is None for p in pair.parameters())
    assert len(Evaluation(corpus, 160, 2).batches) == 2
    assert len(Evaluation(corpus, 100_000, 2).batches) == 1


def test_bf16_is_chosen_where_it_is_faster(tiny, monkeypatch):
    options = tiny(precision="auto")
    corpus = open_training_corpus(options.data_paths)
    arguments = (options, resolve(options, corpus.manifest), corpus, torch.device("cpu"))
    monkeypatch.setattr(calibrate, "why_no_bf16", lambda device: None)
    for bf16, chosen in ((0.05, "bf16"), (0.099, "fp32"), (0.2, "fp32")):
        times = {"bf16": bf16, "fp32": 0.1}
        monkeypatch.setattr(calibrate, "step_seconds", lambda *rest, times=times: times[rest[4]])
        plan = calibrate.plan(*arguments)
        assert plan.precision == chosen
        assert plan.total_steps is None
        assert f"precision {chosen}: a step takes" in plan.reasons[0]
    monkeypatch.setattr(calibrate, "why_no_bf16", lambda device: "it has none")
    plan = calibrate.plan(*arguments)
    assert (plan.precision, plan.reasons) == ("fp32", ["precision fp32: it has none"])


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 seconds"), (150, "2.5 minutes"), (9000, "2.5 hours"), (6e6, "69 days")]
)
def test_durations_in_words(seconds, words):
    assert calibrate.spoken(seconds) == words


def test_a_long_run_says_how_long(tiny, monkeypatch):
    options = tiny(precision="auto", total_steps=1_000_000)
    corpus = open_training_corpus(options.data_paths)
    monkeypatch.setattr(calibrate, "why_no_bf16", lambda device: None)
    monkeypatch.setattr(calibrate, "step_seconds", lambda *_: 5.6)
    plan = calibrate.plan(options, resolve(options, corpus.manifest), corpus, torch.device("cpu"))
    assert plan.reasons[-1].startswith("1,000,000 steps of")
    assert plan.reasons[-1].endswith("are going to take about 65 days")


def test_slow_steps_are_saved_by_the_clock(tiny):
    from electra_fast.workflows.pretraining.checkpoint import CheckpointDirectory

    result = pretrain(tiny(checkpoint_every=1000, checkpoint_minutes=1e-9, keep=100))
    files = CheckpointDirectory(result.output / "checkpoints").files()
    assert len(files) == result.step


def test_bf16_needs_hardware(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert calibrate.why_no_bf16(torch.device("cpu")) == "this CPU has neither avx512_bf16 nor amx"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert calibrate.why_no_bf16(torch.device("cpu")) is None


def test_an_output_that_cannot_be_is_refused_before_any_work(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "plan", lambda *_: pytest.fail("measured before looking at the output"))
    (tmp_path / "file").write_text("something")
    with pytest.raises(ConfigError, match="file is a file, expected a directory"):
        pretrain(tiny(output=tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot write to output"):
        pretrain(tiny(output="/proc/nowhere"))


def test_one_process_at_a_time_writes_to_a_run(tiny, tmp_path):
    options = tiny(output=tmp_path / "run")
    with open_directory(options.output_path), pytest.raises(ConfigError, match="another process is writing to"):
        pretrain(options)
    result = pretrain(options)
    with open_directory(result.output), pytest.raises(ConfigError, match="another process is writing to"):
        resume(result.output)


def test_a_refused_run_leaves_no_directory(tiny, tmp_path):
    with pytest.raises(CorpusError, match="fewer than a batch"):
        pretrain(tiny(output=tmp_path / "run", batch_size=100_000))
    assert not (tmp_path / "run").exists()


def test_max_time_becomes_steps_that_are_written_down(tiny, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "_SECONDS", 0.05)
    options = {**tiny(eval_every=0).to_dict(), "max_time": "3s"}
    del options["total_steps"], options["warmup_steps"]
    result = pretrain(PretrainOptions.from_mapping(options))
    written = read_config(result.output / "config.toml")
    assert written["total_steps"] == result.step > 0
    assert "max_time" not in written
    assert f"{result.step:,} steps in about 3 s" in capsys.readouterr().err


def test_a_large_step_is_measured_in_part(tiny, monkeypatch):
    """64 times the probe: the estimate is 64 times the probe's time, and one probe is all that is run."""
    options = tiny(batch_size=64, accumulation=2, precision="fp32")
    corpus = open_training_corpus(options.data_paths)
    config = resolve(options, corpus.manifest)
    monkeypatch.setattr(calibrate, "_PROBE_TOKENS", config.pretraining.sequence_length)
    sizes = []
    building = calibrate.build

    def counted(options, config, *rest):
        sizes.append(config.pretraining.batch_size)
        return building(options, config, *rest)

    monkeypatch.setattr(calibrate, "build", counted)
    monkeypatch.setattr(calibrate, "training_step", lambda state: time.sleep(0.05))
    seconds = calibrate.step_seconds(options, config, corpus, torch.device("cpu"), "fp32", 0.01)
    assert sizes == [1]
    assert seconds == pytest.approx(64 * 0.05, rel=0.5)


def test_time_for_evaluations_is_set_aside(tiny, monkeypatch):
    options = PretrainOptions.from_mapping(
        {**{k: v for k, v in tiny(eval_every=10).to_dict().items() if k != "total_steps"}, "max_time": 100}
    )
    corpus = open_training_corpus(options.data_paths)
    arguments = (options, resolve(options, corpus.manifest), corpus, torch.device("cpu"))
    monkeypatch.setattr(calibrate, "step_seconds", lambda *_: 0.1)
    monkeypatch.setattr(calibrate, "evaluation_seconds", lambda *_: 1.0)
    steps = calibrate.plan(*arguments).total_steps
    assert steps == pytest.approx((92 - 1) / (0.1 + 1.0 / 10), abs=2)


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="device 'toaster' cannot be used"):
        choose_device("toaster")


def test_words_for_figures():
    figures = {"discriminator_loss": 0.4, "entropy": 0.5, "auc": 0.8, "fake_rate": 0.2}
    assert verdict(figures).startswith("The discriminator is learning: its loss is 0.400")
    assert verdict({**figures, "discriminator_loss": 0.5}).startswith("The discriminator is beginning to learn")
    assert verdict({**figures, "auc": 0.5}).startswith("The discriminator is not learning yet")
    assert verdict({**figures, "auc": None}).startswith("There were too few fake tokens")
    alone = {**figures, "discriminator_loss": None, "generator_loss": 2.5, "generator_accuracy": 0.5}
    assert "loss is 2.500, and its first guess at a masked token is right 50.0% of the time" in verdict(alone)
    record = {"loss": 12.3456, "loss_minus_entropy": -0.01, "auc": None, "tokens_per_second": 12345.6}
    assert describe(record) == "loss 12.346  disc. loss vs chance -0.010  12,346 tokens/s"
    assert [clock(seconds) for seconds in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]


def test_display_on_a_terminal(monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("electra_fast.workflows.pretraining.display._REFRESH_SECONDS", 0.0)
    display = Display(0, 10)
    display.say("a [note] that stays")
    display.step(1)
    display.report({"step": 1, "split": "train", "loss": 1.0})
    display.report({"step": 1, "split": "validation", "loss": 2.0})
    display.step(2)
    monkeypatch.setattr("electra_fast.workflows.pretraining.display._REFRESH_SECONDS", 100.0)
    display.step(3)  # not drawn at once, but in the end
    display.close()
    said = capsys.readouterr().err
    assert "a [note] that stays" in said
    assert "step 1, held out: loss 2.000" in said
    assert "2/10" in said
    assert "3/10" in said
    assert "loss 1.000" in said
