"""Token classification: a tag for every token, and entities made of tags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from electra_fast.errors import DataError
from electra_fast.extras import require
from electra_fast.workflows.finetuning.checkpoint import load_model, make_model
from electra_fast.workflows.finetuning.collate import IGNORED
from electra_fast.workflows.finetuning.row_weights import WEIGHT, check_weights
from electra_fast.workflows.finetuning.task import Columns, Task, refuse_fill_label

from .entities import OUTSIDE, entities, entity_scores, iob2, is_entity_tag, surface_scores
from .sentence_files import read_sentences
from .windows import windows
from .words import Sentence, join_words, pieces_of, split_words, whole_characters

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase
    from typing_extensions import Self

    from electra_fast.workflows.finetuning.options import FinetuneOptions

_LENGTH = 256


@dataclass(frozen=True)
class TokenClassification(Task):
    """``[CLS] sub-tokens [SEP]``; the logits of a token are those of its first sub-token, and so is its loss.

    A sentence longer than the model reads becomes several rows that share a quarter of their tokens; each token counts
    in one of them. Where all tags of the training data are those of entities, they are learned as IOB2, whatever scheme
    the file has, and scored as entities; other tags (parts of speech) are learned as they are.

    Attributes:
        token_column, tag_column: of a CoNLL file counted from 1; of a table their names. None: the first and the last,
            or ``tokens`` and ``tags``.
        weight_column: of a table: what a training sentence counts in the loss; None: all count 1.
        labels: the model's outputs in their order; of entities ``O, B-x, I-x, …``.
        entities: whether the tags are those of entities.
    """

    name: ClassVar[str] = "ner"
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    texts: ClassVar[tuple[str, ...]] = ("tokens",)
    label: ClassVar[str] = "tags"
    model_inputs: ClassVar[tuple[str, ...]] = (*Task.model_inputs, WEIGHT)

    token_column: str | None = None
    tag_column: str | None = None
    weight_column: str | None = None
    labels: tuple[str, ...] = ()
    entities: bool = True

    @property
    def metric(self) -> str:
        return "f1" if self.entities else "accuracy"

    @classmethod
    def from_options(cls, options: FinetuneOptions, longest: int) -> Self:
        refuse_fill_label(options, "lists of tags")
        return cls(
            max_length=min(options.max_length or _LENGTH, longest),
            token_column=options.text_column,
            tag_column=options.label_column,
            weight_column=options.weight_column,
        )

    def read(self, path: str | Path, *, labelled: bool = True) -> Dataset:
        sentences = read_sentences(
            path, self.token_column, self.tag_column, labelled=labelled, weight=self.weight_column
        )
        if labelled:
            self._check_tags(sentences["tags"], path)
        return sentences

    def _check_tags(self, tags: Sequence[Sequence[str] | None], path: str | Path) -> None:
        """DataError unless all tags are those of entities, or, where entities are not what is learned, none is."""
        there = {tag for sentence in tags for tag in sentence or ()}
        odd = {tag for tag in there if not is_entity_tag(tag)}
        if not self.entities or (not self.labels and odd == there - {OUTSIDE}):
            return
        for number, sentence in enumerate(tags, 1):
            for tag in sentence or ():
                if tag in odd:
                    raise DataError(
                        f"{path}, sentence {number}: the tag {tag!r} is none of an entity, as others are: expected O, "
                        "or a prefix and a type (B-person, I-person; also E, S, L, U)"
                    )

    def learn(self, train: Dataset) -> Self:
        """The labels. DataError: there is one tag only."""
        check_weights(train, self.weight_column)
        tags = sorted({tag for sentence in train["tags"] for tag in sentence})
        if len(tags) < 2:
            raise DataError(f"all tokens of the training data have the tag {tags[0]!r}: nothing can be learned from it")
        if not all(map(is_entity_tag, tags)):
            return dataclasses.replace(self, labels=tuple(tags), entities=False)
        kinds = sorted({tag.split("-", 1)[1] for tag in tags if tag != OUTSIDE})
        labels = (OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))
        return dataclasses.replace(self, labels=labels, entities=True)

    def accept(self, item: str | Mapping[str, Any]) -> dict[str, Any]:
        """A text, ``{"text": …}``, or ``{"tokens": [...]}``, whose text is the tokens with spaces between them."""
        given = item if isinstance(item, Mapping) else {"text": item}
        tokens, text = given.get("tokens"), given.get("text")
        if tokens is not None:
            if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
                raise DataError(f"an input for ner needs 'tokens' to be a list of texts, got {tokens!r:.60}")
            return {"text": None, "tokens": [whole_characters(token) for token in tokens]}
        if not isinstance(text, str):
            raise DataError(f"an input for ner needs a text, or a list 'tokens' of its words, got {item!r:.60}")
        return {"text": whole_characters(text), "tokens": None}

    def model(self, checkpoint: str, *, pretrained: bool = True, dropout: float = 0.1) -> nn.Module:
        names = dict(enumerate(self.labels))
        numbers = {label: number for number, label in names.items()}
        return make_model(_head(), checkpoint, pretrained=pretrained, dropout=dropout, id2label=names, label2id=numbers)

    def load(self, directory: str | Path) -> nn.Module:
        return load_model(_head(), directory)

    def features(self, examples: Columns, tokenizer: PreTrainedTokenizerBase, training: bool) -> dict[str, list]:
        """Rows with ``positions`` of the sub-tokens that are judged in them, and the characters of those words."""
        sentences = _sentences(examples, tokenizer)
        pieces = pieces_of(tokenizer, (sentence.words for sentence in sentences))
        number = {label: index for index, label in enumerate(self.labels)}
        names = ["labels"] if training else ["positions", "starts", "ends"]
        rows: dict[str, list] = {name: [] for name in ("example", "input_ids", "token_type_ids", *names)}
        size = self.max_length - 2
        for example, sentence in enumerate(sentences):
            ids = [piece for word in sentence.words for piece in pieces[word]]
            lengths = [len(pieces[word]) for word in sentence.words]
            first_pieces = np.concatenate(([0], np.cumsum(lengths[:-1]))) if lengths else np.zeros(0, np.int64)
            tags = self._learned(examples["tags"][example]) if training else []
            for window in windows(len(ids), size, size // 4):
                inside = ids[window.start : window.end]
                judged = np.flatnonzero((first_pieces >= window.own_start) & (first_pieces < window.own_end)).tolist()
                positions = [int(first_pieces[word]) - window.start + 1 for word in judged]
                rows["example"].append(example)
                rows["input_ids"].append([tokenizer.cls_token_id, *inside, tokenizer.sep_token_id])
                rows["token_type_ids"].append([0] * (len(inside) + 2))
                if training:
                    labels = [IGNORED] * (len(inside) + 2)
                    for position, word in zip(positions, judged, strict=True):
                        labels[position] = number.get(tags[word], IGNORED)
                    rows["labels"].append(labels)
                    if WEIGHT in examples:
                        rows.setdefault(WEIGHT, []).append(examples[WEIGHT][example])
                else:
                    rows["positions"].append(positions)
                    rows["starts"].append([sentence.starts[word] for word in judged])
                    rows["ends"].append([sentence.ends[word] for word in judged])
        return rows

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The model's own, unless sentences have weights: mean over tokens of each one's times its sentence's."""
        if WEIGHT not in batch:
            return model(**batch).loss
        from torch.nn import functional

        targets = batch["labels"]
        inputs = {name: value for name, value in batch.items() if name not in ("labels", WEIGHT)}
        logits = model(**inputs).logits.float()
        losses = functional.cross_entropy(logits.mT, targets, ignore_index=IGNORED, reduction="none")
        return (losses * batch[WEIGHT][:, None]).sum() / (targets != IGNORED).sum()

    def _learned(self, tags: Sequence[str]) -> Sequence[str]:
        """Tags as they are learned and compared: those of entities in IOB2."""
        return iob2(entities(tags), len(tags)) if self.entities else tags

    def decode(self, outputs: Sequence[np.ndarray], rows: Columns, examples: Columns) -> list[dict[str, Any]]:
        """``entities``: ``type``, ``text``, ``start``, ``end`` (characters), ``probability``, the mean of its tokens'.

        Of given tokens characters count in the tokens with single spaces between them, and there are also ``tags``, one
        for each, and an entity's ``first_token``, ``last_token``. Other tags than those of entities come as ``tokens``
        instead: ``text``, ``start``, ``end``, ``tag``, ``probability``.
        """
        judged: list[list[_Word]] = [[] for _ in _texts(examples)]
        for row, (example, logits) in enumerate(zip(rows["example"], outputs, strict=True)):
            if not rows["positions"][row]:
                continue
            scores = logits[rows["positions"][row]].astype(np.float64)
            best = scores.argmax(1)
            shares = 1 / np.exp(scores - scores.max(1, keepdims=True)).sum(1)
            places = zip(rows["starts"][row], rows["ends"][row], strict=True)
            for (start, end), label, share in zip(places, best.tolist(), shares.tolist(), strict=True):
                judged[example].append(_Word(start, end, self.labels[label], share))
        tokens = examples.get("tokens", [None] * len(judged))
        return [
            self._prediction(words, text, pretokenised=given is not None)
            for words, text, given in zip(judged, _texts(examples), tokens, strict=True)
        ]

    def _prediction(self, words: list[_Word], text: str, *, pretokenised: bool) -> dict[str, Any]:
        tags = list(self._learned([word.tag for word in words]))
        given = {"tags": tags} if pretokenised else {}
        if not self.entities:
            names = ("text", "start", "end", "tag", "probability")
            tokens = [(text[w.start : w.end], *w) for w in words]
            return {"tokens": [dict(zip(names, token, strict=True)) for token in tokens]} | given
        found = []
        for kind, first, behind in entities(tags):
            start, end = words[first].start, words[behind - 1].end
            entity = {"type": kind, "text": text[start:end], "start": start, "end": end}
            entity["probability"] = sum(word.probability for word in words[first:behind]) / (behind - first)
            if pretokenised:
                entity |= {"first_token": first, "last_token": behind - 1}
            found.append(entity)
        return {"entities": found} | given

    def score(self, predictions: Sequence[Mapping[str, Any]], examples: Columns) -> dict[str, float]:
        """``precision``, ``recall``, ``f1`` of entities as CoNLL's evaluation counts them, ``accuracy`` of tokens.

        Besides, ``surface_f1``, which counts equal words once (WNUT). Of other tags the accuracy alone.
        """
        found = [prediction["tags"] for prediction in predictions]
        gold = [self._learned(tags) for tags in examples["tags"]]
        right = [a == b for one, other in zip(found, gold, strict=True) for a, b in zip(one, other, strict=True)]
        accuracy = {"accuracy": sum(right) / max(1, len(right))}
        if not self.entities:
            return accuracy
        there, guessed = [entities(tags) for tags in gold], [entities(tags) for tags in found]
        surface = surface_scores(examples["tokens"], there, guessed)
        return entity_scores(there, guessed) | {"surface_f1": surface["f1"]} | accuracy


class _Word(NamedTuple):
    start: int
    end: int
    tag: str
    probability: float


def _head() -> type[nn.Module]:
    return require("transformers", "finetune", "token classification").ElectraForTokenClassification


def _texts(examples: Columns) -> list[str]:
    """The text that a prediction's characters are counted in."""
    tokens = examples.get("tokens")
    given = examples.get("text") or [None] * len(tokens)
    return [" ".join(tokens[i]) if text is None else text for i, text in enumerate(given)]


def _sentences(examples: Columns, tokenizer: PreTrainedTokenizerBase) -> list[Sentence]:
    tokens = examples.get("tokens") or [None] * len(examples["text"])
    raw = iter(
        split_words(tokenizer, [text for text, given in zip(_texts(examples), tokens, strict=True) if given is None])
    )
    return [next(raw) if given is None else join_words(given) for given in tokens]
