"""Translating packed sentences, greedily or by beam search, with a cache of keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from electra_fast.errors import ConfigError
from electra_fast.nn.decoder import Memory

from .search import Hypothesis, beam_search, greedy_search
from .translation import ElectraForTranslation


@dataclass(frozen=True)
class SearchOptions:
    """How translations are looked for.

    Attributes:
        beams: 1: greedy. length_penalty: the α of `electra_fast.models.search.length_penalty`; not of greedy search.
        best: hypotheses returned for a sentence.
        longest_ratio, longest_extra: a sentence of n source tokens may get ``⌈ratio · n⌉ + extra`` tokens, and never
            more than the decoder's position table has.

    Raises:
        ConfigError: a value out of range.
    """

    beams: int = 4
    length_penalty: float = 0.6
    best: int = 1
    longest_ratio: float = 2.0
    longest_extra: int = 10

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ConfigError(f"beams must be at least 1, got {self.beams}")
        if not 1 <= self.best <= self.beams:
            raise ConfigError(f"best must be from 1 to beams ({self.beams}), got {self.best}")
        for name in ("length_penalty", "longest_ratio", "longest_extra"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")

    def limits(self, lengths: Tensor, longest: int) -> Tensor:
        """Most tokens of each translation, the end included, for sources of ``lengths [B]``."""
        limits = (self.longest_ratio * lengths).ceil().long() + self.longest_extra
        return limits.clamp(1, longest)


class CachedDecoding:
    """The model's `Continuation`: of every row it keeps the keys and values of the tokens so far, ``[R, t, 2, H, D]`` a
    layer, and of every sentence those of its source, once for all its rows."""

    def __init__(self, model: ElectraForTranslation, memory: Memory) -> None:
        self._decoder = model.decoder
        self._keys = model.decoder.keys(memory)
        self._sentences = len(memory.cu_seqlens) - 1
        self._sentence = torch.arange(self._sentences, device=memory.hidden.device)  # of every row
        config = model.config.decoder
        heads = config.num_attention_heads
        shape = (self._sentences, 0, 2, heads, config.hidden_size // heads)
        self._past = [memory.hidden.new_empty(shape)] * config.num_hidden_layers
        self._position = 0

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """See `Continuation.step`; rows of a sentence have to stay side by side."""
        if parents is not None:
            self._past = [past.index_select(0, parents) for past in self._past]
            self._sentence = self._sentence.index_select(0, parents)
        ends = torch.arange(self._sentences + 1, device=tokens.device)
        cu_rows = torch.searchsorted(self._sentence, ends).int()  # a sentence that is done has no rows
        logits, self._past = self._decoder.step(tokens, self._position, self._past, self._keys, cu_rows)
        self._position += 1
        return logits


@torch.no_grad()
def translate(
    model: ElectraForTranslation,
    input_ids: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int | None = None,
    options: SearchOptions | None = None,
) -> list[list[Hypothesis]]:
    """Translations of packed sources: for each up to ``options.best`` hypotheses, the best first.

    A sentence's translation does not depend on what else is in the batch, but for rounding. Rows in work: sentences
    times beams, at most; sentences of similar length finish at about the same time.

    Args:
        input_ids, cu_seqlens, max_seqlen: as in `ElectraForTranslation.encode`.
        options: default: `SearchOptions()`.

    Raises: ValueError for a model in training mode, or sources longer than the encoder's position table.
    """
    if model.training:
        raise ValueError("translate: model must be in evaluation mode: call model.eval()")
    options = SearchOptions() if options is None else options
    target = model.config.decoder
    limits = options.limits(cu_seqlens.diff().long(), target.max_position_embeddings)
    decoding = CachedDecoding(model, model.encode(input_ids, cu_seqlens, max_seqlen))
    ends = {"start": target.cls_token_id, "end": target.sep_token_id}
    if options.beams == 1:
        return greedy_search(decoding, limits, **ends)
    return beam_search(decoding, limits, beams=options.beams, alpha=options.length_penalty, best=options.best, **ends)
