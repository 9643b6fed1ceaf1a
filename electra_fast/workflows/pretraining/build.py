"""From options to a run before its first step: corpus, device, networks, optimiser; and what a checkpoint holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from electra_fast import rng
from electra_fast.data.batches import PackedBatches
from electra_fast.data.manifest import Corpus, Manifest, content_hash, open_corpus
from electra_fast.data.mixture import Mixture, mix
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.data.words import word_starts
from electra_fast.errors import CheckpointError, ConfigError, CorpusError
from electra_fast.models import ElectraConfig, ElectraPretrainingPair, PretrainingConfig
from electra_fast.optim import ElectraAdam, parameter_groups

from .metrics import RunningMetrics
from .options import PretrainOptions
from .start import Start
from .step import TrainingState

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}
_NETWORK = frozenset(f.name for f in dataclasses.fields(ElectraConfig))
_RECIPE = frozenset(f.name for f in dataclasses.fields(PretrainingConfig))
_WARMUP_SHARE = 10  # of the steps, at most, are warm-up unless it is given


def open_training_corpus(directories: Sequence[Path], weights: Sequence[float] | None = None) -> Corpus:
    """Open one prepared corpus, or several as a `Mixture`, every shard and the tokenizer compared with the manifest.

    Raises:
        ShardError: unfinished, damaged, or the tokenizer beside the shards is not the one they were made with, or not
            that of the other corpora.
        ConfigError: the weights are not one positive number for each corpus.
    """
    corpora = []
    for directory in directories:
        Manifest.load(directory)  # first, so that a directory that is no corpus is called that
        corpora.append(open_corpus(directory, tokenizer_hash=Tokenizer.load(directory / "tokenizer.json").hash))
    return corpora[0] if len(corpora) == 1 else mix(corpora, weights)


def corpus_fingerprint(corpus: Corpus) -> str:
    """sha256 over tokenizer, options and the checksums of all shards: equal for equal data, wherever it lies."""
    if isinstance(corpus, Mixture):
        return content_hash({"corpora": list(map(corpus_fingerprint, corpus.corpora)), "weights": corpus.weights})
    splits = corpus.manifest.splits.items()
    checksums = {name: [shard.crc32 for shard in split.shards] for name, split in splits}
    return content_hash({"options": corpus.manifest.options_hash, "shards": checksums})


def resolve(options: PretrainOptions, manifest: Manifest) -> ElectraConfig:
    """The configuration that is trained: the size's values, the options given, and what the corpus decides.

    Raises:
        ConfigError: values that do not go together, or not with the corpus.
    """
    given = {k: v for k, v in options.to_dict().items() if k in _NETWORK or k in _RECIPE}
    longest = manifest.max_length
    length = given.setdefault("sequence_length", longest)
    if longest > length:
        raise ConfigError(
            f"sequence_length must be at least {longest}, the longest example of {options.data_name}, got {length}: "
            f"leave it out, or prepare the corpus with --max-length {length}"
        )
    special = {f"{role}_token_id": manifest.special_tokens[role] for role in ("pad", "cls", "sep", "mask")}
    config = getattr(ElectraConfig, options.model)(vocab_size=manifest.vocab_size, **special, **given)
    recipe = config.pretraining
    if options.warmup_steps is None:
        config = config.replace(warmup_steps=min(recipe.warmup_steps, recipe.total_steps // _WARMUP_SHARE))
    if length > config.max_position_embeddings:
        raise ConfigError(
            f"sequences of {length} tokens are longer than the position table of {config.max_position_embeddings}: set "
            f"max_position_embeddings to at least {length}, or prepare the corpus with a smaller --max-length"
        )
    if recipe.batch_size % options.accumulation:
        raise ConfigError(
            f"accumulation must divide batch_size, got {options.accumulation} and batch_size {recipe.batch_size}"
        )
    config.check_pretraining()
    return config


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one. ConfigError if torch cannot use it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"device {name!r} cannot be used: {reason}") from None
    return device


def batch_tokens(config: ElectraConfig, accumulation: int) -> int:
    """Tokens of one batch: ``batch_size · sequence_length / accumulation``."""
    return config.pretraining.batch_size // accumulation * config.pretraining.sequence_length


def build(
    options: PretrainOptions,
    config: ElectraConfig,
    corpus: Corpus,
    device: torch.device,
    start: Start | None = None,
) -> TrainingState:
    """A run before its first step; the weights are a function of ``options.seed`` and, if given, of ``start``.

    Raises:
        CorpusError: the training split has fewer tokens than a batch.
        ConfigError: the precision is still "auto".
    """
    if options.precision not in AUTOCAST:
        raise ConfigError("precision must be fp32 or bf16 by now: measure which is faster first")
    recipe = config.pretraining
    tokens, there = batch_tokens(config, options.accumulation), corpus.manifest.splits["train"].tokens
    if there < tokens:
        most = there // recipe.sequence_length * options.accumulation
        advice = f"lower batch_size to at most {most}" if most else "prepare more text"
        raise CorpusError(
            f"{corpus.directory} has {there} tokens for training, fewer than a batch of {tokens}: {advice}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        pair = ElectraPretrainingPair(config, _word_starts(config, corpus))
    if start is not None:
        start.load(pair)
    pair.to(device).train()
    learning_rate = torch.zeros((), device=device)
    optimizer = ElectraAdam(
        parameter_groups(pair, recipe.weight_decay),
        lr=learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
    )
    if start is not None:
        start.load_moments(pair, optimizer)
    return TrainingState(
        pair=pair,
        forward=torch.compile(pair, dynamic=False) if options.compile else pair,
        optimizer=optimizer,
        batches=PackedBatches(corpus, "train", tokens=tokens, seed=options.seed, threads=1, verify=False),
        metrics=RunningMetrics(device),
        learning_rate=learning_rate,
        rng=rng.make(options.seed, device=device),
        accumulation=options.accumulation,
        autocast=AUTOCAST[options.precision],
    )


def _word_starts(config: ElectraConfig, corpus: Corpus) -> torch.Tensor | None:
    if config.pretraining.masking != "word":
        return None
    return word_starts(Tokenizer.load(corpus.directory / "tokenizer.json"))


def state_dict(state: TrainingState) -> dict[str, Any]:
    """All of a run that its options do not fix, as tensors and plain values."""
    return {
        "model": state.pair.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "data": state.batches.state_dict(),
        "metrics": state.metrics.state_dict(),
        "rng": state.rng.cpu(),
    }


def load_state_dict(state: TrainingState, saved: dict[str, Any]) -> None:
    """Put a run back to where `state_dict` was taken.

    Raises:
        CheckpointError: the checkpoint is of another network or other data.
    """
    try:
        state.pair.load_state_dict(saved["model"])
        state.optimizer.load_state_dict(saved["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the checkpoint is not of this network: {reason}") from None
    for group in state.optimizer.param_groups:
        group["lr"] = state.learning_rate
    state.batches.load_state_dict(saved["data"])
    state.metrics.load_state_dict(saved["metrics"])
    state.rng.copy_(saved["rng"])
    state.step = saved["step"]


def resolved(options: PretrainOptions, config: ElectraConfig, device: torch.device) -> PretrainOptions:
    """The options with every value spelled out, so that they alone repeat the run."""
    names = {field.name for field in dataclasses.fields(PretrainOptions)}
    network = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in names}
    recipe = {f.name: getattr(config.pretraining, f.name) for f in dataclasses.fields(config.pretraining)}
    return dataclasses.replace(
        options, **network, **recipe, max_time=None, device=str(device), threads=torch.get_num_threads()
    )
