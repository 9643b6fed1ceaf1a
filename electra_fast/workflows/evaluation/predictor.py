"""A fine-tuned model at work: inputs of any number, one after the other, to predictions in the same order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from electra_fast.data.hygiene import HygienePolicy
from electra_fast.errors import ConfigError, DataError
from electra_fast.extras import require
from electra_fast.models.accelerate import accelerate
from electra_fast.workflows.finetuning.checkpoint import load_tokenizer
from electra_fast.workflows.finetuning.model_directory import find_model, load_task_file
from electra_fast.workflows.finetuning.task import Columns, Task
from electra_fast.workflows.pretraining.build import choose_device
from electra_fast.workflows.pretraining.calibrate import why_no_bf16

from .calibration import read_temperature

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRECISIONS = ("auto", "fp32", "bf16", "int8")
Input = str | Mapping[str, Any]


class Encoded(NamedTuple):
    """Inputs as the model reads them: `examples` are theirs, `rows` the sequences made of them, `lengths` in tokens."""

    examples: dict[str, list]
    rows: dict[str, list]
    lengths: list[int]


class Predictor:
    """Makes predictions: ``for prediction in predictor(inputs)``, or ``predictor.predict([…])`` for a list.

    Inputs are texts, or objects with the columns of ``task.inputs``; a prediction is a dict of JSON values
    (`Task.decode`). Reading, cleaning, batching and decoding are the same as in training's evaluation.
    `encode`, `infer` and `decode` are the three steps one by one, for whoever fills batches from several requests.

    Attributes:
        task, model, tokenizer, policy: what predictions are made with; the model is in evaluation mode.
        precision: what is computed in: fp32, bf16 or int8.
        batch_tokens: most tokens of a batch, padding not counted (one longer row is a batch of its own).
        temperature: what logits are divided by, so that probabilities are right (`calibration.Temperature`).
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        policy: HygienePolicy,
        *,
        precision: str = "fp32",
        autocast: bool = False,
        batch_tokens: int = 8192,
        temperature: float = 1.0,
    ) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.task = task
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.policy = policy
        self.precision = precision
        self.batch_tokens = batch_tokens
        self.temperature = temperature
        self._autocast = autocast
        self.device = next(model.parameters()).device

    def __call__(self, inputs: Iterable[Input], *, window: int = 1024) -> Iterator[dict[str, Any]]:
        """Predictions of any number of inputs, in their order; see `stream`.

        Raises:
            DataError: an input is not what the task needs; those before it are predicted first.
        """

        def accepted() -> Iterator[dict[str, Any]]:
            for number, item in enumerate(inputs, 1):
                try:
                    yield self.accept(item)
                except DataError as error:
                    raise DataError(f"input {number}: {error}") from None

        return self.stream(accepted(), window=window)

    def stream(self, examples: Iterable[Mapping[str, Any]], *, window: int = 1024) -> Iterator[dict[str, Any]]:
        """Predictions of examples (of `accept`), in their order.

        They are taken in windows, sorted by length inside each. The first is one example, each next one twice as large
        up to ``window``: first answers come soon, and a long stream runs at full speed. Where the examples end in a
        DataError, those before it are predicted first.
        """
        source, size = iter(examples), 1
        mistake: DataError | None = None
        while mistake is None:
            taken: list[Mapping[str, Any]] = []
            try:
                taken.extend(islice(source, min(size, window)))
            except DataError as error:
                mistake = error
            if taken:
                yield from self.predict_columns(columns_of(taken))
            elif mistake is None:
                return
            size *= 2
        raise mistake

    def predict(self, inputs: Sequence[Input]) -> list[dict[str, Any]]:
        """Predictions of a list of inputs.

        Raises:
            DataError: an input is not what the task needs.
        """
        return self.predict_columns(columns_of([self.accept(item) for item in inputs]))

    def predict_columns(self, examples: Columns) -> list[dict[str, Any]]:
        """Predictions of examples under the task's canonical names (`Task.read`, `Task.clean`)."""
        encoded = self.encode_columns(examples)
        if not encoded.lengths:
            return []
        return self.decode(self.infer(encoded.rows, encoded.lengths), encoded)

    def accept(self, item: Input) -> dict[str, Any]:
        """One input as an example, its texts normalised as those of training were. DataError: it is not usable."""
        example = self.task.accept(item)
        return {name: self.policy.value(v) if name in self.task.texts else v for name, v in example.items()}

    def encode(self, inputs: Sequence[Input]) -> Encoded:
        """Inputs as rows. DataError: one is not what the task needs."""
        return self.encode_columns(columns_of([self.accept(item) for item in inputs]))

    def encode_columns(self, examples: Columns) -> Encoded:
        """Examples as rows."""
        return encode(self.task, self.tokenizer, examples)

    def infer(self, rows: Columns, lengths: Sequence[int]) -> list[Any]:
        """What the model says of each row (`Task.infer`), computed in batches of rows of similar length."""
        outputs: list[Any] = [None] * len(lengths)
        for batch in batches(lengths, self.batch_tokens):
            found = self.run([{name: values[i] for name, values in rows.items()} for i in batch])
            for index, output in zip(batch, found, strict=True):
                outputs[index] = output
        return outputs

    @torch.no_grad()
    def run(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """`Task.infer` of one batch."""
        batch = self.task.collate(rows, self.tokenizer.pad_token_id)
        inputs = {name: value.to(self.device) for name, value in batch.items() if name != "labels"}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
            return self.task.infer(self.model, inputs)

    def decode(self, outputs: Sequence[Any], encoded: Encoded) -> list[dict[str, Any]]:
        """One prediction for each example."""
        if self.temperature != 1.0:
            outputs = [output / self.temperature for output in outputs]
        return self.task.decode(outputs, encoded.rows, encoded.examples)


def load_task(
    model: str | os.PathLike[str],
    *,
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    batch_tokens: int = 8192,
    backend: str = "electra_fast",
) -> Predictor:
    """Load a fine-tuned model, ready to predict.

    Args:
        model: a directory that `finetune` wrote.
        precision: fp32; bf16: the encoder's weights and activations, the head's stay fp32; int8: products of the
            encoder's layers, on a CPU that has instructions for them (which costs some accuracy: measure it with
            electra-fast evaluate); auto: what the model was compressed to, else bf16 where the hardware multiplies it
            faster.
        device: cpu, cuda, cuda:1, … or auto: a GPU if there is one.
        threads: of the CPU, for the whole process. Default: torch's.
        batch_tokens: most tokens of a batch.
        backend: "transformers": without our kernels, for comparison; in fp32.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
        ConfigError: an option that cannot be, or is not possible on this machine.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {precision!r}")
    if backend not in ("electra_fast", "transformers"):
        raise ConfigError(f"backend must be electra_fast or transformers, got {backend!r}")
    if backend == "transformers" and precision not in ("auto", "fp32"):
        raise ConfigError(f"backend transformers computes in fp32, got precision {precision!r}")
    directory = find_model(Path(model))
    task, policy, said = load_task_file(directory)
    where = choose_device(device)
    if precision == "auto" and backend == "electra_fast" and where.type == "cpu":
        precision = said.get("precision", "auto")  # of a model that was compressed to 8 bits
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)
    require("transformers", "finetune", "a fine-tuned model")
    network = task.load(directory).eval().to(where)
    if backend == "electra_fast":
        precision = _accelerated(network, precision, where)
    else:
        precision = "fp32"
    tokenizer = load_tokenizer(directory)
    fitted = read_temperature(directory)
    return Predictor(
        task,
        network,
        tokenizer,
        policy,
        precision=precision,
        batch_tokens=batch_tokens,
        temperature=1.0 if fitted is None else fitted.value,
    )


def _accelerated(model: nn.Module, precision: str, device: torch.device) -> str:
    """Put the model on our ops, in a precision; returns which."""
    if precision == "auto":
        precision = "fp32" if why_no_bf16(device) else "bf16"
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):  # on our ops as it was made
        if precision == "int8":
            raise ConfigError("precision int8 is for transformers' models, which this is not: use bf16 or fp32")
        model.to(torch.bfloat16 if precision == "bf16" else torch.float32)
        return precision
    try:
        accelerate(model, dtype=torch.int8 if precision == "int8" else None)
    except RuntimeError as error:
        raise ConfigError(f"precision int8 is not possible here: {str(error).partition(': ')[2]}") from None
    if precision == "bf16":
        encoder_in_bfloat16(model)
    return precision


def encoder_in_bfloat16(model: nn.Module) -> None:
    """Convert the encoders in a model to bfloat16; heads stay float32 and get float32, so that close scores differ."""
    from transformers import ElectraModel

    def widen(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0].float(), *output[1:])
        output.last_hidden_state = output.last_hidden_state.float()
        return output

    for module in model.modules():
        if isinstance(module, ElectraModel):
            module.to(torch.bfloat16)
            module.register_forward_hook(widen)


def encode(task: Task, tokenizer: PreTrainedTokenizerBase, examples: Columns) -> Encoded:
    """Examples as rows; none as none."""
    if not any(len(values) for values in examples.values()):
        return Encoded({}, {}, [])
    rows = task.features(examples, tokenizer, training=False)
    return Encoded(dict(examples), rows, task.row_lengths(rows))


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of rows in batches of similar length: at most ``most`` tokens each, the longest rows first."""
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and tokens + lengths[index] > most:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def columns_of(examples: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    """Examples one by one to columns."""
    return {name: [example[name] for example in examples] for name in examples[0]} if examples else {}
