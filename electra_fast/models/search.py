"""Greedy and beam search over any network that says what may come next; all sentences of a batch at once.

Both know the network only as a `Continuation`, so that a table of probabilities will do in its place.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_NEVER = float("-inf")


class Continuation(Protocol):
    """Rows of tokens that grow by one token a call."""

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """Logits ``[R, V]`` of what follows.

        Args:
            tokens: int64 ``[R]``, the last token of every row.
            parents: int64 ``[R]``, which row of the call before each of them continues; None: the same one.
        """


class Hypothesis(NamedTuple):
    """A translation: its tokens without start and end, and ``log p(tokens, end) / length_penalty``."""

    tokens: list[int]
    score: float


def length_penalty(length: int | Tensor, alpha: float) -> float | Tensor:
    """``((5 + length) / 6)^α``, by which a log-probability is divided; the end token counts.

    Source: Wu et al. 2016, "Google's Neural Machine Translation System", equation 14.
    """
    return ((5.0 + length) / 6.0) ** alpha


@torch.no_grad()
def greedy_search(model: Continuation, limits: Tensor, *, start: int, end: int) -> list[list[Hypothesis]]:
    """The most probable token, again and again, until it is the end.

    Args:
        model: with one row for each sentence.
        limits: int64 ``[B]``, on the model's device: most tokens of each sentence's translation, the end included; the
            last is always the end.
        start, end: ids of the tokens.

    Returns: one hypothesis a sentence; its score is the log-probability.
    """
    found = [Hypothesis([], 0.0)] * len(limits)
    sentences = torch.arange(len(limits), device=limits.device)
    tokens, parents = torch.full_like(sentences, start), None
    written = tokens[:, None]
    scores = torch.zeros_like(tokens, dtype=torch.float32)
    while len(sentences):
        log_probabilities = _log_probabilities(model.step(tokens, parents), limits == written.shape[1], end)
        best, tokens = log_probabilities.max(-1)
        scores = scores + best
        done = tokens == end
        for i in done.nonzero().flatten().tolist():
            found[sentences[i]] = Hypothesis(written[i, 1:].tolist(), scores[i].item())
        written = torch.cat([written, tokens[:, None]], 1)
        parents = None
        if done.any():
            parents = (~done).nonzero().flatten()
            written, tokens, scores, sentences, limits = (
                x.index_select(0, parents) for x in (written, tokens, scores, sentences, limits)
            )
    return [[hypothesis] for hypothesis in found]


@torch.no_grad()
def beam_search(
    model: Continuation,
    limits: Tensor,
    *,
    start: int,
    end: int,
    beams: int,
    alpha: float = 0.0,
    best: int = 1,
) -> list[list[Hypothesis]]:
    """The ``beams`` most probable beginnings of each sentence are continued, those that end are set aside.

    A sentence is done when none of its beginnings can still become one of the ``best``: a log-probability only falls,
    so a beginning's is divided by the penalty of the greatest length allowed. No better result is lost by that.

    Args:
        model: with one row for each sentence at the first call, ``beams`` for each afterwards.
        limits: as in `greedy_search`; at least 1.
        start, end: ids of the tokens.
        alpha: of `length_penalty`; 0: none.
        best: how many hypotheses to return for a sentence, at most ``beams``.

    Returns: for each sentence up to ``best`` hypotheses, the best first; fewer only where no more exist.

    Raises: ValueError for a value out of range.

    Source: Sutskever et al. 2014, section 3.2; candidates and finished ones as in Tensor2Tensor (Vaswani et al. 2018).
    """
    if beams < 1 or not 1 <= best <= beams or alpha < 0:
        raise ValueError(
            f"beam_search: beams must be at least 1, best in [1, beams], alpha at least 0, got {beams}, {best}, {alpha}"
        )
    count = len(limits)
    found: list[list[Hypothesis]] = [[] for _ in range(count)]
    state = _Beams.begin(limits, beams, start, alpha)
    rows, parents = 1, None  # rows of a sentence: at first its beginnings are all the same
    while len(state.sentences):
        logits = model.step(state.tokens[:, :rows, -1].flatten(), parents)
        source = state.advance(logits.unflatten(0, (-1, rows)).expand(-1, beams, -1), end)
        first = torch.arange(len(source), device=source.device) * rows
        parents = first.unsqueeze(1) + source.clamp(max=rows - 1)
        rows, done = beams, state.done(best)
        if done.any():
            for i in done.nonzero().flatten().tolist():
                found[state.sentences[i]] = state.hypotheses(i, best)
            going = (~done).nonzero().flatten()
            state, parents = state.select(going), parents.index_select(0, going)
        parents = parents.flatten()
    return found


class _Beams:
    """b sentences that are not done, K beginnings and up to K finished translations each.

    Attributes:
        sentences: ``[b]``, which they are. limits: ``[b]``.
        tokens: ``[b, K, 1 + t]``, beginnings with their start token. scores: ``[b, K]``, their log-probabilities.
        ended: ``[b, K, 1 + longest]``. lengths: ``[b, K]``, their tokens. values: ``[b, K]``, their scores, divided by
            the penalty, falling; -inf: nothing there.
    """

    def __init__(self, alpha: float, *tensors: Tensor) -> None:
        self.alpha = alpha
        self.sentences, self.limits, self.tokens, self.scores, self.ended, self.lengths, self.values = tensors

    @classmethod
    def begin(cls, limits: Tensor, beams: int, start: int, alpha: float) -> _Beams:
        count = len(limits)
        longest = int(limits.max()) if count else 0
        values = torch.full((count, beams), _NEVER, device=limits.device)
        scores = values.clone()
        scores[:, 0] = 0.0  # the others would be the same beginning again
        tokens = limits.new_full((count, beams, 1), start)
        ended, lengths = limits.new_zeros(count, beams, 1 + longest), limits.new_zeros(count, beams)
        sentences = torch.arange(count, device=limits.device)
        return cls(alpha, sentences, limits, tokens, scores, ended, lengths, values)

    @property
    def length(self) -> int:
        """Tokens of every beginning."""
        return self.tokens.shape[2] - 1

    def advance(self, logits: Tensor, end: int) -> Tensor:
        """Continue by the best candidates of ``logits [b, K, V]``; returns ``[b, K]``, what each goes on from."""
        beams, words = logits.shape[1:]
        length = self.length + 1
        candidates = self.scores.unsqueeze(2) + _log_probabilities(logits, (self.limits == length)[:, None], end)
        # Among twice as many candidates as beams at most half can end: enough others are left to go on with.
        scores, index = candidates.flatten(1).topk(min(2 * beams, beams * words))
        source, token = index // words, index % words
        ends = token == end
        self._set_aside(torch.where(ends, scores, _NEVER), source, length)
        scores = torch.where(ends, _NEVER, scores)
        self.scores, kept = scores.topk(beams)
        source, token = source.gather(1, kept), token.gather(1, kept)
        self.tokens = torch.cat([_rows(self.tokens, source), token.unsqueeze(2)], 2)
        return source

    def _set_aside(self, scores: Tensor, source: Tensor, length: int) -> None:
        """Put candidates that end with the token ``length`` among the finished ones, of which the best K stay."""
        longest = self.ended.shape[2]
        new = torch.nn.functional.pad(_rows(self.tokens, source), (0, longest - self.tokens.shape[2]))
        values = torch.cat([self.values, scores / length_penalty(length, self.alpha)], 1)
        self.values, kept = values.topk(self.values.shape[1])
        self.ended = _rows(torch.cat([self.ended, new], 1), kept)
        self.lengths = torch.cat([self.lengths, torch.full_like(source, length)], 1).gather(1, kept)

    def done(self, best: int) -> Tensor:
        """bool ``[b]``: the ``best`` finished ones cannot be beaten any more, or nothing can be continued."""
        bound = self.scores[:, 0] / length_penalty(self.limits, self.alpha)
        return (bound <= self.values[:, best - 1]) | (self.length >= self.limits)

    def hypotheses(self, i: int, best: int) -> list[Hypothesis]:
        """The finished ones of sentence i."""
        return [
            Hypothesis(tokens[1:length], value)
            for tokens, length, value in zip(
                self.ended[i, :best].tolist(), self.lengths[i].tolist(), self.values[i].tolist(), strict=False
            )
            if value > _NEVER
        ]

    def select(self, going: Tensor) -> _Beams:
        tensors = (self.sentences, self.limits, self.tokens, self.scores, self.ended, self.lengths, self.values)
        return _Beams(self.alpha, *(x.index_select(0, going) for x in tensors))


def _log_probabilities(logits: Tensor, last: Tensor, end: int) -> Tensor:
    """``log softmax [..., V]`` in float32, -inf for all but the end where ``last [...]``: no place is left."""
    log_probabilities = logits.float().log_softmax(-1)
    if last.any():
        forbidden = last.unsqueeze(-1) & (torch.arange(logits.shape[-1], device=logits.device) != end)
        log_probabilities = log_probabilities.masked_fill(forbidden, _NEVER)
    return log_probabilities


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """``x [b, K, L]`` with its rows taken by ``index [b, J]``."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))
