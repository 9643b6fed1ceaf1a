"""Batches shuffled in two levels, for a corpus that is too large for the local disk, or for random access to it.

The order of the shards of an epoch is a keyed permutation. A few consecutive ones are a group, whose examples are
shuffled together, as `PackedBatches` does it. So only the shards of one group, and those of the next, which are fetched
meanwhile, need to be at hand. The price: two examples meet in a batch only if their shards are in one group, and a part
of the corpus that differs from the rest (a language, a source) is met in runs rather than evenly (docs/data.md,
"Shuffling").
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from electra_fast.data.batches import PackedBatch, PackedBatches, default_max_sequences, default_window, load_native
from electra_fast.data.manifest import Corpus
from electra_fast.data.shard_store import LocalShards, RemoteCorpus, ShardStore
from electra_fast.errors import CheckpointError, ConfigError, CorpusError

_FETCHED_AT_ONCE = 4
_PLACE = ("epoch", "group", "window", "bin")


class ShardShuffledBatches(Iterator[PackedBatch]):
    """Endless packed batches of the training split, in the manner of `PackedBatches`.

    The n-th batch is a function of the corpus and of ``tokens, seed, together`` alone. Every process forms the batches
    of all ``world`` and keeps its own: about 100 million tokens a second for one core.

    Args:
        corpus: opened; of a `RemoteCorpus` shards are fetched as they are needed and removed behind.
        tokens: T, tokens of a batch, padding included.
        seed: of the order.
        together: shards of a group; the last group of an epoch takes in what is left over.
        rank, world: of every ``world`` consecutive batches this iterator yields number ``rank``.
        threads: that fill batches.

    Raises:
        ConfigError: together is below 1.
        CorpusError: there is no example to train on, or a group has fewer tokens than a batch.
        ShardError: a shard is missing, damaged, or cannot be fetched.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        tokens: int,
        seed: int = 0,
        together: int = 8,
        rank: int = 0,
        world: int = 1,
        threads: int = 1,
    ) -> None:
        if together < 1:
            raise ConfigError(f"shuffle_shards must be at least 1, got {together}")
        split = corpus.manifest.splits["train"]
        if not split.examples:
            raise CorpusError(f"the train split of {corpus.directory} is empty: prepare more text")
        self._store: ShardStore = (
            corpus.training if isinstance(corpus, RemoteCorpus) else LocalShards(corpus.directory, split.shards)
        )
        mean = split.tokens / split.examples
        self.tokens = tokens
        self.max_sequences = default_max_sequences(tokens, mean)
        self.max_seqlen = corpus.manifest.max_length
        self._window = default_window(tokens, mean)
        self._pad_id = corpus.manifest.special_tokens["pad"]
        self._seed, self._together, self._rank, self._world, self._threads = seed, together, rank, world, threads
        self._groups = max(1, len(split.shards) // together)
        self._fingerprint = {
            "tokens": tokens,
            "seed": seed,
            "shuffle": "shards",
            "shuffle_shards": together,
            "corpus_shards": [entry.crc32 for entry in split.shards],
        }
        self._pool = ThreadPoolExecutor(_FETCHED_AT_ONCE, thread_name_prefix="shards")
        self._fetching: dict[int, Future[Path]] = {}
        self._reader: PackedBatches | None = None
        self.reset()

    def __next__(self) -> PackedBatch:
        began = time.perf_counter()
        batches = [self._advance() for _ in range(self._world)]
        self._state = self._place()
        self._waited += time.perf_counter() - began
        mine = batches[self._rank]
        self._batches += 1
        self._sequences += mine.sequences
        self._tokens += mine.tokens
        return mine

    def _advance(self) -> PackedBatch:
        while True:
            if self._reader is None:
                self._reader = self._open(self._epoch, self._group, 0, 0)
            try:
                return next(self._reader)
            except StopIteration:
                self._reader.close()
                self._reader = None
                self._epoch, self._group = self._behind(self._epoch, self._group)

    def _behind(self, epoch: int, group: int) -> tuple[int, int]:
        return (epoch, group + 1) if group + 1 < self._groups else (epoch + 1, 0)

    def _shards(self, epoch: int, group: int) -> list[int]:
        count = len(self._store.entries)
        order = load_native().KeyedPermutation(count, seed=self._seed, epoch=epoch)
        end = count if group + 1 == self._groups else (group + 1) * self._together
        return [order[i] for i in range(group * self._together, end)]

    def _open(self, epoch: int, group: int, window: int, place: int) -> PackedBatches:
        """The batches of a group from a place on; the next group's shards begin to come."""
        now, soon = self._shards(epoch, group), self._shards(*self._behind(epoch, group))
        for number in set(self._fetching) - {*now, *soon}:
            future = self._fetching.pop(number)
            if not future.cancel():
                future.exception()  # waits: a copy is not removed while it is made
            self._store.release(number)
        for number in (*now, *soon):
            if number not in self._fetching:
                self._fetching[number] = self._pool.submit(self._store.fetch, number)
        paths = [self._fetching[number].result() for number in now]
        reader = PackedBatches(
            paths,
            tokens=self.tokens,
            max_sequences=self.max_sequences,
            window=self._window,
            seed=_seed_of(self._seed, epoch, group),
            pad_id=self._pad_id,
            epochs=1,
            threads=self._threads,
        )
        if (window, place) != (0, 0):
            try:
                reader.load_state_dict({**reader.state_dict(), "window": window, "bin": place})
            except CheckpointError:
                reader.close()
                raise
        return reader

    def _place(self) -> dict[str, int]:
        """Of the next batch."""
        epoch, group = self._epoch, self._group
        inside = self._reader.state_dict() if self._reader is not None else {"epoch": 0, "window": 0, "bin": 0}
        if inside["epoch"] > 0:  # the group is at its end
            epoch, group = self._behind(epoch, group)
            inside = {"window": 0, "bin": 0}
        return {"epoch": epoch, "group": group, "window": inside["window"], "bin": inside["bin"]}

    @property
    def batches_per_epoch(self) -> float:
        """Batches this rank yields per pass, at the fill so far (99 % before the first)."""
        fill = self.statistics()["fill"] or 0.99
        return math.ceil(sum(entry.tokens for entry in self._store.entries) / (self.tokens * fill)) / self._world

    def statistics(self) -> dict[str, float]:
        """As `PackedBatches.statistics`, without ``batches_per_epoch``."""
        fill = self._tokens / (self._batches * self.tokens) if self._batches else 0.0
        return {
            "batches": self._batches,
            "sequences": self._sequences,
            "tokens": self._tokens,
            "fill": fill,
            "wait_seconds": self._waited,
        }

    def state_dict(self) -> dict[str, Any]:
        """The place of the next batch, JSON-able, the same on all ranks that have yielded equally many."""
        return {**self._state, "stream": dict(self._fingerprint)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; ``threads``, ``rank`` and ``world`` may differ.

        Raises:
            CheckpointError: the state is of another corpus or of other options, or there is no such place.
        """
        try:
            saved = state["stream"]
            differing = [name for name, value in self._fingerprint.items() if saved.get(name) != value]
            place = {name: int(state[name]) for name in _PLACE if not differing}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"the saved place in the data is damaged ({error!r}): use an older checkpoint"
            raise CheckpointError(message) from None
        if differing:
            raise CheckpointError(
                f"the saved place in the data belongs to other batches, with another {', '.join(differing)}: "
                "go on with the same corpus and options, or start anew"
            )
        if not 0 <= place["group"] < self._groups or place["epoch"] < 0:
            raise CheckpointError(f"the saved place in the data does not exist: an epoch has {self._groups} groups")
        self._go(place)

    def reset(self) -> None:
        """Go back to the first batch."""
        self._go(dict.fromkeys(_PLACE, 0))

    def _go(self, place: dict[str, int]) -> None:
        reader = self._open(place["epoch"], place["group"], place["window"], place["bin"])
        if self._reader is not None:
            self._reader.close()
        self._reader, self._epoch, self._group, self._state = reader, place["epoch"], place["group"], place
        self._batches = self._sequences = self._tokens = 0
        self._waited = 0.0

    def close(self) -> None:
        """Stop and join all threads; what is being fetched is waited for. Batches that were yielded stay valid."""
        if self._reader is not None:
            self._reader.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ShardShuffledBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _seed_of(seed: int, epoch: int, group: int) -> int:
    """63 bits that are different for every group of every epoch."""
    digest = hashlib.sha256(f"{seed} {epoch} {group}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
