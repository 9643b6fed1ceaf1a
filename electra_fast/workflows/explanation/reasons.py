"""What there is to explain: for each kind of head, the numbers that decide what it says.

For labels the number is the log-odds, ``log p/(1-p)``: of one class among several ``z_c - log Σ_{j≠c} exp z_j``, of
a yes or no the logit itself. It has no ceiling where a sure model's gradient would vanish, and counts against a label
what speaks for another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from electra_fast.errors import ConfigError
from electra_fast.models import (
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)

from .tokens import Tokens

LONGEST_ANSWER = 30  # tokens
LOG_ODDS = "log-odds"


@dataclass(frozen=True)
class Question:
    """One number to explain.

    Attributes:
        title: what the model says, in words.
        unit: of the number.
        number: the model's output for a batch of B texts to ``[B]``.
    """

    title: str
    unit: str
    number: Callable[[tuple], Tensor]


def log_odds(logits: Tensor, label: int) -> Tensor:
    """``log p/(1-p)`` of a label, ``p = softmax(logits)`` over the last dimension (of two entries at least)."""
    others = torch.cat([logits[..., :label], logits[..., label + 1 :]], dim=-1)
    return logits[..., label] - others.logsumexp(-1)


def questions(
    model: nn.Module, tokens: Tokens, output: tuple, label: str | None, most: int
) -> tuple[str, list[Question], list[float] | None]:
    """What the model says of a text, the numbers behind it, and, where it says something of every token, that.

    Args:
        output: of the model for this text alone.
        label: name of the label to explain instead of the one the model gives.
        most: of questions, where each word could be one.

    Raises:
        ConfigError: a head that this cannot explain, or no label of that name.
    """
    if isinstance(model, ElectraForPreTraining):
        _only_with_labels(label, model)
        return _replaced(tokens, output[1][0], most)
    if isinstance(model, ElectraForQuestionAnswering):
        _only_with_labels(label, model)
        return _answer(tokens, output)
    names = model.config.id2label or {i: f"LABEL_{i}" for i in range(model.config.num_labels)}
    chosen = None if label is None else _index(label, names)
    if isinstance(model, ElectraForTokenClassification):
        return _tags(tokens, output[1][0], names, chosen, most)
    if isinstance(model, ElectraForSequenceClassification):
        return _sentence(model, output[1][0], names, chosen)
    raise ConfigError(
        f"model is a {type(model).__name__}: explained can be a classifier of texts or tokens, a question answerer, "
        "and the discriminator of a pretraining run"
    )


def _replaced(tokens: Tokens, logits: Tensor, most: int) -> tuple[str, list[Question], list[float]]:
    """The words the discriminator suspects most."""
    odds = {word: logits[tokens.positions(word)].max().item() for word in range(tokens.word_count)}
    ranked = sorted(odds, key=lambda word: -odds[word])
    suspected = [word for word in ranked if odds[word] > 0]
    said = ", ".join(f"“{tokens.word(word)}” ({_probability(odds[word])})" for word in (suspected or ranked[:1])[:most])
    found = []
    for word in ranked[:most]:
        position = max(tokens.positions(word), key=lambda p: logits[p].item())
        title = f"“{tokens.word(word)}” was replaced: {_probability(odds[word])}"
        found.append(Question(title, LOG_ODDS, lambda out, p=position: out[1][:, p]))
    verdict = f"Held for replaced: {said}" if suspected else f"Nothing is held for replaced; nearest is {said}"
    return verdict, found, torch.sigmoid(logits).tolist()


def _answer(tokens: Tokens, output: tuple) -> tuple[str, list[Question], None]:
    """The best span of the second text. Its number is the sum of the log-odds of start and end."""
    _, start, end = output
    inside = torch.tensor([segment == 1 for segment in tokens.segments])
    if not inside.any():
        raise ConfigError("second is needed: the text that the question is about")
    first = int(inside.nonzero()[0])
    last = int(inside.nonzero()[-1]) + 1
    sums = start[0, first:last, None] + end[0, None, first:last]
    spans = torch.ones_like(sums, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
    best = int(sums.masked_fill(~spans, -math.inf).argmax())
    begin, finish = first + best // len(sums), first + best % len(sums)
    pieces = zip(tokens.spaces[begin : finish + 1], tokens.pieces[begin : finish + 1], strict=True)
    answer = "".join(" " * space + piece for space, piece in pieces).strip()
    shares = (torch.softmax(x[0], -1)[place].item() for x, place in ((start, begin), (end, finish)))
    verdict = f"Answer: “{answer}” (probability of its start {next(shares):.0%}, of its end {next(shares):.0%})"
    if (start[0, 0] + end[0, 0]).item() > sums[begin - first, finish - first].item():
        verdict += "; a model that may say that there is no answer says so here"

    def number(out: tuple) -> Tensor:
        return log_odds(out[1], begin) + log_odds(out[2], finish)

    return verdict, [Question(f"The answer is “{answer}”", f"{LOG_ODDS} of start and end", number)], None


def _tags(
    tokens: Tokens, logits: Tensor, names: dict[int, str], chosen: int | None, most: int
) -> tuple[str, list[Question], None]:
    """Words that are tagged, by their first tokens; with ``chosen``, the words nearest to that tag."""
    firsts = [tokens.positions(word)[0] for word in range(tokens.word_count)]
    tags = logits.argmax(-1)
    tagged = [(p, int(tags[p])) for p in firsts if names[int(tags[p])] != "O"]
    said = ", ".join(f"“{tokens.word(tokens.words[p])}” {names[tag]}" for p, tag in tagged)
    if chosen is None:
        asked = tagged
        if not asked:  # the nearest to being something
            every = [(position, tag) for position in firsts for tag in names if names[tag] != "O"]
            asked = [max(every, key=lambda place: _odds(logits, place))]
    else:
        asked = [(p, chosen) for p in firsts]
    asked = sorted(asked, key=lambda place: -_odds(logits, place))[:most]
    found = []
    for position, tag in sorted(asked):
        word = tokens.word(tokens.words[position])
        title = f"“{word}” is {names[tag]}: {_probability(_odds(logits, (position, tag)))}"
        found.append(Question(title, LOG_ODDS, lambda out, p=position, c=tag: log_odds(out[1][:, p], c)))
    return f"Tagged: {said}" if tagged else "No word is tagged", found, None


def _odds(logits: Tensor, place: tuple[int, int]) -> float:
    return log_odds(logits[place[0]], place[1]).item()


def _sentence(
    model: nn.Module, logits: Tensor, names: dict[int, str], chosen: int | None
) -> tuple[str, list[Question], None]:
    kind = model.config.problem_type
    if kind == "regression" or len(logits) == 1:
        verdict = f"{names[0] if names[0] != 'LABEL_0' else 'Value'}: {logits[0].item():.4g}"
        return verdict, [Question(verdict, "its value", lambda out: out[1][:, 0])], None
    label = int(logits.argmax()) if chosen is None else chosen
    if kind == "multi_label_classification":
        probabilities = torch.sigmoid(logits).tolist()
        said = [f"{names[i]} ({p:.1%})" for i, p in enumerate(probabilities) if p > 0.5]
        title = f"{names[label]}: {probabilities[label]:.1%}"
        question = Question(title, LOG_ODDS, lambda out: out[1][:, label])
        return f"Labels: {', '.join(said) or 'none'}", [question], None
    odds = log_odds(logits, label).item()
    best = int(logits.argmax())
    verdict = f"{names[best]} ({_probability(log_odds(logits, best).item())})"
    question = Question(f"{names[label]}: {_probability(odds)}", LOG_ODDS, lambda out: log_odds(out[1], label))
    return verdict, [question], None


def _probability(odds: float) -> str:
    return f"{1 / (1 + math.exp(-odds)):.1%}"


def _index(label: str, names: dict[int, str]) -> int:
    for index, name in names.items():
        if name == label:
            return index
    raise ConfigError(f"label must be one of {', '.join(map(repr, names.values()))}, got {label!r}")


def _only_with_labels(label: str | None, model: nn.Module) -> None:
    if label is not None:
        raise ConfigError(f"label goes with a model that has labels; this is a {type(model).__name__}")
