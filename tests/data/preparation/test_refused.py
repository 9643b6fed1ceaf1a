"""Options and text that are refused: what the error says, and that nothing is left behind."""

import pytest

from electra_fast.data import open_corpus, prepare
from electra_fast.errors import ConfigError, CorpusError, ShardError, TokenizerError


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": []}, ConfigError, "inputs: expected at least one"),
        ({"inputs": "nowhere.txt"}, CorpusError, "nowhere.txt does not exist"),
        ({"workers": 0}, ConfigError, "workers: expected at least 1, got 0"),
        ({"shard_tokens": 0}, ConfigError, "shard_tokens: expected at least 1"),
        ({"max_length": 4}, ConfigError, "max_length: expected at least 8"),
        ({"examples": "x"}, ConfigError, "examples: expected one of"),
        ({"errors": "ignore"}, ConfigError, "errors: expected one of"),
        ({"validation_fraction": 0.6}, ConfigError, "validation_fraction: expected 0 to 0.5, got 0.6"),
        ({"validation_fraction": float("nan")}, ConfigError, "validation_fraction: expected"),
        ({"vocab_size": 100}, ConfigError, "vocab_size is for training a tokenizer, but one is given"),
        ({"tokenizer": None, "vocab_size": 5}, ConfigError, "vocab_size: expected at least"),
        ({"tokenizer": "nowhere"}, TokenizerError, "nowhere does not exist"),
    ],
)
def test_wrong_options_leave_nothing_behind(tmp_path, options, change, error, message):
    with pytest.raises(error, match=message):
        prepare(options(**change))
    assert not (tmp_path / "out").exists()


def test_two_ways_to_hold_out(options, text):
    with pytest.raises(ConfigError, match="leave out one"):
        prepare(options(validation_inputs=[text]))


def test_held_out_text_is_no_training_text(options, text):
    with pytest.raises(CorpusError, match="given twice"):
        prepare(options(validation_inputs=[text], validation_fraction=None))


@pytest.mark.parametrize("tokenizer", ["given", "trained"])
def test_no_text(tmp_path, options, tokenizer):
    (tmp_path / "empty.txt").write_text("\n \n\n")
    change = {"tokenizer": None} if tokenizer == "trained" else {}
    with pytest.raises(CorpusError, match="holds no text"):
        prepare(options(inputs=tmp_path / "empty.txt", **change))
    assert not (tmp_path / "out").exists()


def test_no_text_to_validate_on(tmp_path, options):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(CorpusError, match="validation input holds no text"):
        prepare(options(validation_inputs=tmp_path / "empty.txt", validation_fraction=0))


def test_text_of_control_characters(tmp_path, options):
    (tmp_path / "odd.txt").write_text("\x01\x02\n\x03")
    with pytest.raises(CorpusError, match="holds no token"):
        prepare(options(inputs=tmp_path / "odd.txt", validation_fraction=0))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tokenizer", ["given", "trained"])
@pytest.mark.parametrize("documents", [1, 2, 7, 50])
def test_too_few_documents_to_hold_any_out(tmp_path, options, documents, tokenizer):
    change = {"tokenizer": None, "vocab_size": 64} if tokenizer == "trained" else {}
    path = tmp_path / "few.txt"
    path.write_text("\n\n".join(["w1 w1 w2 w2 w3"] * documents))
    with pytest.raises(CorpusError, match=rf"too few documents \({documents}, .*one in 120") as error:
        prepare(options(inputs=path, validation_fraction=1 / 120, **change))
    message = str(error.value)
    assert "--validation-fraction 0 " in message
    assert "\n" not in message
    if documents == 1:
        assert "or more" not in message
        return
    advised = float(message.split("--validation-fraction ")[1].split()[0])
    manifest = prepare(options(inputs=path, validation_fraction=advised, **change))
    assert manifest.splits["validation"].documents >= 1


def test_a_bad_byte_stops_the_job_and_can_be_replaced(tmp_path, options, text, files):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"w1 w2\n\nw\xff w3\n")
    inputs = [text, bad]
    with pytest.raises(CorpusError, match=r"bad\.txt: byte 0xff at offset 8"):
        prepare(options(inputs=inputs, shard_tokens=10**6))
    assert not (tmp_path / "out").exists()
    with pytest.raises(CorpusError, match="byte 0xff at offset 8"):
        prepare(options(inputs=inputs))  # with small shards some are finished by then, and kept
    with pytest.raises(ShardError, match="is not finished"):
        open_corpus(tmp_path / "out")
    notes = []
    prepare(options(inputs=inputs, errors="replace"), lambda event: notes.append(event.message))
    assert any("going on after" in note for note in notes)
    prepare(options("fresh", inputs=inputs, errors="replace"))
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
