"""Messages of the library in the words of the command line."""

import pytest

from electra_fast.cli.app import COMMANDS
from electra_fast.cli.mistakes import flags, in_options

PRETRAIN = flags(COMMANDS["pretrain"])


def test_every_option_has_its_spelling():
    assert PRETRAIN["hidden_size"] == "--hidden-size"
    assert PRETRAIN["data"] == "--data"
    assert PRETRAIN["compile"] == "--compile"
    prepare = flags(COMMANDS["prepare"])
    assert (prepare["inputs"], prepare["validation_inputs"]) == ("--input", "--validation-input")
    assert (prepare["lowercase"], prepare["max_length"]) == ("--lowercase", "--max-length")
    assert flags(COMMANDS["show"]) == {"probability": "--probability", "seed": "--seed"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ElectraConfig: hidden_size must be a multiple of num_attention_heads, got 33 and 4",
         "--hidden-size must be a multiple of --num-attention-heads, got 33 and 4"),
        ("PretrainOptions: seed must be at least 0, got -1", "--seed must be at least 0, got -1"),
        ("seed was 0 when this run began and cannot become 1", "--seed was 0 when this run began and cannot become 1"),
        ("data is missing: name the directory (--data)", "--data is missing: name the directory (--data)"),
        ("total_steps and max_time exclude each other", "--total-steps and --max-time exclude each other"),
        ("fewer than a batch: lower batch_size to at most 3", "fewer than a batch: lower --batch-size to at most 3"),
        ("Lower learning_rate, lengthen warmup_steps", "Lower --learning-rate, lengthen --warmup-steps"),
        # words, paths, quotations and flags stay what they are
        ("output runs/x is a file", "output runs/x is a file"),
        ("the seed of all data", "the seed of all data"),
        ("cannot read /a/batch_size/keep and batch_size.txt", "cannot read /a/batch_size/keep and batch_size.txt"),
        ("no text in field 'batch_size'", "no text in field 'batch_size'"),
        ("use --batch-size", "use --batch-size"),
        ("ElectraConfig: id2label must name the labels", "id2label must name the labels"),
    ],
)  # fmt: skip
def test_names_become_options(message, expected):
    assert in_options(message, PRETRAIN) == expected


def test_a_file_keeps_its_names():
    message = "run.toml: PretrainOptions: hidden_size must be int, got 'x' (str)"
    assert in_options(message, {}) == "run.toml: hidden_size must be int, got 'x' (str)"
