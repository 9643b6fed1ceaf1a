"""Every option of pretraining in one table.

The fields below are the options of the command line and the keys of the TOML file, under the same names. Those that
describe the network or ELECTRA's recipe bear the names of `ElectraConfig` and `PretrainingConfig`; left out, they have
the values of the chosen size. Importing this table does not import torch, so that the command line's help is quick.
"""

# ruff: noqa: RUF009, since _option() is only a dataclass field with its help

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_fast.errors import ConfigError

# What a resumed run may be given anew, because it does not change a single loss.
CHANGEABLE = frozenset(
    (
        "data",
        "data_cache",
        "output",
        "threads",
        "activation_checkpointing",
        "cuda_graph",
        "log_every",
        "eval_every",
        "eval_batches",
        "checkpoint_every",
        "checkpoint_minutes",
        "keep",
        "tensorboard",
        "wandb",
        "wandb_mode",
    )
)

PATHS = ("output", "data_cache", "init", "init_discriminator", "init_generator")


def _option(
    panel: str, help: str, default: Any = None, *, flags: tuple[str, ...] = (), choices: tuple[str, ...] = ()
) -> Any:
    """A field that is also an option: ``flags`` are further spellings on the command line."""
    metadata = {"panel": panel, "help": help, "flags": flags, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class PretrainOptions:
    """Options of a pretraining run; None means the value of the chosen size, or what the help says.

    Raises:
        ConfigError: an option is missing, ill-typed, out of range or at odds with another.
    """

    data: str | os.PathLike | tuple | list | None = _option(
        "Run", "Directory (or fsspec URL) that electra-fast prepare wrote; several to mix them (data_weights)."
    )
    data_weights: str | tuple | list | None = _option(
        "Run",
        "Shares of the tokens of several corpora, as 0.7,0.3. Default: their sizes: all are read equally often.",
    )
    shuffle: str = _option(
        "Run",
        "Over the whole corpus, or over shuffle_shards shards at a time: for data at a URL, or larger than memory.",
        "global",
        choices=("global", "shards"),
    )
    shuffle_shards: int = _option("Run", "Shards shuffled together with shuffle shards; as many more are fetched.", 8)
    data_cache: str | os.PathLike | None = _option(
        "Run", "Local directory for shards of data at a URL (s3://…). Default: data-cache in the output."
    )
    output: str | os.PathLike | None = _option("Run", "Directory for checkpoints, metrics and the trained model.")
    model: str = _option(
        "Run", "Size whose values the options below have unless given.", "small", choices=("small", "base", "large")
    )
    seed: int = _option("Run", "Of everything random: weights, order of examples, masks, samples, dropout.", 0)
    precision: str = _option(
        "Run",
        "bf16 is autocast, the weights stay fp32; auto is whichever a short measurement finds faster.",
        "auto",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = _option("Run", "cpu, cuda, cuda:1, … or auto: a GPU if there is one.", "auto")
    threads: int | None = _option("Run", "CPU threads. Default: torch's. Bit-equal results need an equal number.")
    compile: bool = _option("Run", "Compile the model with torch.compile.", False)
    cuda_graph: str = _option(
        "Run",
        "Record a step as a CUDA graph and replay it; auto: on a GPU, unless compiled or shared by several processes.",
        "auto",
        choices=("auto", "on", "off"),
    )
    activation_checkpointing: int = _option(
        "Run", "Every so many layers, compute one's activations again in backward to save memory; 1: all, 0: none.", 0
    )

    parallel: str = _option(
        "Devices",
        "Under torchrun. ddp: each device has everything; zero: a part of gradients and moments; fsdp: of weights too.",
        "ddp",
        choices=("ddp", "fsdp", "zero"),
    )
    ranks: int | None = _option(
        "Devices",
        "Processes that accumulation is meant for; another number then shares the same parts. Default: torchrun's.",
    )

    total_steps: int | None = _option("Schedule", "Optimiser steps. Default: the size's.", flags=("--steps",))
    max_time: str | float | None = _option(
        "Schedule",
        "Instead of steps, about how long to train (90, 5m, 1h30m); the speed is measured first.",
    )
    learning_rate: float | None = _option("Schedule", "Peak of lr · (1 - step/total)^power · min(1, step/warmup).")
    warmup_steps: int | None = _option(
        "Schedule", "Steps of warm-up. Default: the size's, but at most a tenth of all steps."
    )
    decay_power: float | None = _option("Schedule", "Power of the decay; 1 is linear.")
    batch_size: int | None = _option("Schedule", "Sequences of sequence_length tokens in an optimiser step.")
    accumulation: int = _option(
        "Schedule", "Parts that each process's share of a step is processed in, to save memory.", 1
    )

    on_nonfinite: str = _option(
        "Schedule",
        "What to do in a step whose loss or gradients are not finite: stop, or skip it (ten in a row stop the run).",
        "stop",
        choices=("stop", "skip"),
    )

    adam_beta1: float | None = _option("Optimiser", "Decay of the mean of the gradients.")
    adam_beta2: float | None = _option("Optimiser", "Decay of the mean of their squares.")
    adam_epsilon: float | None = _option("Optimiser", "Added to the root of the latter.")
    weight_decay: float | None = _option("Optimiser", "Decoupled, times the learning rate; not on biases, layer norms.")
    clip_norm: float | None = _option("Optimiser", "Global norm that gradients are clipped to.")

    init: str | os.PathLike | None = _option(
        "Continuing", "Start from the networks of a run, or of a directory with discriminator/ and generator/."
    )
    init_discriminator: str | os.PathLike | None = _option("Continuing", "Start from this Hugging Face directory.")
    init_generator: str | os.PathLike | None = _option("Continuing", "Start from this Hugging Face directory.")
    init_moments: bool = _option("Continuing", "With init of a run: take the optimiser's moments along, too.", False)
    transplant: bool = _option("Continuing", "The checkpoint has another vocabulary: move its embeddings.", False)

    objective: str | None = _option(
        "Objective",
        "electra; electric: energies, against a two-tower generator; mlm: one network, masked language modelling.",
        choices=("electra", "electric", "mlm"),
    )
    embedding_sharing: str | None = _option(
        "Objective",
        "Of both networks: full; gdes: the generator's without gradient plus differences (DeBERTaV3); none.",
        choices=("full", "gdes", "none"),
    )
    freeze_generator: bool | None = _option("Objective", "Leave the generator as it starts (Fast-ELECTRA).")
    masking: str | None = _option("Objective", "Mask single tokens or whole words.", choices=("token", "word"))
    sequence_length: int | None = _option("Objective", "Tokens of a full sequence. Default: the corpus's longest.")
    mask_probability: float | None = _option("Objective", "Share of the tokens that the generator has to predict.")
    replace_probability: float | None = _option("Objective", "Chance that such a token becomes [MASK], else it stays.")
    google_exact: bool | None = _option("Objective", "Choose with replacement, as google-research/electra does.")
    temperature: float | None = _option("Objective", "Of the softmax that replacements are sampled from.")
    temperature_schedule: str | None = _option(
        "Objective",
        "exponential: falls from initial_temperature towards temperature (Fast-ELECTRA).",
        choices=("constant", "exponential"),
    )
    initial_temperature: float | None = _option("Objective", "Where the exponential schedule starts.")
    temperature_decay: float | None = _option("Objective", "Its time constant, in shares of all steps.")
    disallow_correct: bool | None = _option("Objective", "Never sample the original token.")
    generator_weight: float | None = _option("Objective", "Weight of the generator's loss.")
    discriminator_weight: float | None = _option("Objective", "Weight of the discriminator's loss (the paper's λ).")

    embedding_size: int | None = _option("Network", "Width of the token embeddings.")
    hidden_size: int | None = _option("Network", "Width of the discriminator.")
    num_hidden_layers: int | None = _option("Network", "Layers of the discriminator.")
    num_attention_heads: int | None = _option("Network", "Attention heads of the discriminator; they divide its width.")
    intermediate_size: int | None = _option("Network", "Width of the feed-forward layers.")
    max_position_embeddings: int | None = _option("Network", "Rows of the position table: the longest sequence.")
    type_vocab_size: int | None = _option("Network", "Rows of the segment table; the corpus uses two.")
    hidden_dropout_prob: float | None = _option("Network", "Dropout of embeddings and layers.")
    attention_probs_dropout_prob: float | None = _option("Network", "Dropout of attention probabilities.")
    initializer_range: float | None = _option("Network", "Standard deviation of the initial weights.")
    initialization: str | None = _option(
        "Network",
        "google: as published. local: attention starts on the neighbouring tokens; learns sooner on little text. "
        "local-glorot: and larger linear layers; sooner still at a width of 128, but all states are nearly alike.",
        choices=("google", "local", "local-glorot"),
    )
    layer_norm_eps: float | None = _option("Network", "Added to the variance in layer norms.")
    generator_hidden_fraction: float | None = _option("Network", "Generator's width over the discriminator's.")
    generator_layers_fraction: float | None = _option("Network", "Generator's layers over the discriminator's.")
    generator_attention_heads: int | None = _option("Network", "0: one for every 64 of the generator's width.")
    generator_intermediate_size: int | None = _option("Network", "0: four times the generator's width.")
    uniform_generator: bool | None = _option("Network", "No generator: replacements are drawn uniformly.")

    log_every: int = _option("Reports", "Steps between lines of metrics.jsonl.", 50)
    eval_every: int = _option("Reports", "Steps between evaluations on the validation split; 0: only at the end.", 1000)
    eval_batches: int = _option("Reports", "Batches of an evaluation, always the same ones.", 16)
    checkpoint_every: int = _option("Reports", "Steps between checkpoints.", 1000)
    checkpoint_minutes: float = _option(
        "Reports", "Most minutes between checkpoints, however slow the steps are.", 10.0
    )
    keep: int = _option("Reports", "Newest checkpoints to keep.", 3)
    tensorboard: bool = _option("Reports", "Write TensorBoard files, if it is installed.", True)
    wandb: str | None = _option("Reports", "Project of Weights & Biases that figures are sent to. Default: none.")
    wandb_mode: str | None = _option(
        "Reports",
        "offline: keep them in the run's directory for wandb sync. Default: WANDB_MODE, or online.",
        choices=("online", "offline"),
    )

    def __post_init__(self) -> None:
        from electra_fast.models.fields import check_at_least, check_types

        check_types(self)
        check_at_least(self, 1, "accumulation", "ranks", "total_steps", "threads", "log_every", "eval_batches")
        check_at_least(self, 1, "checkpoint_every", "keep")
        check_at_least(self, 0, "eval_every", "seed", "activation_checkpointing")
        if not self.checkpoint_minutes > 0:
            raise ConfigError(f"checkpoint_minutes must be greater than 0, got {self.checkpoint_minutes}")
        if self.seed >= 2**63:
            raise ConfigError(f"seed must be below 2^63, got {self.seed}")
        for field in dataclasses.fields(self):
            _check_choice(field.name, getattr(self, field.name), field.metadata["choices"])
        self._check_start()
        if self.max_time is not None:
            parse_duration(self.max_time)
            if self.total_steps is not None:
                raise ConfigError("total_steps and max_time exclude each other: give one of them")
        for name in PATHS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, os.path.abspath(os.fspath(value)))
        object.__setattr__(self, "data", _one_or_several(self.data))
        object.__setattr__(self, "data_weights", _weights(self.data_weights))
        if self.data_weights is not None and isinstance(self.data, str):
            raise ConfigError("data_weights are for several corpora: name each with data (--data A --data B)")

    def _check_start(self) -> None:
        """ConfigError for options of `init` that do not go together."""
        starts = self.init is not None or self.init_discriminator is not None or self.init_generator is not None
        if self.init is not None and (self.init_discriminator is not None or self.init_generator is not None):
            raise ConfigError("init names both networks' directory: leave out init_discriminator and init_generator")
        if self.init_moments and (self.init is None or self.transplant):
            raise ConfigError("init_moments needs init, the directory of a run, and excludes transplant")
        if self.transplant and not starts:
            raise ConfigError("transplant needs a checkpoint: init, init_discriminator or init_generator")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> PretrainOptions:
        """Options by name. ConfigError for an unknown name suggests the nearest known one."""
        from electra_fast.models.fields import check_keys

        check_keys("electra-fast pretrain", values, (f.name for f in dataclasses.fields(cls)))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, options that were left out not included."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @property
    def parts(self) -> int:
        """Batches that make up a step, over all processes: what decides masks, samples and dropout."""
        return self.accumulation * (self.ranks or 1)

    @property
    def output_path(self) -> Path:
        if self.output is None:
            raise ConfigError("output is missing: name a directory for the run (--output)")
        return Path(self.output)

    @property
    def data_paths(self) -> tuple[Path | str, ...]:
        """The corpora; of URLs as they were given."""
        if self.data is None:
            raise ConfigError("data is missing: name the directory that electra-fast prepare wrote (--data)")
        given = [self.data] if isinstance(self.data, str) else self.data
        return tuple(path if "://" in path else Path(path) for path in given)

    @property
    def data_cache_path(self) -> Path:
        return self.output_path / "data-cache" if self.data_cache is None else Path(self.data_cache)

    @property
    def data_name(self) -> str:
        """The corpora as an error names them."""
        return ", ".join(map(str, self.data_paths))


def _one_or_several(data: Any) -> str | list[str] | None:
    """Absolute paths; of several a list, as TOML has it."""
    if data is None:
        return None
    if isinstance(data, (str, os.PathLike)):
        data = [data]
    if not data or not all(isinstance(path, (str, os.PathLike)) for path in data):
        raise ConfigError(f"data must be a directory or a list of directories, got {data!r}")
    paths = [path if "://" in str(path) else os.path.abspath(os.fspath(path)) for path in data]
    return paths[0] if len(paths) == 1 else paths


def _weights(given: Any) -> list[float] | None:
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else given
    try:
        return [float(part) for part in parts]
    except (TypeError, ValueError):
        raise ConfigError(f"data_weights must be numbers such as 0.7,0.3, one for each corpus, got {given!r}") from None


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if choices and value is not None and value not in choices:
        raise ConfigError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {value!r}")


_DURATION = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")


def parse_duration(value: str | float) -> float:
    """Seconds of a duration such as 90, "90s", "5m" or "1h30m". ConfigError if it is none, or not positive."""
    text = str(value).strip()
    match = _DURATION.fullmatch(text)
    if match and text[-1:].isdigit() and re.search("[hm]", text):
        match = None  # 1h30: half an hour or half a minute?
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    seconds = sum(float(match[unit]) * size for unit, size in units.items() if match[unit]) if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"max_time must be a duration such as 90 (seconds), 5m or 1h30m, got {value!r}")
    return seconds
