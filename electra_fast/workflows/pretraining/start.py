"""Beginning a run with networks that were trained before: published ones, or those of another run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from electra_fast.data.manifest import Corpus
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.errors import CheckpointError, ConfigError
from electra_fast.models import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, ElectraPretrainingPair
from electra_fast.models.continuing import (
    OWN,
    POSITIONS,
    extend_positions,
    largest_difference,
    load_networks,
    network_values,
)
from electra_fast.models.huggingface import load_config, load_pretrained
from electra_fast.models.transplant import Transplant, plan_transplant
from electra_fast.optim import ElectraAdam

from .checkpoint import CheckpointDirectory, load_checkpoint
from .options import PretrainOptions
from .parallel import copy_whole_

_KEPT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")  # the checkpoint's, unless given
_FRACTIONS = {"generator_hidden_fraction": "hidden_size", "generator_layers_fraction": "num_hidden_layers"}


@dataclass(frozen=True)
class Start:
    """What a run begins with, under Hugging Face's names, in the run's own sizes.

    Attributes:
        discriminator, generator: weights, or None for a fresh network.
        moments: the optimiser's, by parameter in its order, or None for none.
        notes: what to tell the user.
    """

    discriminator: dict[str, Tensor] | None = None
    generator: dict[str, Tensor] | None = None
    moments: dict[int, dict[str, Tensor]] | None = None
    notes: list[str] = field(default_factory=list)

    def load(self, pair: ElectraPretrainingPair) -> None:
        """Put the weights into a pair."""
        load_networks(pair, self.discriminator, self.generator)

    def load_moments(self, pair: ElectraPretrainingPair, optimizer: ElectraAdam) -> None:
        """Put the moments, if any, into the optimiser of that pair; rows that the position table gained have none.

        Raises:
            CheckpointError: they are those of other parameters.
        """
        if self.moments is None:
            return
        names = {p: name for name, p in pair.named_parameters()}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if len(parameters) != len(self.moments):
            raise CheckpointError(
                f"init_moments: the run has moments of {len(self.moments)} parameters, this one {len(parameters)}: use "
                "the same embedding_sharing and networks"
            )
        for p, saved in zip(parameters, self.moments.values(), strict=True):
            for slot, mine in optimizer.moments(p).items():
                moment = saved[slot]
                if names[p].endswith(POSITIONS) and moment.shape[1:] == p.shape[1:]:
                    moment = torch.cat([moment, moment.new_zeros(p.shape[0] - moment.shape[0], *p.shape[1:])])
                if moment.shape != p.shape:
                    raise CheckpointError(
                        f"init_moments: {names[p]} has shape {list(p.shape)}, its saved moments {list(moment.shape)}"
                    )
                copy_whole_(mine, moment)


def directories(options: PretrainOptions) -> tuple[Path | None, Path | None]:
    """Where the discriminator and the generator to begin with are. CheckpointError if init holds neither."""
    if options.init is None:
        given = (options.init_discriminator, options.init_generator)
        return tuple(None if path is None else Path(path) for path in given)
    folder = Path(options.init)
    if (folder / "model").is_dir():
        folder = folder / "model"
    found = [path if path.is_dir() else None for path in (folder / "discriminator", folder / "generator")]
    if found == [None, None]:
        raise CheckpointError(
            f"{options.init} holds no networks: give a finished run, or a directory with discriminator/ and generator/"
        )
    return tuple(found)


def adopt(options: PretrainOptions, corpus: Corpus) -> tuple[PretrainOptions, Start]:
    """The options with the networks that they begin with spelled out, and those networks' weights.

    Raises:
        CheckpointError: a directory is missing or damaged.
        ConfigError: an option contradicts the checkpoint, or the vocabulary is another and ``transplant`` is not given.
    """
    paths = directories(options)
    if options.freeze_generator and paths[1] is None:
        control = "the generator is frozen as it is initialised, which is a control: init_generator gives a trained one"
    else:
        control = None
    if paths == (None, None):
        return options, Start(notes=[control] if control else [])
    if options.objective in ("electric", "mlm"):
        raise ConfigError(f"init is for objective electra, got objective {options.objective}")
    configs = [None if path is None else load_config(path) for path in paths]
    options = _with_networks(options, configs)
    rows = options.max_position_embeddings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        transplant, notes = _vocabulary(options, configs, paths, corpus)
        networks = [
            None if path is None else _weights(path, kind, rows, transplant)
            for path, kind in zip(paths, (ElectraForPreTraining, ElectraForMaskedLM), strict=True)
        ]
    notes += [control] if control else _shared(options, *networks)
    longest = max(config.max_position_embeddings for config in configs if config is not None)
    if rows > longest:
        notes.append(f"position table: {longest} rows extended to {rows} by repeating them")
    moments = _moments(options) if options.init_moments else None
    return options, Start(*networks, moments, notes)


def _with_networks(options: PretrainOptions, configs: list[ElectraConfig | None]) -> PretrainOptions:
    """The options with every size of the checkpoints; ConfigError for one given that is another."""
    preset = getattr(ElectraConfig, options.model)()
    sizes = {name: value for name in OWN if (value := getattr(options, name)) is not None}
    fallback = dataclasses.replace(preset, **sizes)
    values = network_values(*configs, fallback)
    given = {name: value for name in values if (value := getattr(options, name)) is not None}
    rows = given.pop("max_position_embeddings", None)
    for name, value in given.items():
        if name in _FRACTIONS:
            whole = values.get(_FRACTIONS[name], getattr(fallback, _FRACTIONS[name]))
            same = round(value * whole) == round(values[name] * whole)
        else:
            same = value == values[name]
        if not same:
            raise ConfigError(
                f"{name} is {values[name]} in the checkpoint, got {value}: leave it out, or leave out the checkpoint"
            )
    if rows is not None:
        values["max_position_embeddings"] = rows
    first = next(config for config in configs if config is not None)
    values |= {name: getattr(first, name) for name in _KEPT if getattr(options, name) is None}
    return dataclasses.replace(options, **values)


def _vocabulary(
    options: PretrainOptions, configs: list[ElectraConfig | None], paths: tuple[Path | None, ...], corpus: Corpus
) -> tuple[Transplant | None, list[str]]:
    """How to move the embeddings to the corpus's vocabulary, if need be."""
    size = next(config.vocab_size for config in configs if config is not None)
    path = next(path for path in paths if path is not None)
    new = Tokenizer.load(corpus.directory / "tokenizer.json")
    if not any((path / name).exists() for name in ("tokenizer.json", "vocab.txt")):
        if options.transplant or size != new.vocab_size:
            raise ConfigError(
                f"{path} has {size} embeddings, the corpus {new.vocab_size} tokens, and there is no tokenizer.json or "
                "vocab.txt beside the checkpoint to move them with: put it there"
            )
        return None, [f"{path} has no tokenizer: its {size:,} embeddings are taken to be those of the corpus's tokens"]
    old = Tokenizer.load(path)
    if old.backend.get_vocab(with_added_tokens=True) == new.backend.get_vocab(with_added_tokens=True):
        if size != new.vocab_size:
            said = f"{path} has {size:,} embeddings for {new.vocab_size:,} tokens: those of no token are left out"
            return plan_transplant(old, new), [said]
        return None, ["transplant: both vocabularies are the same"] if options.transplant else []
    if not options.transplant:
        raise ConfigError(
            f"the vocabulary of {path} is not the corpus's: prepare the corpus with --tokenizer {path}, or move the "
            "embeddings to the corpus's vocabulary with --transplant"
        )
    plan = plan_transplant(old, new)
    return plan, [str(plan)]


def _weights(path: Path, kind: type[torch.nn.Module], rows: int, transplant: Transplant | None) -> dict[str, Tensor]:
    weights = extend_positions(load_pretrained(path, kind, dtype=torch.float32).state_dict(), rows)
    return weights if transplant is None else transplant.weights(weights)


def _shared(
    options: PretrainOptions, discriminator: dict[str, Tensor] | None, generator: dict[str, Tensor] | None
) -> list[str]:
    """What to say of embeddings that will be shared, and of a network that starts fresh."""
    if discriminator is None:
        return ["the discriminator starts fresh"]
    if generator is None:
        return [
            "the generator starts fresh beside a trained discriminator, which at first tells its noise at a glance: "
            "give the learning rate a warm-up (warmup_steps), or a generator (init_generator)"
        ]
    if options.embedding_sharing in (None, "full") and (difference := largest_difference(discriminator, generator)):
        return [
            f"the networks' embeddings differ by up to {difference:.2g}: the discriminator's are taken for both "
            "(embedding_sharing gdes and none keep each network's)"
        ]
    return []


def _moments(options: PretrainOptions) -> dict[int, dict[str, Any]]:
    files = CheckpointDirectory(Path(options.init) / "checkpoints").files()
    if not files:
        raise CheckpointError(f"init_moments: {options.init} has no checkpoints with the optimiser's moments")
    saved = load_checkpoint(files[-1])
    if "optimizer" not in saved:
        raise CheckpointError(
            f"init_moments: the moments in {files[-1]} lie in parts: leave it out, or resume that run"
        )
    state = saved["optimizer"]["state"]
    return {index: state[index] for index in sorted(state)}
