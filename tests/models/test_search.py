"""Greedy and beam search against enumeration of all sequences, on tables of probabilities in place of a network."""

from __future__ import annotations

import itertools

import pytest
import torch

from electra_fast.models.search import beam_search, greedy_search, length_penalty

START, END = 0, 1


class Table:
    """Logits that depend on the sentence and all tokens before, drawn from a seeded generator once for each prefix."""

    def __init__(self, sentences: int, words: int, seed: int = 0, end_bonus: float = 0.0) -> None:
        self.words, self.seed, self.end_bonus = words, seed, end_bonus
        self.rows = [(sentence, ()) for sentence in range(sentences)]
        self.calls: list[int] = []

    def logits(self, sentence: int, prefix: tuple[int, ...]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(hash((self.seed, sentence, prefix)) & 0x7FFFFFFF)
        logits = torch.randn(self.words, generator=generator) * 1.5
        logits[END] += self.end_bonus
        return logits

    def step(self, tokens, parents):
        if parents is not None:
            self.rows = [self.rows[i] for i in parents.tolist()]
        self.rows = [
            (sentence, (*prefix, token)) for (sentence, prefix), token in zip(self.rows, tokens.tolist(), strict=True)
        ]
        self.calls.append(len(self.rows))
        return torch.stack([self.logits(*row) for row in self.rows])

    def score(self, sentence: int, tokens: tuple[int, ...], alpha: float) -> float:
        """Of a complete translation, token by token."""
        total, prefix = 0.0, (START,)
        for token in (*tokens, END):
            total += self.logits(sentence, prefix).log_softmax(-1)[token].item()
            prefix = (*prefix, token)
        return total / length_penalty(len(tokens) + 1, alpha)


def enumerate_all(table: Table, sentence: int, limit: int, alpha: float) -> list[tuple[float, list[int]]]:
    """Every translation of at most ``limit`` tokens, the end included, the best first."""
    words = [word for word in range(table.words) if word != END]
    every = itertools.chain.from_iterable(itertools.product(words, repeat=n) for n in range(limit))
    return sorted(((table.score(sentence, tokens, alpha), list(tokens)) for tokens in every), reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("end_bonus", [-1.0, 1.0])
def test_a_wide_enough_beam_finds_what_enumeration_finds(alpha, end_bonus):
    words, limits = 4, torch.tensor([4, 1, 3])
    best = 5
    found = beam_search(
        Table(3, words, end_bonus=end_bonus), limits, start=START, end=END, beams=64, alpha=alpha, best=best
    )
    table = Table(3, words, end_bonus=end_bonus)
    for sentence, hypotheses in enumerate(found):
        expected = enumerate_all(table, sentence, int(limits[sentence]), alpha)[:best]
        assert [h.tokens for h in hypotheses] == [tokens for _, tokens in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-5)


def plain_beam_search(table: Table, sentence: int, limit: int, beams: int, alpha: float) -> list:
    """One sentence, lists of tuples, never stopped before the limit."""
    alive, ended = [(0.0, (START,))], []
    for length in range(1, limit + 1):
        candidates = []
        for score, prefix in alive:
            log_probabilities = table.logits(sentence, prefix).log_softmax(-1).tolist()
            for token, value in enumerate(log_probabilities):
                if length < limit or token == END:
                    candidates.append((score + value, (*prefix, token)))
        candidates = sorted(candidates, reverse=True)[: 2 * beams]
        ended += [(s / length_penalty(length, alpha), list(p[1:-1])) for s, p in candidates if p[-1] == END]
        alive = [c for c in candidates if c[1][-1] != END][:beams]
    return sorted(ended, reverse=True)[:beams]


@pytest.mark.parametrize("alpha", [0.0, 0.8])
@pytest.mark.parametrize(("beams", "best"), [(1, 1), (2, 1), (3, 3), (5, 2)])
def test_narrow_beams_are_those_of_a_plain_search(beams, best, alpha):
    """Stopping early and dropping what is done changes nothing."""
    limits = torch.tensor([9, 5, 12, 2, 7])
    batched = Table(5, 6, seed=3)
    found = beam_search(batched, limits, start=START, end=END, beams=beams, alpha=alpha, best=best)
    for sentence, hypotheses in enumerate(found):
        expected = plain_beam_search(Table(5, 6, seed=3), sentence, int(limits[sentence]), beams, alpha)[:best]
        assert [h.tokens for h in hypotheses] == [tokens for _, tokens in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-5)
    assert batched.calls[0] == 5  # one row a sentence while its beginnings are the same
    assert batched.calls[-1] < batched.calls[1] <= 5 * beams


def test_it_stops_as_soon_as_nothing_can_win():
    table = Table(2, 5, end_bonus=8.0)
    beam_search(table, torch.tensor([50, 50]), start=START, end=END, beams=2)
    assert len(table.calls) < 10


def test_greedy_takes_the_most_probable_token():
    limits = torch.tensor([8, 3, 1, 8])
    table = Table(4, 5, seed=1)
    found = greedy_search(table, limits, start=START, end=END)
    for sentence, (hypothesis,) in enumerate(found):
        prefix, total = (START,), 0.0
        for length in range(1, int(limits[sentence]) + 1):
            log_probabilities = table.logits(sentence, prefix).log_softmax(-1)
            token = END if length == limits[sentence] else int(log_probabilities.argmax())
            total += log_probabilities[token].item()
            prefix = (*prefix, token)
            if token == END:
                break
        assert hypothesis.tokens == list(prefix[1:-1])
        assert hypothesis.score == pytest.approx(total, abs=1e-5)
    assert table.calls == sorted(table.calls, reverse=True)
    assert table.calls[-1] < 4


def test_no_sentences():
    assert greedy_search(Table(0, 4), torch.tensor([], dtype=torch.long), start=START, end=END) == []
    assert beam_search(Table(0, 4), torch.tensor([], dtype=torch.long), start=START, end=END, beams=2) == []


def test_the_penalty_is_that_of_gnmt():
    assert length_penalty(1, 0.7) == 1.0
    assert length_penalty(7, 1.0) == 2.0
    assert length_penalty(19, 0.5) == 2.0


@pytest.mark.parametrize("wrong", [{"beams": 0}, {"beams": 2, "best": 3}, {"beams": 2, "alpha": -0.1}])
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValueError, match="beam_search: beams must be at least 1"):
        beam_search(Table(1, 4), torch.tensor([3]), start=START, end=END, **wrong)
