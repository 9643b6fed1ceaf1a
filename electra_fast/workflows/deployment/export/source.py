"""The model that is exported, as `transformers` alone has it: the truth that every format is compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.extras import require
from electra_fast.workflows.deployment.quiet import errors_only
from electra_fast.workflows.evaluation.calibration import read_temperature
from electra_fast.workflows.finetuning.checkpoint import load_config, load_tokenizer, resolve

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

TASK_FILE = "task.json"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Head:
    """What a class returns.

    Attributes:
        outputs: the names of its outputs.
        per_token: whether they have a value for each token, those at padding saying nothing.
        choices: whether the inputs are [batch, choices, tokens] instead of [batch, tokens].
    """

    outputs: tuple[str, ...]
    per_token: bool
    choices: bool = False

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of the dimensions of every input; all may have any length."""
        return ("batch", "choices", "tokens") if self.choices else ("batch", "tokens")


HEADS = {
    "ElectraModel": Head(("last_hidden_state",), per_token=True),
    "ElectraForPreTraining": Head(("logits",), per_token=True),
    "ElectraForMaskedLM": Head(("logits",), per_token=True),
    "ElectraForSequenceClassification": Head(("logits",), per_token=False),
    "ElectraForTokenClassification": Head(("logits",), per_token=True),
    "ElectraForQuestionAnswering": Head(("start_logits", "end_logits"), per_token=True),
    "ElectraForMultipleChoice": Head(("logits",), per_token=False, choices=True),
}


class Network(nn.Module):
    """A `transformers` model with tensors in and a tuple of tensors out, which needs no class of theirs to be read."""

    def __init__(self, model: nn.Module, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        """int64 inputs of `Head.dimensions`; the outputs in the order of `Head.outputs`."""
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return tuple(found[name] for name in self.outputs)


@dataclass(frozen=True)
class Source:
    """Where a model lies, and what of it the formats need.

    Attributes:
        temperature: what logits are divided by for probabilities that are right, where `evaluate` fitted one. The
            outputs of an export are the logits as they are.
    """

    directory: str
    architecture: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    task: dict[str, Any] | None
    temperature: float | None = None

    @property
    def head(self) -> Head:
        return HEADS[self.architecture]

    @property
    def decision(self) -> str | None:
        """How a prediction is read off the outputs: "largest" along the last dimension, "sign", or None: not at all."""
        if self.architecture == "ElectraModel":
            return None
        if self.architecture == "ElectraForPreTraining":
            return "sign"
        if self.architecture == "ElectraForSequenceClassification":
            if self.config.problem_type == "multi_label_classification":
                return "sign"
            return None if self.config.num_labels == 1 else "largest"
        return "largest"

    @property
    def max_length(self) -> int:
        """Most tokens of an input: the task's, or the length of the position table."""
        longest = self.config.max_position_embeddings
        return longest if self.task is None else min(longest, self.task["state"]["max_length"])

    def network(self, attention: str) -> Network:
        """The model in float32, in evaluation mode, on the CPU, with the ``attention`` of that name in `transformers`.

        Raises:
            CheckpointError: a weight is missing or damaged.
        """
        import transformers

        cls = getattr(transformers, self.architecture)
        try:
            with errors_only():
                model, report = cls.from_pretrained(
                    self.directory,
                    dtype=torch.float32,
                    attn_implementation=attention,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                )
        except (OSError, ValueError, RuntimeError) as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise CheckpointError(f"{self.directory} cannot be loaded: {reason}") from error
        if missing := sorted(report["missing_keys"]):
            raise CheckpointError(
                f"{self.directory} has no weights for {missing[0]} of {self.architecture}: give a model whose head has "
                "been trained"
            )
        return Network(model.eval(), self.head.outputs).eval()


def open_source(model: str | Path) -> Source:
    """Find ``model``: a run of pretraining or fine-tuning, or any Hugging Face directory of an ELECTRA.

    Raises:
        CheckpointError: there is none, it is another kind of model, or it has no tokenizer.
        ConfigError: a model that cannot be exported; `transformers` is not installed.
    """
    require("transformers", "export", "exporting")
    directory = resolve(model)
    task = _read_task(Path(directory) / TASK_FILE)
    config = load_config(directory)
    architecture = (config.architectures or ["ElectraModel"])[0]
    if architecture not in HEADS:
        raise ConfigError(f"{directory} holds a {architecture}: what can be exported is {', '.join(HEADS)}")
    fitted = read_temperature(Path(directory))
    return Source(
        directory, architecture, config, load_tokenizer(directory), task, None if fitted is None else fitted.value
    )


def _read_task(path: Path) -> dict[str, Any] | None:
    """What fine-tuning wrote beside the weights; None where nothing was."""
    if not path.is_file():
        return None
    try:
        task = json.loads(path.read_text(encoding="utf-8"))
        name, _ = task["task"], task["state"]["max_length"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    if name == "translation":
        raise ConfigError(
            f"{path.parent} translates: an encoder with a decoder, which is not exported. It runs with electra_fast"
        )
    return task
