"""What ends up in the shards and the manifest: every word once, what is held out, counts that are right."""

import gzip
import json

import numpy as np

from electra_fast.data import Tokenizer, open_corpus, prepare, tokenise
from electra_fast.data.tokenizer import SPECIAL_TOKENS


def words_of(corpus, split, tokenizer):
    """The words of a split in the order of its shards, special tokens removed."""
    found = []
    for shard in corpus.shards[split]:
        for index in range(len(shard)):
            ids, _ = shard.example(index)
            found += [tokenizer.token(int(i)) for i in ids if int(i) not in (tokenizer.cls_id, tokenizer.sep_id)]
    return found


def test_every_word_of_the_text_is_in_the_shards_once(tmp_path, options, vocab, corpus_text):
    manifest = prepare(options(examples="document"))
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == 32
    corpus = open_corpus(tmp_path / "out")
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.hash == Tokenizer.load(vocab).hash == manifest.tokenizer_hash
    documents = corpus_text().strip().split("\n\n")
    held_out = [i for i in range(len(documents)) if i % 10 == 5]
    expected = {"train": [], "validation": []}
    for i, document in enumerate(documents):
        expected["validation" if i in held_out else "train"] += document.split()
    for split, words in expected.items():
        assert words_of(corpus, split, tokenizer) == words
    assert manifest.splits["validation"].documents == len(held_out) == 2
    assert manifest.splits["train"].documents == 22


def test_two_segment_examples_hold_every_word_too(tmp_path, options, corpus_text):
    prepare(options(validation_fraction=0))
    corpus = open_corpus(tmp_path / "out")
    found = words_of(corpus, "train", Tokenizer.load(tmp_path / "out"))
    assert sorted(found) == sorted(corpus_text().split())
    assert corpus.manifest.splits["train"].two_segment_examples > 0
    assert corpus.shards["validation"] == []


def test_the_manifest_counts_what_is_there(tmp_path, options, corpus_text):
    manifest = prepare(options(overflow="truncate"))
    corpus = open_corpus(tmp_path / "out")
    lost = 0
    for name, split in manifest.splits.items():
        shards = corpus.shards[name]
        assert split.examples == sum(map(len, shards))
        assert split.tokens == sum(len(shard.tokens) for shard in shards)
        assert split.two_segment_examples == sum(
            int((np.diff(shard.offsets.astype(np.int64)) > shard.first_lengths).sum()) for shard in shards
        )
        lost += split.truncated_tokens
    content = sum(split.tokens - 2 * split.examples - split.two_segment_examples for split in manifest.splits.values())
    assert content + lost == len(corpus_text().split())
    assert lost > 0
    assert sum(split.lines for split in manifest.splits.values()) == sum(map(bool, corpus_text().split("\n")))
    assert len(manifest.splits["train"].shards) > 2
    assert all(entry.tokens >= 700 for entry in manifest.splits["train"].shards[:-1])
    assert manifest.input_files == 1


def test_unknown_words_are_counted(tmp_path, options):
    (tmp_path / "odd.txt").write_text("w1 nowhere w2\n\nw3 neither\n")
    manifest = prepare(options(inputs=[tmp_path / "odd.txt"], validation_fraction=0))
    assert manifest.splits["train"].unknown_tokens == 2


def test_another_seed_gives_other_bytes(tmp_path, options, files):
    prepare(options("a"))
    prepare(options("b", seed=1))
    assert files(tmp_path / "a")["train-00000.shard"] != files(tmp_path / "b")["train-00000.shard"]


def test_a_compressed_corpus_gives_the_same_shards(tmp_path, options, text, files):
    prepare(options("plain"))
    packed = tmp_path / "corpus.txt.gz"
    packed.write_bytes(gzip.compress(text.read_bytes()))
    prepare(options("packed", inputs=[packed]))
    plain, unpacked = files(tmp_path / "plain"), files(tmp_path / "packed")
    assert {name: data for name, data in plain.items() if name.endswith(".shard")} == {
        name: data for name, data in unpacked.items() if name.endswith(".shard")
    }


def test_long_documents_and_lines(tmp_path, options, monkeypatch):
    monkeypatch.setattr("electra_fast.data.preparation_options.PART_CHARACTERS", 400)
    monkeypatch.setattr(tokenise, "LONGEST_LINE", 90)
    path = tmp_path / "long.txt"
    path.write_text("w1 " * 1000 + "\nw2\n" + "w3 " * 40 + "\n\n" + "w4" * 150 + "\n")
    manifest = prepare(options(inputs=[path], validation_fraction=0, examples="document"))
    corpus = open_corpus(tmp_path / "out")
    found = words_of(corpus, "train", Tokenizer.load(tmp_path / "out"))
    assert found[:1041] == ["w1"] * 1000 + ["w2"] + ["w3"] * 40
    assert manifest.long_lines == 3
    assert manifest.splits["train"].documents == 2


def test_validation_in_files_of_its_own(tmp_path, options, text):
    held_out = tmp_path / "held.txt"
    held_out.write_text("w7 w8\n\nw9\n")
    manifest = prepare(options(validation_inputs=held_out, validation_fraction=None, examples="document"))
    corpus = open_corpus(tmp_path / "out")
    assert words_of(corpus, "validation", Tokenizer.load(tmp_path / "out")) == ["w7", "w8", "w9"]
    assert manifest.splits["train"].documents == 24
    assert manifest.splits["validation"].documents == 2
    assert manifest.input_files == 2


def test_the_tokenizer_never_sees_what_is_held_out(tmp_path, options):
    path = tmp_path / "text.txt"
    path.write_text("a a a a\n\nb b b b\n\nc c c c\n")
    prepare(options(inputs=path, tokenizer=None, vocab_size=64, validation_fraction=1 / 3))
    entries = (tmp_path / "out" / "vocab.txt").read_text().split()
    assert "a" in entries
    assert "c" in entries
    assert "b" not in entries


def test_a_wide_vocabulary_takes_four_bytes(tmp_path, options):
    vocab = tmp_path / "wide.txt"
    vocab.write_text("\n".join([*SPECIAL_TOKENS.values(), *(f"x{i}" for i in range(70_000)), "w1"]) + "\n")
    prepare(options(tokenizer=vocab, validation_fraction=0))
    shard = open_corpus(tmp_path / "out").shards["train"][0]
    assert shard.tokens.dtype.itemsize == 4
    assert 70_005 in shard.tokens
