"""Two-level shuffling, of a local corpus and of one behind a URL: every example once an epoch, exact resumption, ranks,
a bounded cache, and what happens when a shard is missing, damaged or late."""

import errno
import itertools
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from electra_fast.data import PrepareOptions, open_corpus, prepare, shard_store
from electra_fast.data.shard_shuffle import ShardShuffledBatches
from electra_fast.data.shard_store import open_remote_corpus
from electra_fast.errors import CheckpointError, ConfigError, CorpusError, DiskFullError, ShardError

OPTIONS = {"tokens": 128, "together": 3, "seed": 5}
WORDS = [f"w{index}" for index in range(500)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Eleven training shards: two groups of three and one of five."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS, k=draw.randint(3, 20))) for _ in range(840)]
    (folder / "text.txt").write_text("\n\n".join("\n".join(lines[i : i + 20]) for i in range(0, 840, 20)))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    options = PrepareOptions(
        [folder / "text.txt"],
        folder / "out",
        tokenizer=folder / "vocab.txt",
        max_length=32,
        validation_fraction=0.1,
        shard_tokens=750,
        workers=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("electra_fast.data.text_pass.UNIT_CHARACTERS", 200)
        manifest = prepare(options)
    assert len(manifest.splits["train"].shards) == 11
    return folder / "out"


@pytest.fixture
def corpus(directory):
    return open_corpus(directory)


@pytest.fixture
def url(directory):
    """The corpus in fsspec's file system in memory."""
    fsspec = pytest.importorskip("fsspec", reason="needs the optional package fsspec")
    memory = fsspec.filesystem("memory")
    for path in directory.iterdir():
        memory.pipe_file(f"/bucket/corpus/{path.name}", path.read_bytes())
    yield "memory://bucket/corpus"
    memory.rm("/bucket", recursive=True)


def sequences(batch):
    """The examples of a batch, each as a tuple of ids."""
    bounds = batch.cu_seqlens[: batch.sequences + 1].tolist()
    return [tuple(batch.input_ids[a:b].tolist()) for a, b in itertools.pairwise(bounds)]


def an_epoch(batches):
    found = []
    while batches.state_dict()["epoch"] == 0:
        found.append(next(batches))
    return found


def test_every_example_once_an_epoch_in_a_new_order_each_time(corpus):
    expected = sorted(
        tuple(shard.example(i)[0].tolist()) for shard in corpus.shards["train"] for i in range(len(shard))
    )
    with ShardShuffledBatches(corpus, **OPTIONS) as batches:
        first = [name for batch in an_epoch(batches) for name in sequences(batch)]
        second = []
        while batches.state_dict()["epoch"] == 1:
            second += sequences(next(batches))
        statistics = batches.statistics()
    assert sorted(first) == sorted(second) == expected
    assert first != second
    assert statistics["sequences"] == 2 * len(expected)
    assert statistics["fill"] > 0.9
    assert statistics["wait_seconds"] > 0


def test_a_group_is_shuffled_together_and_nothing_else(corpus):
    """The first batches are of three shards, mixed."""
    shard_of = {
        tuple(shard.example(i)[0].tolist()): number
        for number, shard in enumerate(corpus.shards["train"])
        for i in range(len(shard))
    }
    with ShardShuffledBatches(corpus, **OPTIONS) as batches:
        seen = [sequences(batch) for batch in an_epoch(batches)]
    third = seen[: len(seen) // 5]
    assert len({shard_of[name] for batch in third for name in batch}) == 3
    assert len({shard_of[name] for name in third[0]}) > 1


@pytest.mark.parametrize("delivered", [0, 1, 20, 53, 90, 150])
def test_resuming_goes_on_exactly(corpus, delivered):
    with ShardShuffledBatches(corpus, **OPTIONS) as batches, ShardShuffledBatches(corpus, **OPTIONS) as resumed:
        for _ in range(delivered):
            next(batches)
        state = json.loads(json.dumps(batches.state_dict()))
        next(resumed)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        for _ in range(30):
            assert sequences(next(resumed)) == sequences(next(batches))
            assert resumed.state_dict() == batches.state_dict()
        batches.reset()
        resumed.load_state_dict(batches.state_dict())
        assert sequences(next(resumed)) == sequences(next(batches))


def test_resuming_at_every_place_where_a_group_ends(corpus):
    with ShardShuffledBatches(corpus, **OPTIONS) as batches, ShardShuffledBatches(corpus, **OPTIONS) as resumed:
        before, groups = batches.state_dict(), 0
        while groups < 4:
            next(batches)
            state = batches.state_dict()
            if state["group"] != before["group"]:
                groups += 1
                assert (state["window"], state["bin"]) == (0, 0)
                resumed.load_state_dict(state)
                assert sequences(next(resumed)) == sequences(next(batches))
            before = batches.state_dict()


def test_ranks_share_the_stream_and_its_place(corpus):
    with ShardShuffledBatches(corpus, **OPTIONS) as alone:
        ranks = [ShardShuffledBatches(corpus, **OPTIONS, rank=rank, world=3) for rank in range(3)]
        for _ in range(40):
            for batches in ranks:
                assert sequences(next(batches)) == sequences(next(alone))
            assert all(batches.state_dict() == alone.state_dict() for batches in ranks)
        for batches in ranks:
            batches.close()


def test_a_url_gives_the_same_batches_from_a_bounded_cache(corpus, url, tmp_path):
    """No more than two groups of training shards are ever there, the largest of which has five."""
    cache = tmp_path / "cache"
    remote = open_remote_corpus(url, cache)
    assert remote.manifest == corpus.manifest
    most = 0
    with ShardShuffledBatches(remote, **OPTIONS) as far, ShardShuffledBatches(corpus, **OPTIONS) as near:
        for _ in range(150):
            assert sequences(next(far)) == sequences(next(near))
            most = max(most, len(list(cache.glob("*-train-*.shard"))))
        assert far.state_dict()["epoch"] >= 1
        state = far.state_dict()
    assert 3 <= most <= 8
    with ShardShuffledBatches(remote, **OPTIONS) as far, ShardShuffledBatches(corpus, **OPTIONS) as near:
        far.load_state_dict(state)
        near.load_state_dict(state)
        assert sequences(next(far)) == sequences(next(near))


def test_held_out_text_and_tokenizer_of_a_url(corpus, url, tmp_path):
    remote = open_remote_corpus(url, tmp_path / "cache")
    pairs = list(zip(corpus.shards["validation"], remote.shards["validation"], strict=True))
    assert pairs
    assert all((near.tokens == far.tokens).all() for near, far in pairs)
    assert (tmp_path / "cache" / "tokenizer.json").exists()


def test_the_next_group_is_fetched_while_the_present_one_is_read(url, tmp_path, monkeypatch):
    remote = open_remote_corpus(url, tmp_path / "cache")
    with ShardShuffledBatches(remote, **OPTIONS) as batches:
        next(batches)
        until = time.monotonic() + 10
        while len(list((tmp_path / "cache").glob("*-train-*.shard"))) < 6 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(list((tmp_path / "cache").glob("*-train-*.shard"))) == 6
        assert batches.state_dict()["group"] == 0


def test_a_failure_of_the_network_is_tried_again(url, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_store, "_PAUSES", (0.0, 0.0))
    remote = open_remote_corpus(url, tmp_path / "cache")
    opened, failures = remote.training.filesystem.open, []

    def failing(path, mode):
        if len(failures) < 2:
            failures.append(path)
            raise OSError("connection reset")
        return opened(path, mode)

    monkeypatch.setattr(remote.training.filesystem, "open", failing)
    assert remote.training.fetch(0).exists()
    assert len(failures) == 2
    failures.clear()
    monkeypatch.setattr(shard_store, "_PAUSES", (0.0,))
    with pytest.raises(ShardError, match=r"train-00001.shard is damaged or out of reach: .*connection reset"):
        remote.training.fetch(1)
    assert not list((tmp_path / "cache").glob("*-train-00001.shard"))


def test_who_shares_a_cache_fetches_a_shard_once(url, tmp_path, monkeypatch):
    stores = [open_remote_corpus(url, tmp_path / "cache").training for _ in range(4)]
    opened, paths = stores[0].filesystem.open, []

    def slow(path, mode):
        paths.append(path)
        time.sleep(0.05)
        return opened(path, mode)

    monkeypatch.setattr(stores[0].filesystem, "open", slow)  # one object for all: fsspec keeps its file systems
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda store: store.fetch(4), stores))
    assert len(set(found)) == len(paths) == 1


def test_a_cache_that_cannot_be_written(url, tmp_path):
    remote = open_remote_corpus(url, tmp_path / "cache")
    with pytest.MonkeyPatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "cache" / "x"))

        patch.setattr("electra_fast.files.os.fsync", full)
        with pytest.raises(DiskFullError, match="no space left"):
            remote.training.fetch(0)
    assert remote.training.fetch(0).exists()


def test_missing_and_damaged_shards_behind_a_url(url, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_store, "_PAUSES", ())
    remote = open_remote_corpus(url, tmp_path / "cache")
    memory = remote.training.filesystem
    content = bytearray(memory.cat_file("/bucket/corpus/train-00002.shard"))
    content[-1] ^= 1
    memory.pipe_file("/bucket/corpus/train-00002.shard", bytes(content))
    with pytest.raises(ShardError, match=r"train-00002.shard is damaged or out of reach: it has .* crc32"):
        remote.training.fetch(2)
    memory.rm("/bucket/corpus/train-00003.shard")
    with pytest.raises(ShardError, match=r"train-00003.shard is missing"):
        remote.training.fetch(3)
    assert not list((tmp_path / "cache").glob("*train*.shard"))


def test_urls_that_are_no_corpus(url, tmp_path):
    with pytest.raises(ShardError, match=r"memory://elsewhere is not a prepared corpus: it holds no manifest.json"):
        open_remote_corpus("memory://elsewhere", tmp_path / "cache")
    with pytest.raises(ConfigError, match="nosuch://a is no URL that fsspec knows"):
        open_remote_corpus("nosuch://a", tmp_path / "cache")


def test_without_fsspec(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(ConfigError, match="reading s3://a needs the package fsspec and the one for this kind of URL"):
        open_remote_corpus("s3://a", tmp_path / "cache")


def test_a_place_of_other_batches_is_refused(corpus):
    with ShardShuffledBatches(corpus, **OPTIONS) as batches:
        state = batches.state_dict()
        for damaged in ({}, {"stream": None}, {**state, "bin": "x"}):
            with pytest.raises(CheckpointError, match="damaged"):
                batches.load_state_dict(damaged)
        with pytest.raises(CheckpointError, match="an epoch has 3 groups"):
            batches.load_state_dict({**state, "group": 3})
        with pytest.raises(CheckpointError, match="does not exist"):
            batches.load_state_dict({**state, "window": 99})
        next(batches)
    with ShardShuffledBatches(corpus, **{**OPTIONS, "together": 4, "seed": 6}) as other:
        with pytest.raises(CheckpointError, match="with another seed, shuffle_shards:"):
            other.load_state_dict(state)


def test_options_out_of_range(corpus):
    with pytest.raises(ConfigError, match="shuffle_shards must be at least 1, got 0"):
        ShardShuffledBatches(corpus, tokens=128, together=0)
    with pytest.raises(CorpusError, match="fewer than one batch"):
        ShardShuffledBatches(corpus, tokens=100_000)
