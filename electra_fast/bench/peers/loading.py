"""Token batches as others assemble them: torch's DataLoader with padding, `transformers`' collator that packs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from electra_fast.bench.case import Absent
from electra_fast.data import Shard


class Examples(Dataset):
    """The examples of memory-mapped shards, each an int64 tensor."""

    def __init__(self, paths: list[Path]) -> None:
        self._shards = [Shard(path) for path in paths]
        self._where = [(shard, index) for shard in self._shards for index in range(len(shard))]

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Tensor:
        shard, place = self._where[index]
        begin, end = int(shard.offsets[place]), int(shard.offsets[place + 1])
        return torch.from_numpy(shard.tokens[begin:end].astype("int64"))


def padded(paths: list[Path], batch: int) -> Iterator[tuple[Tensor, int]]:
    """Shuffled batches [B, S] padded to the longest, and their real tokens; without end."""

    def collate(examples: list[Tensor]) -> tuple[Tensor, int]:
        return torch.nn.utils.rnn.pad_sequence(examples, batch_first=True), sum(map(len, examples))

    loader = DataLoader(Examples(paths), batch_size=batch, shuffle=True, drop_last=True, collate_fn=collate)
    while True:
        yield from loader


def flattened(paths: list[Path], batch: int) -> Iterator[tuple[Tensor, int]]:
    """The same examples end to end, by `transformers`' DataCollatorWithFlattening."""
    try:
        from transformers import DataCollatorWithFlattening
    except ImportError as error:
        raise Absent(f"transformers is not installed ({error})") from None
    collator = DataCollatorWithFlattening(return_flash_attn_kwargs=True)

    def collate(examples: list[Tensor]) -> tuple[Tensor, int]:
        ids = collator([{"input_ids": example.tolist()} for example in examples])["input_ids"]
        return ids, ids.numel()

    loader = DataLoader(Examples(paths), batch_size=batch, shuffle=True, drop_last=True, collate_fn=collate)
    while True:
        yield from loader
