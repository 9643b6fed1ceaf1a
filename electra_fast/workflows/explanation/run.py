"""From a directory and a text to an explanation."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from electra_fast.data.hygiene import HygienePolicy
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.models import ElectraForQuestionAnswering, ElectraForSequenceClassification, load_pretrained
from electra_fast.workflows.evaluation.calibration import read_temperature
from electra_fast.workflows.finetuning.model_directory import TASK_NAME, load_task_file

from .attention import attention_probabilities
from .gradients import Attribution, integrated_gradients
from .reasons import questions
from .tokens import SPECIAL, Tokens, tokens_of

BASELINES = ("pad", "mask")
MOST_DRAWN = 256  # tokens: the pictures of attention of more make a page of tens of megabytes
_INSIDE = ("", "best", "model/discriminator", "discriminator")


@dataclass(frozen=True)
class Reason:
    """What spoke for one thing that the model says.

    Attributes:
        title: that thing. unit: of the number that was attributed.
        attribution: to the tokens. words: its sums over each word's tokens.
    """

    title: str
    unit: str
    attribution: Attribution
    words: list[float]


@dataclass(frozen=True)
class Explanation:
    """What a model says of a text, and why.

    Attributes:
        verdict: what it says, in words.
        baseline: the token that stands for "nothing here".
        probabilities: of each token to have been replaced; of a discriminator only.
        attention: ``[layers, heads, S, S]``; None if it was not asked for, or of more than `MOST_DRAWN` tokens.
    """

    model: str
    verdict: str
    tokens: Tokens
    baseline: str
    reasons: list[Reason]
    probabilities: list[float] | None
    attention: Tensor | None


def explain(
    model: str | os.PathLike[str],
    text: str,
    second: str | None = None,
    *,
    label: str | None = None,
    baseline: str = "pad",
    steps: int = 32,
    tolerance: float = 1e-3,
    most: int = 3,
    attention: bool = True,
) -> Explanation:
    """Attribute what a model says of a text to the words, and take down where its heads look.

    Args:
        model: a fine-tuned directory, the run it is in, a pretraining run (its discriminator is explained), or any
            Hugging Face ELECTRA for classification, token classification, question answering or pretraining.
        text: a sentence, the first of a pair, or the question.
        second: the second of a pair, or the text that the question is about.
        label: to explain in place of the one the model gives.
        baseline: "pad" or "mask": the embedding of [PAD] or of [MASK] is what the text is compared with.
        steps: points of the integral to begin with (`integrated_gradients`).
        tolerance: how much of the difference may be left over, before more points are taken.
        most: of words that are explained, where each word has a label of its own.
        attention: of texts up to `MOST_DRAWN` tokens.

    Raises:
        CheckpointError: no model there. ConfigError: a head that cannot be explained, or an argument out of range.
        DataError: a text without a word.
    """
    if baseline not in BASELINES:
        raise ConfigError(f"baseline must be {' or '.join(BASELINES)}, got {baseline!r}")
    for name, value in (("steps", steps), ("most", most)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if not tolerance > 0:
        raise ConfigError(f"tolerance must be greater than 0, got {tolerance}")
    directory = _directory(Path(model))
    longest, policy = _as_predicted(directory)
    network = load_pretrained(directory, dtype=torch.float32).requires_grad_(False)
    _temper(network, directory)
    tokenizer = Tokenizer.load(directory)
    asks = isinstance(network, ElectraForQuestionAnswering)
    if asks and second is None:
        raise ConfigError("second is needed: the text that the question is about")
    longest = min(longest, network.config.max_position_embeddings)
    tokens = tokens_of(tokenizer, policy.value(text), policy.value(second), longest, cut_second=asks)
    with torch.no_grad():
        output = network(tokens.ids[None], token_type_ids=tokens.types[None])
    verdict, found, probabilities = questions(network, tokens, output, label, most)
    stand_in = tokenizer.pad_id if baseline == "pad" else tokenizer.mask_id
    reasons = []
    for question in found:
        attribution = integrated_gradients(
            network,
            tokens.ids,
            tokens.types,
            tokens.baseline(stand_in),
            question.number,
            steps=steps,
            tolerance=tolerance,
        )
        reasons.append(Reason(question.title, question.unit, attribution, _by_word(tokens, attribution.scores)))
    drawn = attention and len(tokens.ids) <= MOST_DRAWN
    return Explanation(
        model=str(model),
        verdict=verdict,
        tokens=tokens,
        baseline=tokenizer.token(stand_in),
        reasons=reasons,
        probabilities=probabilities,
        attention=attention_probabilities(network, tokens.ids, tokens.types) if drawn else None,
    )


def _as_predicted(directory: Path) -> tuple[float, HygienePolicy]:
    """Most tokens, and what is done to texts, when this model predicts; of a model that is for no task, nothing."""
    unchanged = HygienePolicy(normalize="none", control_characters="keep")
    if not (directory / TASK_NAME).is_file():
        return math.inf, unchanged
    task, policy, _ = load_task_file(directory)
    if task.name == "translation":
        raise ConfigError(f"model {directory} translates, which cannot be explained: a label or a piece of text can")
    return task.max_length, policy if task.texts else unchanged


def _temper(network: nn.Module, directory: Path) -> None:
    """Have the model as sure as it is when it predicts."""
    temperature = read_temperature(directory)
    if temperature is not None and isinstance(network, ElectraForSequenceClassification):
        for parameter in network.classifier.out_proj.parameters():
            parameter.div_(temperature.value)


def _by_word(tokens: Tokens, scores: list[float]) -> list[float]:
    sums = [0.0] * tokens.word_count
    for word, score in zip(tokens.words, scores, strict=True):
        if word != SPECIAL:
            sums[word] += score
    return sums


def _directory(model: Path) -> Path:
    for inner in _INSIDE:
        if (model / inner / "config.json").is_file():
            return model / inner
    raise CheckpointError(
        f"{model} holds no model (no config.json there, nor in best or model/discriminator): give a fine-tuned "
        "directory, or that of a finished run"
    )
