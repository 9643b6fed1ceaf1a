"""A task whose loss also follows a teacher: how students are taught, and pruned networks get back what they lost.

``loss = (1 - w) · task + w · T² · KL(teacher at T ‖ student at T) + v · hidden``. The middle part is that of Hinton,
Vinyals and Dean (2015). The last compares the hidden states of each student layer with those of the teacher's layer
that it takes after (`student.teacher_layer`): of equal width by their squared distance, else by the cosines between a
sequence's tokens, which need no projection (similarity-preserving distillation: Tung and Mori, ICCV 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from electra_fast.workflows.finetuning.task import Task

from .student import teacher_layer

_SPANS = ("start_logits", "end_logits")
_NEVER = -1e4  # the logit of padding, which no answer begins or ends in
_TARGETS = ("labels", "start_positions", "end_positions")


@dataclass(frozen=True)
class Lesson:
    """How much of the loss is the teacher's.

    Attributes:
        temperature: T, by which logits are divided. soft_weight: w. hidden_weight: v.
    """

    temperature: float
    soft_weight: float
    hidden_weight: float


class Taught:
    """A task in all but its loss, which is computed with a teacher beside the student."""

    def __init__(self, task: Task, teacher: nn.Module, lesson: Lesson) -> None:
        self._task = task
        self._teacher = teacher.eval().requires_grad_(False)
        self._lesson = lesson

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The sum above, for a batch with labels."""
        lesson = self._lesson
        hidden = lesson.hidden_weight > 0
        student = _Listener(model, hidden)
        loss = self._task.loss(student, batch)
        inputs = {name: value for name, value in batch.items() if name not in _TARGETS}
        with torch.no_grad():
            taught = self._teacher(**inputs, output_hidden_states=hidden)
        mask = batch["attention_mask"]
        soft = _imitation(self._task, student.heard, taught, mask, lesson.temperature)
        loss = (1 - lesson.soft_weight) * loss + lesson.soft_weight * soft
        if hidden:
            loss = loss + lesson.hidden_weight * _hidden(student.heard, taught, mask.flatten(0, -2).bool())
        return loss


class _Listener:
    """A model that is called as ever, and whose outputs are kept: the task's loss and the teacher share one pass."""

    def __init__(self, model: nn.Module, hidden: bool) -> None:
        self._model, self._hidden = model, hidden
        self.heard: Any = None

    def __call__(self, **inputs: Tensor) -> Any:
        self.heard = self._model(**inputs, output_hidden_states=self._hidden)
        return self.heard


def _imitation(task: Task, student: Any, teacher: Any, mask: Tensor, temperature: float) -> Tensor:
    """How far the student's outputs are from the teacher's: T² times KL or the sigmoids' cross-entropy, or squares."""
    if hasattr(student, "start_logits"):
        pairs = [(student[name], teacher[name]) for name in _SPANS]
        outside = ~mask.bool()
        pairs = [tuple(x.float().masked_fill(outside, _NEVER) for x in pair) for pair in pairs]
    else:
        pairs = [(student.logits.float(), teacher.logits.float())]
        if pairs[0][0].dim() == 3:
            pairs = [tuple(x[mask.bool()] for x in pairs[0])]
    problem = getattr(task, "problem", None)
    if problem == "regression":
        return sum(functional.mse_loss(a, b) for a, b in pairs)
    if problem == "multi":
        measure = _sigmoid_cross_entropy
    else:
        measure = _divergence
    return temperature**2 * sum(measure(a / temperature, b / temperature) for a, b in pairs) / len(pairs)


def _sigmoid_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(student, teacher.sigmoid())


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    a, b = functional.log_softmax(student, -1), functional.log_softmax(teacher, -1)
    return functional.kl_div(a, b, reduction="batchmean", log_target=True)


def _hidden(student: Any, teacher: Any, mask: Tensor) -> Tensor:
    """Mean over the student's layers.

    Args:
        mask: bool [rows, tokens].
    """
    layers = len(student.hidden_states) - 1
    total = torch.zeros((), device=mask.device)
    for i in range(layers):
        a = student.hidden_states[1 + i].float()
        b = teacher.hidden_states[1 + teacher_layer(i, layers, len(teacher.hidden_states) - 1)].float()
        if a.shape == b.shape:
            total = total + functional.mse_loss(a[mask], b[mask]) / b[mask].square().mean()
        else:
            both = mask.unsqueeze(1) & mask.unsqueeze(2)
            total = total + functional.mse_loss(_cosines(a)[both], _cosines(b)[both])
    return total / layers


def _cosines(hidden: Tensor) -> Tensor:
    """[rows, tokens, n] to [rows, tokens, tokens]."""
    unit = functional.normalize(hidden, dim=-1)
    return unit @ unit.transpose(1, 2)
