"""From options to a run before its first step: corpus, device, networks, optimiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from electra_fast import rng
from electra_fast.data.batches import PackedBatches
from electra_fast.data.manifest import Corpus, Manifest, content_hash, open_corpus
from electra_fast.data.mixture import Mixture, mix
from electra_fast.data.shard_shuffle import ShardShuffledBatches
from electra_fast.data.shard_store import RemoteCorpus, is_url, open_remote_corpus
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.data.words import word_starts
from electra_fast.errors import ConfigError, CorpusError
from electra_fast.models import ElectraConfig, ElectraPretrainingPair, PretrainingConfig
from electra_fast.nn import Encoder
from electra_fast.optim import ElectraAdam, parameter_groups

from .graph import choose_update
from .metrics import RunningMetrics
from .options import PretrainOptions
from .parallel import spread
from .ranks import ALONE, Ranks
from .start import Start
from .step import TrainingState, forward, read_batch, to_device

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}
_NETWORK = frozenset(f.name for f in dataclasses.fields(ElectraConfig))
_RECIPE = frozenset(f.name for f in dataclasses.fields(PretrainingConfig))
_WARMUP_SHARE = 10  # of the steps, at most, are warm-up unless it is given


def open_training_corpus(
    directories: Sequence[Path | str], weights: Sequence[float] | None = None, cache: Path | None = None
) -> Corpus:
    """Open one prepared corpus, or several as a `Mixture`, every shard and the tokenizer compared with the manifest.

    Of a corpus at a URL the shards are compared when they come to ``cache``.

    Raises:
        ShardError: unfinished, damaged, or the tokenizer beside the shards is not the one they were made with, or not
            that of the other corpora.
        ConfigError: the weights are not one positive number for each corpus.
    """
    urls = [str(directory) for directory in directories if is_url(directory)]
    if urls and (len(directories) > 1 or cache is None):
        raise ConfigError(f"data {urls[0]} cannot be mixed with other corpora: copy it to a local disk")
    if urls:
        return open_remote_corpus(urls[0], cache)
    corpora = []
    for directory in map(Path, directories):
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
    if recipe.batch_size % options.parts:
        processes = f" on {options.ranks} processes" if (options.ranks or 1) > 1 else ""
        raise ConfigError(
            f"accumulation must divide batch_size, got {options.accumulation}{processes} and batch_size "
            f"{recipe.batch_size}"
        )
    config.check_pretraining()
    return config


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one. ConfigError if torch cannot use it.

    Each of several processes on a machine has a GPU to itself, of its own number.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.size > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise ConfigError(f"device must be cuda with several processes, which share out the GPUs, got {name!r}")
        name, there = f"cuda:{ranks.local}", torch.cuda.device_count()
        if ranks.local >= there:
            raise ConfigError(
                f"device {name} of process {ranks.rank} does not exist, this machine has {there}: start at most that "
                "many processes on it (--nproc-per-node), or give another device"
            )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"device {name!r} cannot be used: {reason}") from None
    return device


def batch_tokens(config: ElectraConfig, parts: int) -> int:
    """Tokens of one batch: ``batch_size · sequence_length / parts``."""
    return config.pretraining.batch_size // parts * config.pretraining.sequence_length


def accumulation_of(options: PretrainOptions, ranks: Ranks) -> int:
    """Batches of a step that each process takes. ConfigError if they cannot be shared out evenly."""
    each, rest = divmod(options.parts, ranks.size)
    if rest:
        even = ", ".join(str(n) for n in range(1, options.parts + 1) if options.parts % n == 0)
        raise ConfigError(
            f"a step of this run has {options.parts} parts (ranks · accumulation), which {ranks.size} processes cannot "
            f"share evenly: start one of {even}"
        )
    return each


def build(
    options: PretrainOptions,
    config: ElectraConfig,
    corpus: Corpus,
    device: torch.device,
    start: Start | None = None,
    ranks: Ranks = ALONE,
) -> TrainingState:
    """A run before its first step; the weights are a function of ``options.seed`` and, if given, of ``start``.

    Raises:
        CorpusError: the training split has fewer tokens than a batch.
        ConfigError: the precision is still "auto", or the processes cannot share the step evenly.
    """
    if options.precision not in AUTOCAST:
        raise ConfigError("precision must be fp32 or bf16 by now: measure which is faster first")
    recipe = config.pretraining
    accumulation = accumulation_of(options, ranks)
    tokens, there = batch_tokens(config, options.parts), corpus.manifest.splits["train"].tokens
    if there < tokens:
        most = there // recipe.sequence_length * options.parts
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
    for encoder in [module for module in pair.modules() if isinstance(module, Encoder)]:
        encoder.gradient_checkpointing = options.activation_checkpointing
    network = spread(pair, ranks, options.parallel)
    learning_rate = torch.zeros((), device=device)
    optimizer = ElectraAdam(
        parameter_groups(pair, recipe.weight_decay),
        lr=learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
    )
    if start is not None:
        start.load_moments(pair, optimizer)
    state = TrainingState(
        pair=pair,
        network=network,
        forward=torch.compile(network, dynamic=False) if options.compile else network,
        optimizer=optimizer,
        batches=_batches(options, corpus, tokens, ranks),
        metrics=RunningMetrics(device, counts_steps=ranks.first),
        learning_rate=learning_rate,
        rng=rng.make(options.seed, ranks.rank, device),
        accumulation=accumulation,
        autocast=AUTOCAST[options.precision],
        ranks=ranks,
        update=choose_update(options, device, ranks),
    )
    if isinstance(network, DistributedDataParallel):
        _settle_buckets(state)
    return state


def _batches(
    options: PretrainOptions, corpus: Corpus, tokens: int, ranks: Ranks
) -> PackedBatches | ShardShuffledBatches:
    """The training split in the order that was chosen. ConfigError if the corpus cannot be read so."""
    order = {"tokens": tokens, "seed": options.seed, "rank": ranks.rank, "world": ranks.size, "threads": 1}
    if options.shuffle == "shards":
        if isinstance(corpus, Mixture):
            raise ConfigError("shuffle must be global for several corpora: give one, or leave out --shuffle shards")
        return ShardShuffledBatches(corpus, together=options.shuffle_shards, **order)
    if isinstance(corpus, RemoteCorpus):
        raise ConfigError(
            f"shuffle must be shards for data at a URL ({corpus.url}), whose examples come in another order than of a "
            "local copy: use --shuffle shards, or copy it to a local disk"
        )
    return PackedBatches(corpus, "train", verify=False, **order)


def _settle_buckets(state: TrainingState) -> None:
    """One backward pass for nothing, after which DistributedDataParallel keeps to one layout of its buckets.

    It lays them out anew after the first backward pass, and a sum over more than two processes depends in its last bits
    on where in a bucket a gradient lies: without this, the first step of a resumed run would differ.
    """
    forward(state, to_device(read_batch(state), state.device)).loss.backward()
    state.optimizer.zero_grad()
    state.metrics.reset()
    state.batches.reset()


def _word_starts(config: ElectraConfig, corpus: Corpus) -> torch.Tensor | None:
    if config.pretraining.masking != "word":
        return None
    return word_starts(Tokenizer.load(corpus.directory / "tokenizer.json"))


def resolved(options: PretrainOptions, config: ElectraConfig, device: torch.device) -> PretrainOptions:
    """The options with every value spelled out, so that they alone repeat the run."""
    names = {field.name for field in dataclasses.fields(PretrainOptions)}
    network = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in names}
    recipe = {f.name: getattr(config.pretraining, f.name) for f in dataclasses.fields(config.pretraining)}
    # With several processes each has a GPU of its own number.
    name = str(device) if (options.ranks or 1) == 1 else device.type
    return dataclasses.replace(
        options, **network, **recipe, max_time=None, device=name, threads=torch.get_num_threads()
    )
