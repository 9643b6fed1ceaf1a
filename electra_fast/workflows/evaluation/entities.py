"""Judgement of tags: of entities, or of any other kind."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from electra_fast.workflows.finetuning.tasks.entities import OUTSIDE, Entity, entities, entity_scores, scores_by_kind
from electra_fast.workflows.finetuning.tasks.label_figures import by_label, confusion_counts

from .judgement import Classes, Judgement, Mistake, shortened, sure


class Entities(Judgement):
    """Tagged tokens. Right is an entity whose first and last token and type are right; of other tags, a token's tag."""

    @cached_property
    def said_tags(self) -> list[list[str]]:
        """What the model says of each token."""
        return [list(prediction["tags"]) for prediction in self.predictions]

    @cached_property
    def true_tags(self) -> list[list[str]]:
        """What is true of each token."""
        return [list(tags) for tags in self.examples["tags"]]

    @cached_property
    def said(self) -> list[list[Entity]]:
        """The entities of each sentence by the model."""
        return [entities(tags) for tags in self.said_tags] if self.task.entities else []

    @cached_property
    def truth(self) -> list[list[Entity]]:
        """The entities of each sentence."""
        return [entities(tags) for tags in self.true_tags] if self.task.entities else []

    @cached_property
    def _right_tokens(self) -> np.ndarray:
        """``[n, 2]``: how many tokens of each sentence are tagged rightly, and how many there are."""
        pairs = zip(self.said_tags, self.true_tags, strict=True)
        return np.array([[sum(a == b for a, b in zip(x, y, strict=True)), len(y)] for x, y in pairs])

    def figures_of(self, indices: np.ndarray) -> dict[str, float]:
        if self.task.entities:
            return entity_scores([self.truth[i] for i in indices], [self.said[i] for i in indices])
        right, tokens = self._right_tokens[indices].sum(0)
        return {"accuracy": float(right / max(1, tokens))}

    @property
    def values(self) -> np.ndarray:
        """1 where all entities of a sentence are right; of other tags the share of right tokens."""
        if self.task.entities:
            return np.array([float(set(a) == set(b)) for a, b in zip(self.truth, self.said, strict=True)])
        return self._right_tokens[:, 0] / np.maximum(self._right_tokens[:, 1], 1)

    def text(self, index: int) -> str:
        return " ".join(self.examples["tokens"][index])

    def mistake(self, index: int) -> Mistake:
        """Entities that were missed, and those that are none; the surest of the latter says how sure."""
        text = shortened(self.text(index))
        if not self.task.entities:
            words = zip(self.examples["tokens"][index], self.true_tags[index], self.said_tags[index], strict=True)
            wrong = [(word, true, said) for word, true, said in words if true != said]
            probabilities = (token["probability"] for token in self.predictions[index]["tokens"])
            places = zip(probabilities, self.true_tags[index], self.said_tags[index], strict=True)
            expected, said = (", ".join(f"{w[0]} {w[place]}" for w in wrong) for place in (1, 2))
            return Mistake(index, text, expected, said, *sure(max(share for share, a, b in places if a != b)))
        missed, extra = set(self.truth[index]) - set(self.said[index]), set(self.said[index]) - set(self.truth[index])
        shares = [e["probability"] for e in self.predictions[index]["entities"] if _entity(e) in extra]
        remark = sure(max(shares)) if shares else (0.0, "missed")
        return Mistake(index, text, self._listed(index, missed), self._listed(index, extra), *remark)

    def _listed(self, index: int, found: set[Entity]) -> str:
        tokens = self.examples["tokens"][index]
        ordered = sorted(found, key=lambda entity: entity.start)
        return ", ".join(f"{' '.join(tokens[e.start : e.end])} ({e.kind})" for e in ordered) or "nothing"

    def classes(self) -> Classes:
        if self.task.entities:
            found = scores_by_kind(self.truth, self.said)
            columns = (
                [figures[name] for figures in found.values()] for name in ("precision", "recall", "f1", "support")
            )
            return Classes(list(found), *columns)
        names, counts = self.confusion()
        found = by_label(np.diagonal(counts), counts.sum(0), counts.sum(1))
        return Classes(names, *(values.tolist() for values in found))

    def confusion(self) -> tuple[list[str], np.ndarray]:
        """Token by token; of entities their types, wherever they begin and end."""
        truth, said = ([tag for tags in sentences for tag in tags] for sentences in (self.true_tags, self.said_tags))
        if self.task.entities:
            truth, said = ([tag.partition("-")[2] or OUTSIDE for tag in tags] for tags in (truth, said))
        names = sorted({*truth, *said}, key=lambda name: (name == OUTSIDE, name))
        place = {name: index for index, name in enumerate(names)}
        pair = (np.array([place[tag] for tag in tags]) for tags in (truth, said))
        return names, confusion_counts(*pair, len(names))

    def confidence(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of every entity that was found (of other tags, of every token)."""
        shares, right = [], []
        for index, prediction in enumerate(self.predictions):
            if self.task.entities:
                there = set(self.truth[index])
                shares += [entity["probability"] for entity in prediction["entities"]]
                right += [_entity(entity) in there for entity in prediction["entities"]]
            else:
                shares += [token["probability"] for token in prediction["tokens"]]
                right += [a == b for a, b in zip(self.true_tags[index], self.said_tags[index], strict=True)]
        return (np.array(shares), np.array(right, float)) if shares else None


def _entity(found: dict[str, Any]) -> Entity:
    return Entity(found["type"], found["first_token"], found["last_token"] + 1)
