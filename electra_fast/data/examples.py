"""From the sentences of a document to training examples: ELECTRA's two segments, or plain packing.

Randomness is a function of (seed, document, part) alone: examples do not depend on who builds them, or in what order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from electra_fast.errors import ConfigError

LAYOUTS = ("two-segment", "document")
OVERFLOWS = ("carry", "truncate")
SHORTEST_TARGET = 5
SHORT_TARGET_PROBABILITY = 0.05
SINGLE_SEGMENT_PROBABILITY = 0.1
_NO_TARGET = 100_000

Sentence = Sequence[int]
Draw = Callable[[], float]  # uniform in [0, 1)


@dataclass
class BuiltExamples:
    """Examples end to end as plain lists, and the number of tokens that were cut off and lost."""

    tokens: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    first_lengths: list[int] = field(default_factory=list)
    truncated_tokens: int = 0


class ExampleBuilder:
    """Builds the examples of one document (part) at a time.

    ``layout="two-segment"`` follows ``build_pretraining_dataset.py`` of google-research/electra. Sentences are gathered
    until they reach a target length L: ``max_length``, for 5 % of the examples uniform in [5, max_length]. They go
    to segment A if A is empty, or A with the sentence is shorter than (L - 3) // 2, or, where it would not be, with
    probability 1/2 if B is empty and A is shorter than that; else to B. In 10 % of the examples all go to A. Both come
    from the same place of the text: there is no next-sentence task. A is cut to ``max_length - 2`` tokens, B to what is
    left of ``max_length - 3``.
    Two differences: the first target of a document is drawn too (there it is left over from the document before), and
    with ``overflow="carry"`` what is cut off begins the next example, so that no text is lost; ``overflow="truncate"``
    drops it as Google's does, and counts it.

    ``layout="document"``: the tokens of a document, sentence after sentence, in pieces of ``max_length - 2``.

    An example is ``[CLS] A [SEP]`` or ``[CLS] A [SEP] B [SEP]``.

    Args:
        max_length: most tokens of an example, special ones included; at least 8.
        cls_id, sep_id: ids of [CLS] and [SEP].
        layout: one of `LAYOUTS`.
        overflow: one of `OVERFLOWS`; without meaning for ``layout="document"``, which loses nothing.
        seed: non-negative.

    Raises:
        ConfigError: an argument out of range.
    """

    def __init__(
        self,
        *,
        max_length: int,
        cls_id: int,
        sep_id: int,
        layout: str = "two-segment",
        overflow: str = "carry",
        seed: int = 0,
    ) -> None:
        if layout not in LAYOUTS:
            raise ConfigError(f"examples: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
        if overflow not in OVERFLOWS:
            raise ConfigError(f"overflow: expected one of {', '.join(OVERFLOWS)}, got {overflow!r}")
        if max_length < 8:
            raise ConfigError(f"max_length: expected at least 8 tokens, got {max_length}")
        if seed < 0:
            raise ConfigError(f"seed: expected a number from 0 on, got {seed}")
        self.max_length = max_length
        self.cls_id = cls_id
        self.sep_id = sep_id
        self.layout = layout
        self.overflow = overflow
        self.seed = seed

    def build(self, document: int, part: int, sentences: Sequence[Sentence], into: BuiltExamples) -> None:
        """Append the examples of one part of a document; a sentence is a sequence of ids, empty ones are skipped."""
        if self.layout == "document":
            self._pack(sentences, into)
        else:
            self._two_segments(document, part, sentences, into)

    def _pack(self, sentences: Sequence[Sentence], into: BuiltExamples) -> None:
        tokens = list(chain.from_iterable(sentences))
        step = self.max_length - 2
        for start in range(0, len(tokens), step):
            self._append(tokens[start : start + step], [], into)

    def _two_segments(self, document: int, part: int, sentences: Sequence[Sentence], into: BuiltExamples) -> None:
        draw = random.Random((((self.seed << 64) | document) << 32) | part).random
        waiting: list[Sentence] = []
        length = 0
        target = self._draw_target(draw)
        for sentence in sentences:
            if not sentence:
                continue
            waiting.append(sentence)
            length += len(sentence)
            while length >= target:
                waiting = self._emit(waiting, target, draw, into)
                length = sum(map(len, waiting))
                target = self._draw_target(draw)
        while waiting:
            waiting = self._emit(waiting, target, draw, into)
            target = self._draw_target(draw)

    def _draw_target(self, draw: Draw) -> int:
        if draw() < SHORT_TARGET_PROBABILITY:
            return SHORTEST_TARGET + int(draw() * (self.max_length - SHORTEST_TARGET + 1))
        return self.max_length

    def _emit(self, sentences: list[Sentence], target: int, draw: Draw, into: BuiltExamples) -> list[Sentence]:
        """Append one example made of ``sentences``; returns the sentences (or ends of them) for the next one."""
        first, second = deal(sentences, target, draw)
        first_tokens, first_rest = _take(first, self.max_length - 2)
        second_tokens, second_rest = _take(second, max(0, self.max_length - 3 - len(first_tokens)))
        self._append(first_tokens, second_tokens, into)
        rest = first_rest + second_rest
        if self.overflow == "carry":
            return rest
        into.truncated_tokens += sum(map(len, rest))
        return []

    def _append(self, first: list[int], second: list[int], into: BuiltExamples) -> None:
        tokens = into.tokens
        before = len(tokens)
        tokens.append(self.cls_id)
        tokens += first
        tokens.append(self.sep_id)
        into.first_lengths.append(len(tokens) - before)
        if second:
            tokens += second
            tokens.append(self.sep_id)
        into.lengths.append(len(tokens) - before)


def deal(sentences: Sequence[Sentence], target: int, draw: Draw) -> tuple[list[Sentence], list[Sentence]]:
    """Deal sentences to segments A and B of an example of ``target`` tokens (Google's ``_create_example``)."""
    limit = _NO_TARGET if draw() < SINGLE_SEGMENT_PROBABILITY else (target - 3) // 2
    first: list[Sentence] = []
    second: list[Sentence] = []
    length = 0
    for sentence in sentences:
        if not first or length + len(sentence) < limit or (not second and length < limit and draw() < 0.5):
            first.append(sentence)
            length += len(sentence)
        else:
            second.append(sentence)
    return first, second


def _take(sentences: list[Sentence], room: int) -> tuple[list[int], list[Sentence]]:
    """The first ``room`` tokens of some sentences, and the sentences (the first perhaps cut) behind them."""
    tokens: list[int] = []
    for index, sentence in enumerate(sentences):
        left = room - len(tokens)
        if len(sentence) > left:
            tokens += sentence[:left]
            return tokens, [sentence[left:], *sentences[index + 1 :]]
        tokens += sentence
    return tokens, []
