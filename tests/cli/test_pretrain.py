"""The pretrain command: options from the line and from TOML, one-line errors with exit code 2, signals' exit codes."""

import dataclasses
import os
import random
import shutil
import signal

import pytest
import torch

from electra_fast import _native
from electra_fast.data import PrepareOptions, prepare
from electra_fast.matrix_peak import MatrixPeak
from electra_fast.workflows.pretraining import PretrainOptions, finish, loop, report
from electra_fast.workflows.pretraining.config_file import read_config

TINY = (
    "--num-hidden-layers 2 --hidden-size 32 --embedding-size 16 --num-attention-heads 2 --intermediate-size 64 "
    "--generator-hidden-fraction 0.5 --generator-layers-fraction 0.5 --max-position-embeddings 32 --batch-size 4 "
    "--precision fp32 --device cpu --threads 1 --no-tensorboard --eval-batches 1 --log-every 2"
).split()


@pytest.fixture(autouse=True)
def _quick_and_process_as_it_was(monkeypatch):
    """No picture (matplotlib is slow), no matrix peak, and threads and allocator of the process left alone."""
    monkeypatch.setattr(loop, "matrix_peak", lambda device, dtype: MatrixPeak(1e11, "assumed"))
    monkeypatch.setattr(finish, "draw_curves", lambda records, path: True)
    monkeypatch.setattr(report, "curves_svg", lambda records: "<svg></svg>")
    monkeypatch.setattr(_native, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    draw = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "omega", "kappa"]
    lines = (" ".join(draw.choice(words) for _ in range(12)) for _ in range(400))
    (folder / "text.txt").write_text("\n\n".join(lines))
    options = PrepareOptions(
        [folder / "text.txt"], folder / "corpus", vocab_size=80, max_length=32, validation_fraction=0.1, workers=1
    )
    prepare(options)
    return folder / "corpus"


def test_every_option_is_in_the_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert command("pretrain", "--help") == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(PretrainOptions):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "--resume" in text
    assert "--config" in text


def test_run_resume_and_refusal(command, corpus, tmp_path, capsys):
    output = tmp_path / "run"
    assert command("pretrain", "--data", corpus, "--output", output, "--steps", 3, *TINY) == 0
    assert (output / "model" / "discriminator" / "config.json").exists()
    assert read_config(output / "config.toml")["hidden_size"] == 32
    assert command("pretrain", "-d", corpus, "-o", output, "--steps", 3, *TINY) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {output} already holds a run")
    assert command("pretrain", "-o", output, "--resume", "--log-every", 1) == 0
    assert command("pretrain", "-o", output, "--resume", "--steps", 4) == 2
    assert "--total-steps was 3 when this run began" in capsys.readouterr().err


def test_the_line_counts_more_than_the_file(command, corpus, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(f'data = "{corpus}"\ntotal_steps = 500\nseed = 7\nkeep = 2\n')
    line = ["--config", config, "--output", tmp_path / "run", "--steps", 2, "--google-exact", *TINY]
    assert command("pretrain", *line) == 0
    written = read_config(tmp_path / "run" / "config.toml")
    expected = {"total_steps": 2, "seed": 7, "keep": 2, "google_exact": True, "model": "small"}
    assert {name: written[name] for name in expected} == expected


def test_several_corpora_with_weights(command, corpus, tmp_path, capsys):
    """Here the same corpus under two names."""
    copy = shutil.copytree(corpus, tmp_path / "copy")
    line = ["-d", corpus, "--data", copy, "--output", tmp_path / "run", "--steps", 2, *TINY]
    assert command("pretrain", *line, "--data-weights", "2,1,1") == 2
    assert "error: --data-weights must be one number for each of the 2 corpora, got 3" in capsys.readouterr().err
    assert command("pretrain", *line, "--data-weights", "2,1") == 0
    written = read_config(tmp_path / "run" / "config.toml")
    assert (written["data"], written["data_weights"]) == ([str(corpus), str(copy)], [2.0, 1.0])


def spoil_shard(corpus):
    path = corpus / "train-00000.shard"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def truncate_shard(corpus):
    path = corpus / "train-00000.shard"
    path.write_bytes(path.read_bytes()[:-7])


def other_vocabulary(corpus):
    path = corpus / "tokenizer.json"
    path.write_text(path.read_text().replace('"alpha"', '"aleph"'))


@pytest.mark.parametrize(
    ("words", "spoil", "message"),
    [
        (["--data", "nowhere"], None, "nowhere is not a prepared corpus: there is no such directory"),
        ([], None, "data is missing"),
        (["--batch-size", "4000"], None, "fewer than a batch of 128000: lower --batch-size to at most"),
        (["--hidden-size", "33"], None, "--hidden-size must be a multiple of --num-attention-heads"),
        (["--max-position-embeddings", "16"], None, "longer than the position table of 16"),
        (["--max-time", "soon"], None, "--max-time must be a duration"),
        (["--accumulation", "3"], None, "--accumulation must divide --batch-size"),
        (["--device", "toaster"], None, "device 'toaster' cannot be used"),
        ([], spoil_shard, "train-00000.shard is damaged: crc32"),
        ([], truncate_shard, "train-00000.shard is truncated"),
        ([], other_vocabulary, "the vocabulary does not match the shards"),
        (["--config", "missing.toml"], None, "cannot read the configuration missing.toml"),
        (["--resume"], None, "there is no run to resume"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    command, corpus, tmp_path, capsys, monkeypatch, words, spoil, message
):
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    if spoil is not None:
        spoil(copy)
    data = [] if message == "data is missing" else ["--data", copy]
    assert command("pretrain", *data, "--output", tmp_path / "run", "--steps", 2, *TINY, *words) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_output_must_be_named(command, corpus, capsys):
    assert command("pretrain", "--data", corpus) == 2
    assert "output is missing" in capsys.readouterr().err


def test_mistakes_in_the_file_suggest_the_nearest(command, tmp_path, capsys):
    config = tmp_path / "run.toml"
    config.write_text("leraning_rate = 1e-3\n")
    assert command("pretrain", "--config", config, "--output", tmp_path / "run") == 2
    assert "did you mean 'learning_rate'?" in capsys.readouterr().err
    config.write_text("hidden_size = 'wide'\n")
    assert command("pretrain", "--config", config, "--output", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert said == f"error: {config}: hidden_size must be int or none, got 'wide' (str)\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_give_their_exit_codes(command, corpus, tmp_path, monkeypatch, number, code):
    taken = loop.training_step

    def wrapped(state):
        result = taken(state)
        if state.step == 2:
            os.kill(os.getpid(), number)
        return result

    monkeypatch.setattr(loop, "training_step", wrapped)
    output = tmp_path / "run"
    assert command("pretrain", "--data", corpus, "--output", output, "--steps", 5, *TINY) == code
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-00000002.pt"]
    monkeypatch.setattr(loop, "training_step", taken)
    assert command("pretrain", "--output", output, "--resume") == 0
