"""Held-out evaluation: the same batches and the same random numbers every time, so that figures can be compared."""

from __future__ import annotations

import itertools

import torch

from electra_fast import rng
from electra_fast.data.batches import PackedBatches
from electra_fast.data.manifest import Corpus
from electra_fast.models import ElectraPretrainingPair

from .metrics import RunningMetrics
from .ranks import ALONE, Ranks
from .step import autocast

SEED = 20030555  # of order, masks and samples; not the run's, so that runs of different seeds see the same


class Evaluation:
    """A fixed part of the validation split.

    Args:
        tokens: of a batch.
        batches: most batches; fewer if the split has fewer.
    """

    def __init__(self, corpus: Corpus, tokens: int, batches: int) -> None:
        split = corpus.manifest.splits.get("validation")
        self.batches = []
        self.max_seqlen = 0
        if split is None or split.examples == 0:
            return
        shuffle = split.tokens >= tokens
        options = {"tokens": tokens, "seed": SEED, "shuffle": shuffle, "epochs": 1, "threads": 1, "verify": False}
        with PackedBatches(corpus, "validation", **options) as reader:
            self.batches = list(itertools.islice(reader, batches))
            self.max_seqlen = reader.max_seqlen

    def __bool__(self) -> bool:
        """Whether there is any held-out text."""
        return bool(self.batches)

    @torch.no_grad()
    def run(
        self, pair: ElectraPretrainingPair, dtype: torch.dtype | None = None, ranks: Ranks = ALONE
    ) -> dict[str, float]:
        """Figures of the pair as `RunningMetrics.compute` names them, without dropout; the pair's mode is kept.

        Several processes share the batches, and all get the figures.
        """
        device = pair.special_ids.device
        metrics = RunningMetrics(device)
        was_training = pair.training
        pair.eval()
        for first in range(0, len(self.batches), ranks.size):
            index = min(first + ranks.rank, len(self.batches) - 1)
            batch = self.batches[index]
            on_device = batch.to(device)
            with autocast(device, dtype):
                output = pair(
                    on_device.input_ids,
                    on_device.token_type_ids,
                    on_device.position_ids,
                    on_device.cu_seqlens,
                    rng.make(SEED, index, device),
                    max_seqlen=self.max_seqlen,
                )
            if first + ranks.rank == index:  # else there is no batch left: the last one is run, as sharded weights need
                metrics.count(batch)
                metrics.update(output)
                metrics.end_step(output.loss)
        pair.train(was_training)
        figures = metrics.over(ranks).compute()
        del figures["gradient_norm"], figures["skipped_steps"]
        return figures
