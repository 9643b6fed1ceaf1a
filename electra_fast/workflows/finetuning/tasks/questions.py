"""Extractive question answering: the piece of a text that answers a question, or that there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from electra_fast.extras import require
from electra_fast.workflows.finetuning.checkpoint import load_model, make_model
from electra_fast.workflows.finetuning.task import Columns, Task, refuse_fill_label

from .question_files import read_questions
from .spans import Span, best_spans, softmax
from .squad_metrics import answer_f1, best_threshold, exact_match
from .windows import windows
from .words import whole_characters

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase
    from typing_extensions import Self

    from electra_fast.data.hygiene import HygienePolicy, HygieneReport
    from electra_fast.workflows.finetuning.options import FinetuneOptions

_LENGTH = 384


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """``[CLS] question [SEP] window of the context [SEP]``; two logits a token: answers begin here, end here.

    Questions and contexts are read as they are, since answers are characters of them; the tokenizer normalises them and
    keeps account. A window that does not hold the whole answer is trained to point to [CLS].

    Attributes:
        overlap: tokens that neighbouring windows of a context share; at most half a window.
        max_question: tokens that a longer question is cut to.
        max_answer: most tokens of an answer.
        n_best: answers that a prediction lists.
        null_threshold: None: every question gets an answer (SQuAD 1.1). Otherwise (2.0) none is given where [CLS]
            scores higher than the best answer by more than this.
    """

    name: ClassVar[str] = "qa"
    inputs: ClassVar[tuple[str, ...]] = ("question", "context")
    texts: ClassVar[tuple[str, ...]] = ()
    label: ClassVar[str] = "answers"
    model_inputs: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "start_positions", "end_positions")
    default_epochs: ClassVar[float] = 2.0

    overlap: int = 128
    max_question: int = 64
    max_answer: int = 30
    n_best: int = 20
    null_threshold: float | None = None

    @property
    def metric(self) -> str:
        return "f1"

    @classmethod
    def from_options(cls, options: FinetuneOptions, longest: int) -> Self:
        refuse_fill_label(options, "answers in a text")
        length = min(options.max_length or _LENGTH, longest)
        return cls(max_length=length, overlap=options.doc_stride, max_question=min(64, (length - 3) // 2))

    def read(self, path: str | Path, *, labelled: bool = True) -> Dataset:
        return read_questions(path, labelled=labelled)

    def clean(self, examples: Dataset, policy: HygienePolicy) -> tuple[Dataset, HygieneReport]:
        """Questions that are there twice are counted; no text is changed."""
        from electra_fast.data.hygiene import clean

        unchanged = dataclasses.replace(policy, normalize="none", control_characters="keep")
        return clean(examples, unchanged, texts=self.inputs, label=self.label)

    def learn(self, train: Dataset) -> Self:
        """Whether there are questions without an answer. The threshold is 0 until `settle` has found a better one."""
        some_without = any(not answers["text"] for answers in train["answers"])
        return dataclasses.replace(self, null_threshold=0.0 if some_without else None)

    def settle(self, predictions: Sequence[Mapping[str, Any]], examples: Columns) -> Self:
        """The threshold that gives the highest F1 on these."""
        if self.null_threshold is None:
            return self
        threshold, _ = best_threshold(*_answered_or_not(predictions, examples, answer_f1))
        return dataclasses.replace(self, null_threshold=threshold)

    def accept(self, item: str | Mapping[str, Any]) -> dict[str, Any]:
        """``question`` and ``context``."""
        return {name: whole_characters(text) for name, text in super().accept(item).items()}

    def model(self, checkpoint: str, *, pretrained: bool = True, dropout: float = 0.1) -> nn.Module:
        return make_model(_head(), checkpoint, pretrained=pretrained, dropout=dropout)

    def load(self, directory: str | Path) -> nn.Module:
        return load_model(_head(), directory)

    def features(self, examples: Columns, tokenizer: PreTrainedTokenizerBase, training: bool) -> dict[str, list]:
        questions = _encoded(tokenizer, examples["question"])
        contexts = _encoded(tokenizer, examples["context"])
        names = ["example", "input_ids", "token_type_ids", "cut"]
        names += ["start_positions", "end_positions"] if training else ["first", "own", "starts", "ends"]
        rows: dict[str, list] = {name: [] for name in names}
        for example, (question, context) in enumerate(zip(examples["question"], examples["context"], strict=True)):
            asked = questions[question].ids[: self.max_question]
            ids, starts, ends = contexts[context]
            first = len(asked) + 2
            size = self.max_length - first - 1
            answer = _tokens_of(examples["answers"][example], starts, ends) if training else None
            for window in windows(len(ids), size, min(self.overlap, size // 2)):
                inside = ids[window.start : window.end]
                rows["example"].append(example)
                rows["cut"].append(len(questions[question].ids) > self.max_question)
                sep = tokenizer.sep_token_id
                rows["input_ids"].append([tokenizer.cls_token_id, *asked, sep, *inside, sep])
                rows["token_type_ids"].append([0] * first + [1] * (len(inside) + 1))
                if training:
                    there = answer is not None and window.start <= answer[0] and answer[1] < window.end
                    for name, token in zip(("start_positions", "end_positions"), answer or (0, 0), strict=True):
                        rows[name].append(first + token - window.start if there else 0)
                else:
                    rows["first"].append(first)
                    rows["own"].append([window.own_start - window.start, window.own_end - window.start])
                    rows["starts"].append(starts[window.start : window.end])
                    rows["ends"].append(ends[window.start : window.end])
        return rows

    def infer(self, model: nn.Module, batch: dict[str, Tensor]) -> list[np.ndarray]:
        """``[2, tokens]`` of each row: the logits of an answer's first and of its last token."""
        outputs = model(**batch)
        logits = np.stack([outputs.start_logits.float().cpu().numpy(), outputs.end_logits.float().cpu().numpy()], 1)
        lengths = batch["attention_mask"].sum(1).tolist()
        return [row[:, :length] for row, length in zip(logits, lengths, strict=True)]

    def decode(self, outputs: Sequence[np.ndarray], rows: Columns, examples: Columns) -> list[dict[str, Any]]:
        """``answer``, ``start``, ``end`` (characters of the context), ``probability``, ``n_best`` of the same.

        Probabilities are among what is listed (and no answer). With a threshold also ``no_answer_margin``, the lowest
        score of [CLS] in any window less that of the best answer; an ``answer`` not given is empty, without place.
        """
        found: list[list[Span]] = [[] for _ in examples["context"]]
        null = [np.inf] * len(found)
        for row, (example, logits) in enumerate(zip(rows["example"], outputs, strict=True)):
            null[example] = min(null[example], float(logits[0, 0]) + float(logits[1, 0]))
            place = (rows["starts"][row], rows["ends"][row], rows["first"][row], tuple(rows["own"][row]))
            found[example] += best_spans(logits, *place, self.max_answer, self.n_best)
        return [
            self._prediction(sorted(spans, reverse=True)[: self.n_best], none, context)
            for spans, none, context in zip(found, null, examples["context"], strict=True)
        ]

    def _prediction(self, spans: list[Span], none: float, context: str) -> dict[str, Any]:
        scores = [span.score for span in spans]
        shares = softmax(scores if self.null_threshold is None else [*scores, none])
        n_best = [
            {"answer": context[start:end], "start": start, "end": end, "probability": share}
            for (_, start, end), share in zip(spans, shares, strict=False)
        ]
        prediction: dict[str, Any] = {"answer": "", "start": None, "end": None, "probability": 1.0}
        if self.null_threshold is not None:
            margin = none - scores[0] if scores else np.finfo(np.float32).max.item()
            prediction |= {"probability": shares[-1], "no_answer_margin": margin}
            if margin > self.null_threshold:
                return prediction | {"n_best": n_best}
        return prediction | (n_best[0] if n_best else {}) | {"n_best": n_best}

    def _answer(self, prediction: Mapping[str, Any]) -> str:
        if self.null_threshold is None:
            return prediction["answer"]
        given = prediction["n_best"] and prediction["no_answer_margin"] <= self.null_threshold
        return prediction["n_best"][0]["answer"] if given else ""

    def score(self, predictions: Sequence[Mapping[str, Any]], examples: Columns) -> dict[str, float]:
        """``exact_match`` and ``f1``; where questions may have no answer, also of both kinds of questions
        (``has_answer_…``, ``no_answer_…``), and with the best threshold for these very questions (``best_…``).

        Answers are given or not by this task's threshold, whatever it was when the predictions were made.
        """
        answers = [self._answer(prediction) for prediction in predictions]
        gold = [answers["text"] for answers in examples["answers"]]
        scores = {}
        for name, value in (("exact_match", exact_match), ("f1", answer_f1)):
            values = np.array([value(answer, texts) for answer, texts in zip(answers, gold, strict=True)])
            has_answer = np.array([bool(texts) for texts in gold])
            scores[name] = float(values.mean())
            if self.null_threshold is None:
                continue
            for kind, of in (("has_answer", has_answer), ("no_answer", ~has_answer)):
                if of.any():
                    scores[f"{kind}_{name}"] = float(values[of].mean())
            scores[f"best_{name}"] = best_threshold(*_answered_or_not(predictions, examples, value))[1]
        return scores


def _head() -> type[nn.Module]:
    return require("transformers", "finetune", "question answering").ElectraForQuestionAnswering


class _Encoded(tuple):
    """(ids, characters where tokens begin, where they end) of a text."""

    @property
    def ids(self) -> list[int]:
        return self[0]


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, _Encoded]:
    """Every different text once: contexts come with several questions each."""
    different = list(dict.fromkeys(texts))
    if not different:
        return {}
    found = tokenizer(different, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return {
        text: _Encoded((ids, [start for start, _ in offsets], [end for _, end in offsets]))
        for text, ids, offsets in zip(different, found["input_ids"], found["offset_mapping"], strict=True)
    }


def _tokens_of(answers: Mapping[str, Sequence[Any]], starts: list[int], ends: list[int]) -> tuple[int, int] | None:
    """First and last token that share characters with the first answer; None: there is no answer, or no such token."""
    if not answers["text"]:
        return None
    begin = answers["answer_start"][0]
    end = begin + len(answers["text"][0])
    tokens = [token for token in range(len(starts)) if starts[token] < end and ends[token] > begin]
    return (tokens[0], tokens[-1]) if tokens else None


def _answered_or_not(
    predictions: Sequence[Mapping[str, Any]], examples: Columns, value: Any
) -> tuple[list[float], list[float], list[float]]:
    """What `best_threshold` takes: of each question the value of its best answer, of no answer, and the margin."""
    gold = [answers["text"] for answers in examples["answers"]]
    best = [prediction["n_best"][0]["answer"] if prediction["n_best"] else "" for prediction in predictions]
    values = [value(answer, texts) for answer, texts in zip(best, gold, strict=True)]
    return values, [float(not texts) for texts in gold], [prediction["no_answer_margin"] for prediction in predictions]
