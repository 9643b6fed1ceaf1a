"""The whole job: what ends up in the shards, the split, any number of workers, and every mistake a user can make."""

import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from electra_fast.data import PrepareOptions, Tokenizer, open_corpus, prepare, tokenise
from electra_fast.data import text_pass as module
from electra_fast.data.corpus import DocumentPart
from electra_fast.data.job import open_directory
from electra_fast.errors import ConfigError, CorpusError, DiskFullError, ElectraError, ShardError, TokenizerError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{index}" for index in range(60)]


def corpus_text(documents=24, seed=0):
    draw = random.Random(seed)
    found = []
    for _ in range(documents):
        lines = [" ".join(draw.choices(WORDS, k=draw.randint(2, 15))) for _ in range(draw.randint(3, 25))]
        found.append("\n".join(lines))
    return "\n\n".join(found) + "\n"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(corpus_text())
    return path


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(SPECIAL + WORDS) + "\n")
    return path


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(module, "UNIT_CHARACTERS", 1500)


@pytest.fixture
def options(tmp_path, text, vocab):
    def make(output="out", **changes):
        chosen = {
            "inputs": [text],
            "output": tmp_path / output,
            "tokenizer": vocab,
            "max_length": 32,
            "validation_fraction": 0.1,
            "shard_tokens": 700,
            "workers": 1,
        }
        return PrepareOptions(**{**chosen, **changes})

    return make


def files(directory):
    """Every file of a corpus but the state of the job, which knows where it is."""
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir()) if p.name != "job.json"}


def words_of(corpus, split, tokenizer):
    """The words of a split in the order of its shards, special tokens removed."""
    found = []
    for shard in corpus.shards[split]:
        for index in range(len(shard)):
            ids, _ = shard.example(index)
            found += [tokenizer.token(int(i)) for i in ids if int(i) not in (tokenizer.cls_id, tokenizer.sep_id)]
    return found


def test_every_word_of_the_text_is_in_the_shards_once(tmp_path, options, vocab):
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


def test_two_segment_examples_hold_every_word_too(tmp_path, options):
    prepare(options(validation_fraction=0))
    corpus = open_corpus(tmp_path / "out")
    found = words_of(corpus, "train", Tokenizer.load(tmp_path / "out"))
    assert sorted(found) == sorted(corpus_text().split())
    assert corpus.manifest.splits["train"].two_segment_examples > 0
    assert corpus.shards["validation"] == []


def test_the_manifest_counts_what_is_there(tmp_path, options):
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


@pytest.mark.parametrize("trained", [False, True], ids=["given", "trained"])
def test_the_same_bytes_for_any_number_of_workers(tmp_path, options, trained):
    training = {"tokenizer": None, "vocab_size": 150} if trained else {}
    prepare(options("one", **training))
    for workers in (2, 3):
        prepare(options(str(workers), workers=workers, **training))
        assert files(tmp_path / str(workers)) == files(tmp_path / "one")


def test_another_seed_gives_other_bytes(tmp_path, options):
    prepare(options("a"))
    prepare(options("b", seed=1))
    assert files(tmp_path / "a")["train-00000.shard"] != files(tmp_path / "b")["train-00000.shard"]


def test_a_compressed_corpus_gives_the_same_shards(tmp_path, options, text):
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
    vocab.write_text("\n".join([*SPECIAL, *(f"x{i}" for i in range(70_000)), "w1"]) + "\n")
    prepare(options(tokenizer=vocab, validation_fraction=0))
    shard = open_corpus(tmp_path / "out").shards["train"][0]
    assert shard.tokens.dtype.itemsize == 4
    assert 70_005 in shard.tokens


def test_a_finished_job_is_left_alone(tmp_path, options):
    first = prepare(options())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    notes = []
    again = prepare(options(), lambda event: notes.append(event.message))
    assert again == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    assert any("already prepared" in note for note in notes)


def test_a_finished_job_that_lost_a_shard_says_so(tmp_path, options):
    prepare(options())
    (tmp_path / "out" / "train-00001.shard").unlink()
    with pytest.raises(ShardError, match=r"train-00001\.shard is missing.*--overwrite"):
        prepare(options())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_length": 64}, "max_length = 32, asked for is 64"),
        ({"seed": 3}, "seed = 0, asked for is 3"),
        ({"tokenizer": None}, "tokenizer = "),
        ({"validation_fraction": 0.2}, "validation_every = 10, asked for is 5"),
    ],
)
def test_other_options_need_overwrite(tmp_path, options, change, named):
    prepare(options())
    before = files(tmp_path / "out")
    with pytest.raises(ConfigError, match=f"{named}.*--overwrite") as error:
        prepare(options(**change))
    assert "\n" not in str(error.value)
    assert files(tmp_path / "out") == before
    prepare(options(**change, overwrite=True))
    open_corpus(tmp_path / "out")


def test_other_text_needs_overwrite(tmp_path, options, text):
    prepare(options())
    text.write_text(corpus_text(20, seed=1))
    with pytest.raises(ConfigError, match="input files are not those"):
        prepare(options())
    prepare(options(overwrite=True))
    prepare(options("fresh"))
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_nothing_of_the_users_is_overwritten(tmp_path, options):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"holds other files \(thesis\.tex\)"):
            prepare(options(overwrite=overwrite))
    assert os.listdir(tmp_path / "out") == ["thesis.tex"]


def test_a_corpus_without_its_job(tmp_path, options):
    prepare(options())
    (tmp_path / "out" / "job.json").unlink()
    with pytest.raises(ConfigError, match="prepared elsewhere"):
        prepare(options())
    prepare(options(overwrite=True))


@pytest.mark.parametrize("name", ["manifest.json", "job.json"])
@pytest.mark.parametrize(
    "content", ['{"name": "My app", "icons": []}', '{"format": "mine"}', "[]", "not JSON", "[" * 10**5]
)
def test_files_of_other_programs_are_not_taken_for_a_corpus(tmp_path, options, name, content):
    """Web apps have a manifest.json, models a vocab.txt and a tokenizer.json."""
    out = tmp_path / "out"
    out.mkdir()
    theirs = {name: content, "vocab.txt": "a\n", "tokenizer.json": "{}", ".cache.tmp": "x", "train-00000.shard": "y"}
    for file, text in theirs.items():
        (out / file).write_text(text)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"out holds other files \(.*give a new or empty directory"):
            prepare(options(overwrite=overwrite))
    assert {path.name: path.read_text() for path in out.iterdir()} == theirs


@pytest.mark.parametrize("finished", [True, False])
def test_overwriting_removes_only_what_prepare_wrote(tmp_path, options, finished):
    prepare(options())
    out = tmp_path / "out"
    if not finished:
        (out / "manifest.json").unlink()
    for name in ("notes.md", ".cache.tmp", ".tokenizer.json.tmp", ".train-00003.shard.tmp"):
        (out / name).write_text("x")
    prepare(options(overwrite=True, max_length=16))
    assert (out / "notes.md").exists()
    assert sorted(path.name for path in out.glob(".*")) == [".cache.tmp"]
    assert open_corpus(out).manifest.max_length == 16


@pytest.mark.parametrize(
    ("content", "error"),
    [("{", ShardError), ("{}", ConfigError), ('{"format": "electra-fast prepare job", "version": 0}', ShardError)],
)
def test_a_damaged_job(tmp_path, options, content, error):
    prepare(options())
    (tmp_path / "out" / "job.json").write_text(content)
    with pytest.raises(error, match="--overwrite"):
        prepare(options())
    prepare(options(overwrite=True))


def test_two_jobs_in_one_directory(tmp_path, options):
    with open_directory(tmp_path / "out") as created:
        assert created
        with pytest.raises(ConfigError, match="another process is writing"):
            prepare(options())


def test_the_output_is_a_file(tmp_path, options):
    (tmp_path / "out").write_text("x")
    with pytest.raises(ConfigError, match="is a file, expected a directory"):
        prepare(options())
    with pytest.raises(ConfigError, match="cannot write to output"):
        prepare(options("out/below"))


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


def test_a_bad_byte_stops_the_job_and_can_be_replaced(tmp_path, options, text):
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


@pytest.mark.parametrize("at", [1, 2, 4, 6, 9, 12])
def test_a_full_disk(tmp_path, options, monkeypatch, at):
    """The n-th file does not fit: a clear word, no half of a file, and the same call ends with the same bytes."""
    prepare(options("whole"))
    syncs = 0
    real = os.fsync

    def fsync(descriptor):
        nonlocal syncs
        syncs += 1
        if syncs == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFullError, match="no space left on the disk"):
        prepare(options())
    monkeypatch.undo()
    monkeypatch.setattr(module, "UNIT_CHARACTERS", 1500)
    if (tmp_path / "out").exists():
        assert not [name for name in os.listdir(tmp_path / "out") if name.endswith(".tmp")]
    prepare(options())
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_skipped_files_and_small_vocabularies_are_said(tmp_path, options):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(corpus_text())
    (folder / "b.py").write_text("x")
    notes = []
    prepare(options(inputs=folder, tokenizer=None, vocab_size=5000), lambda event: notes.append(event.message))
    assert any("skipped" in note and "b.py" in note for note in notes)
    assert any("5000 were asked for" in note for note in notes)


def test_progress_of_a_job(tmp_path, options, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_REPORTS", 0.0)
    events = []
    manifest = prepare(options(tokenizer=None, vocab_size=100), events.append)
    stages = list(dict.fromkeys(event.stage for event in events if event.stage != "note"))
    assert stages == ["reading", "training", "tokenising"]
    done = [event for event in events if event.stage == "tokenising"]
    assert [event.bytes_done for event in done] == sorted(event.bytes_done for event in done)
    assert done[-1].bytes_done == done[-1].bytes_total == manifest.input_bytes
    assert done[-1].tokens == sum(split.tokens for split in manifest.splits.values())
    assert done[-1].documents == 24


def test_a_job_in_a_thread(tmp_path, options):
    """Signals can only be handled in the main thread; elsewhere the job runs without."""
    failures = []

    def job():
        try:
            prepare(options())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert failures == []
    open_corpus(tmp_path / "out")


def test_workers_follow_the_size_of_the_text(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [module.usable_workers(None, size) for size in (100, 3 << 20, 1 << 40)] == [1, 3, 8]
    assert module.usable_workers(2, 100) == 2


def test_a_worker_that_dies_is_reported(tmp_path, options, text, vocab):
    program = (
        "import os, signal\n"
        "from electra_fast.data import tokenise\n"
        "from electra_fast.data.corpus import DocumentPart\n"
        "options = tokenise.BuildOptions('no tokenizer', {}, 'document', 'carry', 8, 0)\n"
        "if __name__ == '__main__':\n"
        "    unit = [('train', DocumentPart(0, 0, 'x', False))]\n"
        "    try:\n"
        "        list(tokenise.build_all([(unit, None)], options, 2))\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("WorkerError a worker process ended unexpectedly")


def test_what_a_worker_does(tmp_path, options, monkeypatch, vocab):
    """The worker's own functions, in this process."""
    tokenizer = Tokenizer.load(vocab)
    build = tokenise.BuildOptions(tokenizer.backend.to_str(), tokenizer.names, "document", "carry", 16, 0)
    monkeypatch.setattr(tokenise, "_worker_builder", None)
    tokenise._start_worker(build)
    unit = [("train", DocumentPart(0, 0, "w1 w2\n\nw3", False)), ("validation", DocumentPart(1, 0, "w4", False))]
    result = tokenise._build(unit)
    assert result.splits["train"].examples.tokens.tolist() == [2, 6, 7, 8, 3]
    assert result.splits["validation"].examples.tokens.tolist() == [2, 9, 3]
    assert (result.splits["train"].lines, result.splits["validation"].documents) == (2, 1)


def test_workers_stopped_with_their_parent(tmp_path, options, monkeypatch):
    """Where a batch system ends the workers too, what is done is saved all the same."""
    real = module.build_all

    def dying(units, build, workers):
        for number, result in enumerate(real(units, build, workers)):
            if number == 3:
                signal.raise_signal(signal.SIGINT)
                raise tokenise.WorkerError("gone")
            yield result

    monkeypatch.setattr(module, "build_all", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare(options())
    monkeypatch.setattr(module, "build_all", real)
    notes = []
    prepare(options(), lambda event: notes.append(event.message))
    assert any("going on after" in note for note in notes)

    monkeypatch.setattr(signal, "raise_signal", lambda _: None)
    monkeypatch.setattr(module, "build_all", dying)
    with pytest.raises(tokenise.WorkerError):
        prepare(options("other"))


def test_no_space_for_the_directory(tmp_path, options, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = options()
    monkeypatch.setattr("pathlib.Path.mkdir", full)
    with pytest.raises(DiskFullError, match=r"cannot make .*no space left"):
        prepare(job)


def test_the_environment_is_as_it_was(tmp_path, options, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    prepare(options("a"))
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    prepare(options("b"))
    assert "TOKENIZERS_PARALLELISM" not in os.environ
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_names_of_the_package():
    import electra_fast.data as package

    assert package.__dir__() == sorted(package.__all__)
    assert package.prepare is prepare
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_errors_are_the_users():
    for kind in (ConfigError, CorpusError, DiskFullError, ShardError, TokenizerError):
        assert issubclass(kind, ElectraError)
