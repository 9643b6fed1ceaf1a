"""A run that was interrupted, in whatever way, ends with the same losses to the last bit as one that was not."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from electra_fast.data import PrepareOptions, prepare
from electra_fast.errors import CheckpointError, ConfigError, ShardError
from electra_fast.workflows.pretraining import loop, pretrain, resume, run
from electra_fast.workflows.pretraining.checkpoint import CheckpointDirectory, load_checkpoint
from electra_fast.workflows.pretraining.config_file import write_config

CLOCK = ("seconds", "tokens_per_second", "tflops", "mfu", "data_wait", "memory_mb")


def figures(output):
    """All records of a run, without what depends on the clock."""
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in CLOCK} for record in records]


def weights(output):
    return CheckpointDirectory(output / "checkpoints").load_newest()[0]["model"]


def assert_same_run(a, b):
    assert figures(a) == figures(b)
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def at_step(monkeypatch, step, act):
    """Do something right after a step."""
    taken = loop.training_step

    def wrapped(state):
        result = taken(state)
        if state.step == step:
            act()
        return result

    monkeypatch.setattr(loop, "training_step", wrapped)


class Crash(Exception):
    """What takes the process down."""


def crash():
    raise Crash


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulation": 2, "log_every": 5, "checkpoint_every": 4},
        {"precision": "bf16", "hidden_dropout_prob": 0.2},
        {"google_exact": True, "uniform_generator": True},
        {"embedding_sharing": "gdes", "masking": "word"},
        {"embedding_sharing": "none", "freeze_generator": True, "temperature_schedule": "exponential"},
        {"objective": "electric", "accumulation": 2, "temperature_schedule": "exponential"},
        {"objective": "mlm", "accumulation": 2},
    ],
    ids=["plain", "accumulation", "bf16", "google", "gdes", "frozen", "electric", "mlm"],
)
def test_after_a_crash(tiny, monkeypatch, changes):
    pretrain(tiny("whole", **changes))
    at_step(monkeypatch, 7, crash)
    with pytest.raises(Crash):
        pretrain(tiny("parts", **changes))
    monkeypatch.undo()
    result = resume(tiny("parts").output_path)
    assert result.step == 8
    assert_same_run(tiny("whole").output_path, result.output)


def test_a_checkpoint_of_version_1(tiny, monkeypatch):
    """From before a run could have several processes: their options and the metrics of each are missing."""
    pretrain(tiny("whole"))
    at_step(monkeypatch, 5, crash)
    with pytest.raises(Crash):
        pretrain(tiny("parts"))
    monkeypatch.undo()
    path = CheckpointDirectory(tiny("parts").output_path / "checkpoints").newest()
    saved = load_checkpoint(path)
    for name in ("ranks", "parallel", "on_nonfinite"):
        del saved["options"][name]
    del saved["watch"]
    (metrics,) = saved["metrics"]
    torch.save({**saved, "version": 1, "metrics": {**metrics, "sums": metrics["sums"][:8]}}, path)
    assert_same_run(tiny("whole").output_path, resume(tiny("parts").output_path).output)


def test_the_same_command_begins_and_goes_on(tiny, monkeypatch):
    pretrain(tiny("whole"))
    at_step(monkeypatch, 5, crash)
    with pytest.raises(Crash):
        pretrain(tiny("parts"), or_resume=True)
    monkeypatch.undo()
    assert_same_run(tiny("whole").output_path, pretrain(tiny("parts"), or_resume=True).output)


def test_after_a_crash_before_the_first_checkpoint(tiny, monkeypatch):
    pretrain(tiny("whole"))
    at_step(monkeypatch, 2, crash)
    with pytest.raises(Crash):
        pretrain(tiny("parts"))
    monkeypatch.undo()
    assert_same_run(tiny("whole").output_path, resume(tiny("parts").output_path).output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_finish_the_step_save_and_stop(tiny, monkeypatch, number, capfd):
    pretrain(tiny("whole"))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    at_step(monkeypatch, 5, lambda: os.kill(os.getpid(), number))
    result = pretrain(tiny("parts"))
    monkeypatch.undo()
    assert (result.step, result.signal) == (5, number)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert CheckpointDirectory(result.output / "checkpoints").files()[-1].name == "step-00000005.pt"
    assert not (result.output / "model").exists()
    said = capfd.readouterr().err
    assert "once more to exit at once" in said
    assert f"stopped by {signal.Signals(number).name} after step 5" in said
    assert_same_run(tiny("whole").output_path, resume(result.output).output)


def test_a_second_signal_ends_the_run_at_once(tiny, monkeypatch):
    """The first asks for the end of the step; a second, in that step, has Python's usual effect."""

    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal was held back")

    at_step(monkeypatch, 5, twice)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny())
    files = CheckpointDirectory(tiny().output_path / "checkpoints").files()
    assert [path.name for path in files] == ["step-00000003.pt"]


def start_process(config):
    code = "import sys; from electra_fast.cli import main; sys.argv[0] = 'electra-fast'; main()"
    command = [sys.executable, "-c", code, "pretrain", "--config", str(config)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def wait_for_step(process, output, step):
    """Until the run has written the record of a step."""
    while process.poll() is None:
        if (output / "metrics.jsonl").exists() and len(figures_so_far(output)) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run ended with {process.returncode} before step {step}")


def figures_so_far(output):
    return (output / "metrics.jsonl").read_text().splitlines()


def test_kill_9_in_the_middle(tiny, tmp_path):
    options = {"total_steps": 150, "log_every": 1, "eval_every": 0, "checkpoint_every": 7}
    killed = tiny("killed", **options)
    write_config(tmp_path / "config.toml", killed.to_dict())
    process = start_process(tmp_path / "config.toml")
    try:
        wait_for_step(process, killed.output_path, 16)
    finally:
        process.kill()
        process.wait()
    assert len(figures_so_far(killed.output_path)) < 150
    result = resume(killed.output_path)
    assert result.step == 150
    whole = pretrain(tiny("whole", **options))
    assert_same_run(whole.output, result.output)


def test_damaged_checkpoint_falls_back_says_so_and_ends_the_same(tiny, monkeypatch, capsys):
    pretrain(tiny("whole"))
    at_step(monkeypatch, 7, crash)
    with pytest.raises(Crash):
        pretrain(tiny("parts"))
    monkeypatch.undo()
    newest = CheckpointDirectory(tiny("parts").output_path / "checkpoints").files()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    result = resume(tiny("parts").output_path)
    said = capsys.readouterr().err
    assert f"{newest} is truncated or damaged" in said
    assert "using the one before" in said
    assert "continuing after step 3" in said
    assert_same_run(tiny("whole").output_path, result.output)


def test_finished_run_writes_its_results_again(tiny):
    result = pretrain(tiny())
    before = figures(result.output)
    for name in ("summary.json", "curves.png"):
        (result.output / name).unlink()
    again = resume(result.output)
    assert again.figures == result.figures
    assert figures(result.output) == before
    assert (result.output / "summary.json").exists()
    assert (result.output / "curves.png").exists()


def test_a_directory_with_a_run_is_not_overwritten(tiny):
    output = pretrain(tiny(total_steps=1)).output
    with pytest.raises(ConfigError, match="already holds a run: continue it with --resume, or choose another --output"):
        pretrain(tiny())
    (output / "config.toml").unlink()
    with pytest.raises(ConfigError, match="already holds a run"):
        pretrain(tiny())


def test_nothing_to_resume(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no run to resume in .*: leave out --resume to begin one"):
        resume(tmp_path)


def test_options_that_change_no_loss_may_change(tiny, monkeypatch, corpus):
    at_step(monkeypatch, 4, crash)
    with pytest.raises(Crash):
        pretrain(tiny("parts"))
    monkeypatch.undo()
    result = resume(tiny("parts").output_path, {"log_every": 4, "keep": 1, "eval_every": 0, "data": str(corpus)})
    assert [r["step"] for r in figures(result.output) if r["split"] == "train"] == [1, 2, 3, 4, 8]
    assert len(CheckpointDirectory(result.output / "checkpoints").files()) == 1


def test_options_that_would_change_losses_may_not(tiny):
    output = pretrain(tiny(total_steps=1)).output
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.001 when this run began and cannot become 0\.1"):
        resume(output, {"learning_rate": 0.1})
    resume(output, {"learning_rate": 0.001, "max_time": "5m", "precision": "auto", "device": "auto"})


def test_another_number_of_threads_is_said(tiny, capsys):
    output = pretrain(tiny(total_steps=1)).output
    resume(output, {"threads": 2})
    assert "the run began with 1 threads on cpu and goes on with 2" in capsys.readouterr().err


def test_another_torch_or_instruction_set_is_said(tiny, monkeypatch, capsys):
    output = pretrain(tiny()).output
    capsys.readouterr()
    resume(output)
    assert "last bit" not in capsys.readouterr().err
    monkeypatch.setattr(run, "environment", lambda: {**loop.environment(), "instruction_set": "abacus"})
    resume(output)
    assert "goes on with abacus: losses may not be equal to the last bit" in capsys.readouterr().err


def test_another_corpus_is_refused(tiny, tmp_path):
    output = pretrain(tiny(total_steps=1)).output
    (tmp_path / "text.txt").write_text("some other words here .\n\n" * 40)
    other = PrepareOptions(
        [tmp_path / "text.txt"], tmp_path / "other", vocab_size=160, max_length=40, validation_fraction=0.1
    )
    prepare(other)
    with pytest.raises(CheckpointError, match="is not the corpus this run began with"):
        resume(output, {"data": str(tmp_path / "other")})


def test_a_vocabulary_that_does_not_match_the_shards(tiny, corpus, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text.replace('"fox"', '"cat"'))
    with pytest.raises(ShardError, match="the vocabulary does not match the shards"):
        pretrain(dataclasses.replace(tiny(), data=copy))


def test_a_checkpoint_of_another_network(tiny):
    output = pretrain(tiny(total_steps=1)).output
    directory = CheckpointDirectory(output / "checkpoints")
    saved, _ = directory.load_newest()
    del saved["model"]["discriminator.discriminator_predictions.dense.bias"]
    directory.save(2, saved)
    with pytest.raises(CheckpointError, match=r"is not of this network: .*dense\.bias"):
        resume(output)
