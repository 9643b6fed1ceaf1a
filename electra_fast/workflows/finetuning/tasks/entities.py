"""Entities and the tags that write them, and how the two are counted against each other.

A tag is ``O`` or a prefix and a type, ``B-person``. IOB1, IOB2, BIOES (IOBES) and BILOU differ in when they use which
prefix; one reading serves all of them, that of CoNLL's evaluation (``conlleval``, Tjong Kim Sang and Buchholz 2000): an
entity begins at B, S and U, and at any other tag whose type is not that of an entity still open; it ends behind E, L, S
and U, and where anything else begins or ``O`` stands. So ``O I-x I-x`` is one entity, and ``I-x I-y`` are two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_TAG = re.compile(r"([BIESLU])-(.+)")
OUTSIDE = "O"


class Entity(NamedTuple):
    """Tokens ``start … end - 1`` are a ``kind``."""

    kind: str
    start: int
    end: int


def is_entity_tag(tag: str) -> bool:
    """Whether a tag is ``O`` or has a prefix and a type."""
    return tag == OUTSIDE or _TAG.fullmatch(tag) is not None


def entities(tags: Iterable[str]) -> list[Entity]:
    """The entities of a sentence, in order. Every tag must be an `is_entity_tag`."""
    found: list[Entity] = []
    kind: str | None = None  # of the entity still open
    start = end = 0
    for end, tag in enumerate(tags):
        prefix, of = (OUTSIDE, None) if tag == OUTSIDE else _TAG.fullmatch(tag).groups()
        if kind is not None and (of != kind or prefix in "BSU"):
            found.append(Entity(kind, start, end))
            kind = None
        if of is not None and kind is None:
            kind, start = of, end
        if prefix in "ELSU":
            found.append(Entity(kind, start, end + 1))
            kind = None
    if kind is not None:
        found.append(Entity(kind, start, end + 1))
    return found


def iob2(found: Iterable[Entity], length: int) -> list[str]:
    """The tags of a sentence of ``length`` tokens: B where an entity begins, I inside, O elsewhere."""
    tags = [OUTSIDE] * length
    for kind, start, end in found:
        tags[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return tags


def entity_scores(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> dict[str, float]:
    """``precision``, ``recall``, ``f1`` over all entities: right is one whose first and last token and type are right.

    ``P = right / predicted``, ``R = right / gold``, ``F1 = 2PR / (P + R)``, each 0 where its denominator is.
    """
    right = sum(len(set(a) & set(b)) for a, b in zip(gold, predicted, strict=True))
    return _scores(right, sum(map(len, predicted)), sum(map(len, gold)))


def scores_by_kind(
    gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]
) -> dict[str, dict[str, float]]:
    """`entity_scores` of every type, with ``support``, the number of gold entities; types in alphabetical order."""
    right: Counter[str] = Counter()
    guessed: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for a, b in zip(gold, predicted, strict=True):
        right.update(entity.kind for entity in set(a) & set(b))
        there.update(entity.kind for entity in a)
        guessed.update(entity.kind for entity in b)
    return {
        kind: _scores(right[kind], guessed[kind], there[kind]) | {"support": there[kind]}
        for kind in sorted(there.keys() | guessed.keys())
    }


def surface_scores(
    tokens: Sequence[Sequence[str]], gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]
) -> dict[str, float]:
    """`entity_scores` in which equal words of equal type count once, however often they occur (WNUT 2017).

    Right is a form that was found rightly in at least one place. Source: Derczynski et al. 2017.
    """
    right, guessed, there = set(), set(), set()
    for words, a, b in zip(tokens, gold, predicted, strict=True):
        for forms, found in ((right, set(a) & set(b)), (guessed, b), (there, a)):
            forms.update((entity.kind, tuple(words[entity.start : entity.end])) for entity in found)
    return _scores(len(right), len(guessed), len(there))


def _scores(right: int, predicted: int, gold: int) -> dict[str, float]:
    return {
        "precision": right / predicted if predicted else 0.0,
        "recall": right / gold if gold else 0.0,
        "f1": 2 * right / (predicted + gold) if right else 0.0,
    }
