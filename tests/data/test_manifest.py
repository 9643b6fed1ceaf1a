"""The manifest: round trip, and a clear word where a directory is no (whole) corpus."""

import json

import numpy as np
import pytest

from electra_fast.data import Manifest, open_corpus
from electra_fast.data.manifest import Split, content_hash
from electra_fast.data.shards import Examples, write_shard
from electra_fast.errors import ShardError


@pytest.fixture
def corpus(tmp_path):
    """A corpus of two examples, made by hand."""
    lengths = np.array([3, 5], np.uint32)
    tokens = np.array([2, 7, 3, 2, 9, 3, 8, 3], "<u2")
    entry = write_shard(tmp_path / "train-00000.shard", Examples(tokens, lengths, np.array([3, 3], np.uint32)))
    train = Split(documents=1, lines=2, examples=2, two_segment_examples=1, tokens=8, shards=[entry])
    manifest = Manifest(
        options={"max_length": 8},
        tokenizer_hash="ab" * 32,
        vocab_size=10,
        special_tokens={"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4},
        input_files=1,
        input_bytes=9,
        long_lines=0,
        splits={"train": train, "validation": Split()},
    )
    manifest.save(tmp_path)
    return tmp_path


def edit(path, **values):
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps(content))


def test_round_trip(corpus):
    manifest = Manifest.load(corpus)
    assert manifest.max_length == 8
    assert manifest.fill() == 0.5
    assert manifest.fill("validation") == 0.0
    before = (corpus / "manifest.json").read_bytes()
    manifest.save(corpus)
    assert (corpus / "manifest.json").read_bytes() == before


def test_open(corpus):
    opened = open_corpus(corpus, tokenizer_hash="ab" * 32)
    assert opened.paths("train") == [corpus / "train-00000.shard"]
    assert opened.paths("validation") == []
    assert opened.shards["train"][0].example(1)[0].tolist() == [2, 9, 3, 8, 3]


def test_another_tokenizer_is_refused(corpus):
    with pytest.raises(ShardError, match="vocabulary does not match the shards"):
        open_corpus(corpus, tokenizer_hash="cd" * 32)


def test_verification_reads_the_bytes(corpus):
    path = corpus / "train-00000.shard"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    open_corpus(corpus, verify=False)
    with pytest.raises(ShardError, match=r"train-00000\.shard is damaged"):
        open_corpus(corpus)


def test_no_directory(tmp_path):
    with pytest.raises(ShardError, match="there is no such directory"):
        open_corpus(tmp_path / "nowhere")


def test_no_manifest(tmp_path):
    with pytest.raises(ShardError, match=r"it holds no manifest\.json"):
        open_corpus(tmp_path)


def test_unfinished(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(ShardError, match="is not finished"):
        open_corpus(tmp_path)


def test_not_json(corpus):
    (corpus / "manifest.json").write_text("{")
    with pytest.raises(ShardError, match="is damaged"):
        Manifest.load(corpus)


def test_foreign_json(corpus):
    edit(corpus / "manifest.json", format="other")
    with pytest.raises(ShardError, match="is not the manifest of a corpus"):
        Manifest.load(corpus)


def test_another_version(corpus):
    edit(corpus / "manifest.json", version=7)
    with pytest.raises(ShardError, match="format version 7, this electra_fast reads version 1"):
        Manifest.load(corpus)


@pytest.mark.parametrize("change", [{"splits": {"train": {"shards": [{"nome": 1}]}}}, {"splits": 3}, {"extra": 1}])
def test_wrong_fields(corpus, change):
    edit(corpus / "manifest.json", **change)
    with pytest.raises(ShardError, match="is damaged"):
        Manifest.load(corpus)


def test_edited_options(corpus):
    edit(corpus / "manifest.json", options={"max_length": 16})
    with pytest.raises(ShardError, match="changed by hand"):
        Manifest.load(corpus)


def test_content_hash_is_of_the_content():
    assert content_hash({"a": 1, "b": "ä"}) == content_hash({"b": "ä", "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
