"""Packed batches of a prepared corpus as torch tensors: the native reader's Python side.

A batch is ``tokens`` ids of whole examples end to end, so that nothing is computed on padding but for the last few rows
(docs/design.md, "Packed batches"). Reading, packing and filling happen in threads of ``electra_fast._native``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import torch
from torch import Tensor

from electra_fast.data.manifest import Corpus, open_corpus
from electra_fast.data.mixture import Mixture, MixturePart, mean_length, mixture_parts, rates
from electra_fast.data.shards import Shard
from electra_fast.errors import CheckpointError, ConfigError, CorpusError, ElectraError

_WINDOW_BINS = 128  # the last bins of a window stay part empty: with this many, about 0.5 % of all tokens


def default_max_sequences(tokens: int, mean_length: float) -> int:
    """Most sequences of a batch: ``ceil(1.5 · tokens / mean length) + 4``, at most ``tokens``.

    Far enough above the mean that packing hardly ever meets it (best fit in random order mixes long and short), and
    small, because masking reserves a slot per sequence.
    """
    return min(tokens, math.ceil(1.5 * tokens / mean_length) + 4)


def default_window(tokens: int, mean_length: float) -> int:
    """Examples packed together: enough for about 128 batches, at least 1024."""
    return max(1024, math.ceil(_WINDOW_BINS * tokens / mean_length))


@dataclass(frozen=True)
class PackedBatch:
    """Whole examples end to end, then padding.

    Attributes:
        input_ids: ``[T]`` int64, ``pad_id`` from ``tokens`` on.
        token_type_ids: ``[T]`` int64, segment 0 or 1; 0 in the padding.
        position_ids: ``[T]`` int64, from 0 inside each example; 0 in the padding.
        cu_seqlens: ``[B + 1]`` int32, begins of the examples; ``tokens`` from ``cu_seqlens[sequences]`` on.
        tokens: real tokens, at most T.
        sequences: examples, at most B.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    tokens: int
    sequences: int

    @property
    def pairs(self) -> int:
        """Pairs of tokens that see each other, the sum of the squared lengths: reads ``cu_seqlens`` on the host."""
        return int(self.cu_seqlens.diff().long().square().sum())

    def _with_tensors(self, method: str, *args: object, **options: bool) -> PackedBatch:
        tensors = {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **{name: getattr(tensor, method)(*args, **options) for name, tensor in tensors.items()})

    def clone(self) -> PackedBatch:
        """A batch in memory of its own."""
        return self._with_tensors("clone")

    def copy_(self, other: PackedBatch, non_blocking: bool = False) -> None:
        """Take over the tensors of another batch of the same shape, in place; the two counts stay as they are."""
        for field in fields(self):
            if isinstance(mine := getattr(self, field.name), Tensor):
                mine.copy_(getattr(other, field.name), non_blocking=non_blocking)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        """The batch on ``device``; with ``non_blocking`` the copy from pinned memory runs beside the host."""
        return self._with_tensors("to", device, non_blocking=non_blocking)

    def pin_memory(self) -> PackedBatch:
        """The batch in page-locked host memory, from which copies to a GPU can be asynchronous (needs one)."""
        return self._with_tensors("pin_memory")


class PackedBatches(Iterator[PackedBatch]):
    """Iterator over the packed batches of one split.

    The n-th batch is a function of the shards and of ``tokens, max_sequences, window, seed, shuffle`` alone: neither
    the number of threads nor the time they take changes it, and :meth:`state_dict` names the place exactly.

    Args:
        corpus: directory written by ``electra-fast prepare``, the opened :class:`~electra_fast.data.manifest.Corpus`,
            a :class:`~electra_fast.data.mixture.Mixture` of several, or the paths of shards (then give ``pad_id``).
        split: ``"train"`` or ``"validation"``; unused with paths of shards.
        tokens: T, tokens of a batch, padding included. No example may be longer.
        max_sequences: B, most examples of a batch. Default: :func:`default_max_sequences`.
        seed: of the order of the examples, 0 ≤ seed < 2^63. Each epoch has an order of its own.
        pad_id: id of padding tokens. Default: the [PAD] of the corpus.
        window: examples packed together. Default: :func:`default_window`.
        shuffle: otherwise the examples come window by window as they are in the shards (for evaluation).
        epochs: passes over the split. Default: without end if ``shuffle``, else 1. A pass over a mixture is as many
            examples as all its corpora have, each corpus by its share.
        rank, world: of every ``world`` consecutive batches this iterator yields number ``rank``. If the number of
            batches in ``epochs`` is no multiple of ``world``, the last ranks yield one batch fewer.
        threads: that fill batches ahead of time; one fills tens of millions of tokens a second, more hide a slow disk.
        prefetch: most batches filled ahead.
        verify: compare the shards' crc32 with the manifest first (reads them once, about 1 s per GB); with paths of
            shards there is no manifest, and only their structure is checked, as it always is.

    Raises:
        ShardError: the corpus is missing, unfinished, damaged or truncated.
        CorpusError: the split is empty, has fewer tokens than one shuffled batch, or an example longer than ``tokens``.
        ConfigError: an option is out of range.
        ElectraError: the native library is not built.
    """

    def __init__(
        self,
        corpus: str | os.PathLike[str] | Corpus | Sequence[str | os.PathLike[str]],
        split: str = "train",
        *,
        tokens: int,
        max_sequences: int | None = None,
        seed: int = 0,
        pad_id: int | None = None,
        window: int | None = None,
        shuffle: bool = True,
        epochs: int | None = None,
        rank: int = 0,
        world: int = 1,
        threads: int = 2,
        prefetch: int = 8,
        verify: bool = True,
    ) -> None:
        self._native = load_native()
        _check_integers(tokens=(tokens, 1), max_sequences=(max_sequences, 1), window=(window, 1), epochs=(epochs, 1))
        _check_integers(rank=(rank, 0), world=(world, 1), threads=(threads, 1), prefetch=(prefetch, 1))
        _check_integers(pad_id=(pad_id, 0))
        _check_integers(63, seed=(seed, 0))
        source = _open(corpus, split, pad_id, verify)
        total = sum(len(shard.tokens) for shard in source.shards)
        examples = sum(len(shard) for shard in source.shards)
        if examples == 0:
            raise CorpusError(f"{source.name} is empty: prepare more text, or a larger share of it for this split")
        if shuffle and total < tokens:
            raise CorpusError(
                f"{source.name} has {total} tokens in {examples} examples, fewer than one batch of tokens={tokens}: "
                f"lower tokens to at most {total}, or prepare more text"
            )
        mean = mean_length(source.mixture) if source.mixture else max(1.0, total / examples)
        self._paths = [str(shard.path) for shard in source.shards]
        self._options: dict[str, Any] = {
            "tokens": tokens,
            "max_sequences": default_max_sequences(tokens, mean) if max_sequences is None else max_sequences,
            "window": default_window(tokens, mean) if window is None else window,
            "seed": seed,
            "shuffle": shuffle,
        }
        self._delivery: dict[str, Any] = {
            "pad_id": source.pad_id,
            "epochs": epochs if epochs is not None else (0 if shuffle else 1),
            "rank": rank,
            "world": world,
            "threads": threads,
            "prefetch": prefetch,
        }
        self._fingerprint = {**self._options, "corpus_examples": examples, "corpus_tokens": total}
        if source.mixture:
            # A window of more examples than there are would repeat them within the first pass.
            self._options["window"] = self._fingerprint["window"] = min(self._options["window"], examples)
            parts = zip(source.mixture, rates(source.mixture, self._options["window"]), strict=True)
            mixture = [(part.examples, rate) for part, rate in parts]
            self._delivery["mixture"] = mixture
            self._fingerprint["mixture"] = list(map(list, mixture))
        self._reader = self._start({"epoch": 0, "window": 0, "bin": 0})

    def _start(self, position: dict[str, int]) -> Any:
        try:
            return self._native.BatchReader(self._paths, **self._options, **self._delivery, state=position)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def __next__(self) -> PackedBatch:
        *arrays, tokens, sequences = next(self._reader)
        return PackedBatch(*map(torch.from_numpy, arrays), tokens, sequences)

    @property
    def tokens(self) -> int:
        """T, the static length of a batch."""
        return self._options["tokens"]

    @property
    def max_sequences(self) -> int:
        """B, the static number of sequences of a batch."""
        return self._options["max_sequences"]

    @property
    def max_seqlen(self) -> int:
        """The longest example of the split: a static bound for the attention's launch geometry."""
        return self._reader.longest

    @property
    def batches_per_epoch(self) -> float:
        """Batches this rank yields per pass: the whole split at the fill of the first window of the first epoch."""
        return self._reader.statistics()["batches_per_epoch"]

    def statistics(self) -> dict[str, float]:
        """Since construction or the last :meth:`load_state_dict` or :meth:`reset`.

        ``batches, sequences, tokens`` yielded, ``fill`` (those tokens over T · batches) and ``wait_seconds`` (spent
        waiting for a batch); and ``batches_per_epoch``.
        """
        return self._reader.statistics()

    def state_dict(self) -> dict[str, Any]:
        """The place of the next batch, JSON-able, the same on all ranks that have yielded equally many."""
        return {**self._reader.state(), "stream": dict(self._fingerprint)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; ``threads``, ``prefetch``, ``rank`` and ``world`` may differ.

        Raises:
            CheckpointError: the state is of another corpus or of other options, and names what differs.
        """
        try:
            saved, given = state["stream"], self._fingerprint
            differences = [
                f"{name}={saved.get(name)} (now {given.get(name)})"
                for name in {**given, **saved}
                if saved.get(name) != given.get(name)
            ]
            position = {name: int(state[name]) for name in ("epoch", "window", "bin")}
        except (KeyError, TypeError, ValueError) as error:
            message = f"the saved place in the data is damaged ({error!r}): use an older checkpoint"
            raise CheckpointError(message) from None
        if differences:
            raise CheckpointError(
                f"the saved place in the data belongs to other batches, with {', '.join(differences)}: "
                "go on with the same corpus and options, or start anew"
            )
        try:
            reader = self._start(position)
        except ConfigError as error:
            raise CheckpointError(f"the saved place in the data does not exist: {error}") from None
        self.close()
        self._reader = reader

    def reset(self) -> None:
        """Go back to the first batch."""
        self.close()
        self._reader = self._start({"epoch": 0, "window": 0, "bin": 0})

    def close(self) -> None:
        """Stop and join the threads, as deleting the iterator does. Batches that were yielded stay valid."""
        self._reader.close()

    def __enter__(self) -> PackedBatches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Source:
    name: str
    shards: list[Shard]
    pad_id: int
    mixture: list[MixturePart]  # empty: one corpus


def _open(corpus: Any, split: str, pad_id: int | None, verify: bool) -> _Source:
    if isinstance(corpus, (str, os.PathLike)):
        corpus = open_corpus(corpus, verify=verify)
    if isinstance(corpus, Corpus):
        if split not in corpus.shards:
            raise ConfigError(f"split must be one of {', '.join(corpus.shards)}, got {split!r}")
        pad_id = corpus.manifest.special_tokens["pad"] if pad_id is None else pad_id
        parts = mixture_parts(corpus, split) if isinstance(corpus, Mixture) else []
        return _Source(f"the {split} split of {corpus.directory}", corpus.shards[split], pad_id, parts)
    shards = [Shard(Path(path)) for path in corpus]
    if pad_id is None:
        raise ConfigError(
            "pad_id is missing: paths of shards do not say it (a corpus directory does), give the id of [PAD]"
        )
    return _Source(f"the list of {len(shards)} shards", shards, pad_id, [])


def _check_integers(bits: int = 31, **values: tuple[int | None, int]) -> None:
    """Each ``name=(value, least)``: None, or an integer from ``least`` to 2^bits - 1."""
    for name, (value, least) in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**bits:
            raise ConfigError(f"{name} must be an integer, {least} <= {name} < 2^{bits}, got {value!r}")


def load_native() -> ModuleType:
    """The module that reads shards. ElectraError if it is not built."""
    try:
        return import_module("electra_fast._native")
    except ImportError as error:
        raise ElectraError(
            f"reading token shards needs electra_fast._native, which is not built or does not load ({error}): "
            "install the package with `pip install .` where a C++ compiler is"
        ) from None
