"""In which order rows are learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler


class EpochOrder(Sampler[int]):
    """The order of rows: a permutation that seed and epoch alone decide, whatever the backend, resumed or not.

    Args:
        epoch: says which epoch begins.
        lengths: with them, rows of similar length share a batch: windows of 50 batches are sorted, and the batches
            shuffled.
    """

    def __init__(
        self, rows: int, seed: int, batch: int, epoch: Callable[[], int], lengths: Sequence[int] | None = None
    ) -> None:
        self._rows, self._seed, self._batch, self._epoch, self._lengths = rows, seed, batch, epoch, lengths

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self._seed << 20) + self._epoch())
        order = torch.randperm(self._rows, generator=generator).tolist()
        if self._lengths is None:
            return iter(order)
        window = 50 * self._batch
        windows = (order[start : start + window] for start in range(0, self._rows, window))
        ordered = [row for part in windows for row in sorted(part, key=self._lengths.__getitem__)]
        parts = [ordered[start : start + self._batch] for start in range(0, self._rows, self._batch)]
        last = parts.pop() if len(parts[-1]) < self._batch else []  # a smaller batch has to stay the last
        shuffled = torch.randperm(len(parts), generator=generator).tolist()
        return iter([row for index in shuffled for row in parts[index]] + last)
