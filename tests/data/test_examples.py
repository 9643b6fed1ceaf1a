"""ELECTRA's examples against the rules written down a second time, their statistics, and what may not get lost."""

import random
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.data.examples import BuiltExamples, ExampleBuilder, deal
from electra_fast.errors import ConfigError

CLS, SEP = 2, 3
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def sentences_of(sizes, start=10):
    """Sentences of ever new ids, so that every token can be traced."""
    ids = iter(range(start, start + sum(sizes)))
    return [[next(ids) for _ in range(size)] for size in sizes]


def build(sentences, *, max_length=32, document=0, part=0, **options):
    into = BuiltExamples()
    builder = ExampleBuilder(max_length=max_length, cls_id=CLS, sep_id=SEP, **options)
    builder.build(document, part, sentences, into)
    return into


def split(built):
    """(A, B) of every example, special tokens checked and removed."""
    segments, at = [], 0
    for length, first in zip(built.lengths, built.first_lengths, strict=True):
        example = built.tokens[at : at + length]
        at += length
        assert example[0] == CLS
        assert example[first - 1] == SEP
        assert example[-1] == SEP
        segments.append((example[1 : first - 1], example[first:-1]))
    assert at == len(built.tokens)
    return segments


class GoogleRules:
    """The rules of google-research/electra's build_pretraining_dataset.py, with one list of tokens per segment."""

    def __init__(self, max_length, draw):
        self.max_length, self.draw = max_length, draw
        self.waiting, self.examples = [], []
        self.new_target()

    def new_target(self):
        short = self.draw() < 0.05
        self.target = 5 + int(self.draw() * (self.max_length - 4)) if short else self.max_length

    def sentence(self, tokens):
        self.waiting.append(tokens)
        if len(list(chain(*self.waiting))) >= self.target:
            self.example()

    def end(self):
        if self.waiting:
            self.example()

    def example(self):
        half = 100000 if self.draw() < 0.1 else (self.target - 3) // 2
        a, b = [], []
        for tokens in self.waiting:
            if len(a) == 0:
                a = a + tokens
            elif len(a) + len(tokens) < half:
                a = a + tokens
            elif len(b) == 0 and len(a) < half and self.draw() < 0.5:
                a = a + tokens
            else:
                b = b + tokens
        a = a[: self.max_length - 2]
        self.examples.append((a, b[: max(0, self.max_length - len(a) - 3)]))
        self.waiting = []
        self.new_target()


@settings(max_examples=200, deadline=None)
@given(lengths, st.integers(0, 5), st.integers(0, 1000), st.integers(8, 64))
def test_truncating_is_what_google_does(sizes, seed, document, max_length):
    sentences = sentences_of(sizes)
    built = build(sentences, max_length=max_length, overflow="truncate", seed=seed, document=document)
    rules = GoogleRules(max_length, random.Random(((seed << 64) | document) << 32).random)
    for tokens in sentences:
        rules.sentence(tokens)
    rules.end()
    assert split(built) == rules.examples
    kept = sum(len(a) + len(b) for a, b in rules.examples)
    assert built.truncated_tokens == sum(sizes) - kept


@settings(max_examples=200, deadline=None)
@given(lengths, st.integers(0, 5), st.integers(8, 64))
def test_carrying_loses_nothing_and_keeps_to_the_length(sizes, seed, max_length):
    built = build(sentences_of(sizes), max_length=max_length, seed=seed)
    segments = split(built)
    assert sorted(chain(*chain(*segments))) == list(range(10, 10 + sum(sizes)))
    assert max(built.lengths) <= max_length
    assert all(a for a, _ in segments)
    assert built.truncated_tokens == 0
    begins = [a[0] for a, _ in segments]
    assert begins == sorted(begins)  # examples follow the text


@settings(max_examples=200, deadline=None)
@given(lengths, st.integers(5, 128), st.lists(st.floats(0, 0.999), min_size=40, max_size=40))
def test_dealing_by_the_rule(sizes, target, draws):
    first, second = deal(sentences_of(sizes), target, iter(draws).__next__)
    rules = GoogleRules(10**9, iter([0.5, *draws, 0.5]).__next__)
    rules.target = target
    rules.waiting = sentences_of(sizes)
    rules.example()
    assert [(list(chain(*first)), list(chain(*second)))] == rules.examples


def within(count, total, probability, sigmas=4.5):
    return abs(count - total * probability) < sigmas * (total * probability * (1 - probability)) ** 0.5


def test_one_in_ten_has_one_segment_and_one_in_twenty_is_short():
    count, max_length = 6_000, 128
    into = BuiltExamples()
    builder = ExampleBuilder(max_length=max_length, cls_id=CLS, sep_id=SEP, overflow="truncate")
    sentences = [[5] * 4] * (count // 20 * 31)  # 31 sentences of 4 tokens are 124, 32 reach the target of 128
    for document in range(20):
        builder.build(document, 0, sentences, into)
    total = len(into.lengths)
    full = [length == max_length for length in into.lengths]
    # Targets from 125 on, 4 of 124, fill an example too.
    assert within(total - sum(full) - 20, total, 0.05 * 120 / 124)
    single = [first == length for first, length in zip(into.first_lengths, into.lengths, strict=True)]
    of_full = sum(s for s, f in zip(single, full, strict=True) if f)
    assert within(of_full, sum(full), 0.1)


def test_short_targets_are_uniform_from_5_to_the_length():
    into = BuiltExamples()
    builder = ExampleBuilder(max_length=24, cls_id=CLS, sep_id=SEP, overflow="truncate", seed=1)
    builder.build(0, 0, [[5]] * 300_000, into)
    # One-token sentences: the tokens of an example are its target, cut to what fits.
    counts = {}
    for length, first in zip(into.lengths, into.first_lengths, strict=True):
        content = length - (2 if first == length else 3)
        counts[content] = counts.get(content, 0) + 1
    total = len(into.lengths)
    assert min(counts) == 5
    for target in range(5, 21):
        assert within(counts[target], total, 0.05 / 20), target


def test_segment_a_ends_at_the_coin_flip_about_half_the_way():
    """A sentence that does not fit the first half goes to A half of the time."""
    over = 0
    trials = 4000
    for document in range(trials):
        first, _ = deal([[5] * 30, [5] * 40, [5] * 40], 128, random.Random(document).random)
        over += len(first) == 2
    # (128 - 3) // 2 = 62: the second sentence does not fit. Ten in a hundred take all three.
    assert within(over, trials, 0.9 * 0.5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=20), st.integers(8, 40))
def test_document_packing_is_the_text_in_full_pieces(sizes, max_length):
    sentences = sentences_of(sizes)
    built = build(sentences, max_length=max_length, layout="document")
    segments = split(built)
    assert list(chain(*(a for a, _ in segments))) == list(chain(*sentences))
    assert all(not b for _, b in segments)
    assert all(len(a) == max_length - 2 for a, _ in segments[:-1])
    assert built.first_lengths == built.lengths


def test_examples_depend_on_seed_document_and_part_alone():
    sentences = sentences_of([7, 5, 9, 3, 8] * 40)
    reference = build(sentences, seed=1, document=3, part=2)
    into = BuiltExamples()
    builder = ExampleBuilder(max_length=32, cls_id=CLS, sep_id=SEP, seed=1)
    builder.build(9, 0, sentences, into)
    before = len(into.tokens)
    builder.build(3, 2, sentences, into)
    assert into.tokens[before:] == reference.tokens
    for changed in ({"seed": 2}, {"document": 4}, {"part": 0}):
        other = {"seed": 1, "document": 3, "part": 2, **changed}
        assert build(sentences, **other).first_lengths != reference.first_lengths


@pytest.mark.parametrize("layout", ["two-segment", "document"])
def test_nothing_gives_nothing(layout):
    assert build([], layout=layout).lengths == []
    assert build([[], []], layout=layout).lengths == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 7}, "max_length: expected at least 8"),
        ({"layout": "packed"}, "examples: expected one of two-segment, document, got 'packed'"),
        ({"overflow": "drop"}, "overflow: expected one of carry, truncate, got 'drop'"),
        ({"seed": -1}, "seed: expected a number from 0 on, got -1"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        build([], **options)
