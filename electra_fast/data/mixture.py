"""Several prepared corpora read as one, each with a share of the tokens.

A share is one of tokens, not of examples or documents: with weights 0.7 and 0.3, seven of ten tokens the network sees
are of the first corpus, whatever the sizes and the lengths of their examples. A corpus whose share is more than its
size is repeated, in a new order each time, while the others are read once (docs/data.md, "Several corpora").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from electra_fast.data.manifest import SPLITS, Corpus, Manifest, Split
from electra_fast.errors import ConfigError, ShardError


@dataclass(frozen=True)
class Mixture(Corpus):
    """Prepared corpora of one tokenizer, and their shares of the tokens.

    As a `Corpus` it has the directory of the first one (its tokenizer is that of all), the shards of all of them, and a
    manifest that counts them together.

    Attributes:
        corpora: in the order given.
        weights: of each, positive, with sum 1.
    """

    corpora: tuple[Corpus, ...]
    weights: tuple[float, ...]


def mix(corpora: Sequence[Corpus], weights: Sequence[float] | None = None) -> Mixture:
    """A mixture of opened corpora.

    Args:
        corpora: at least one; a corpus may be in it once.
        weights: shares of the tokens, in any unit. Default: the corpora's training tokens, so that all are read
            equally often.

    Raises:
        ConfigError: a corpus is given twice, or the weights are not one positive number for each.
        ShardError: the corpora were not prepared with the same tokenizer.
    """
    if not corpora:
        raise ConfigError("corpora must be at least one, got none")
    first = corpora[0]
    for index, corpus in enumerate(corpora):
        _check_same_tokenizer(first, corpus)
        if any(corpus.directory.resolve() == other.directory.resolve() for other in corpora[:index]):
            raise ConfigError(f"{corpus.directory} is given twice: name every corpus once, and give it a larger weight")
    if weights is None:
        weights = [float(corpus.manifest.splits["train"].tokens) for corpus in corpora]
    elif len(weights) != len(corpora):
        raise ConfigError(
            f"data_weights must be one number for each of the {len(corpora)} corpora, got {len(weights)}: "
            f"{', '.join(map(str, weights))}"
        )
    for weight in weights:
        if not (weight > 0 and math.isfinite(weight)):
            raise ConfigError(f"data_weights must be positive numbers, got {weight}: leave out a corpus of weight 0")
    total = math.fsum(weights)
    return Mixture(
        directory=first.directory,
        manifest=_joint_manifest([corpus.manifest for corpus in corpora]),
        shards={name: [shard for corpus in corpora for shard in corpus.shards.get(name, [])] for name in SPLITS},
        corpora=tuple(corpora),
        weights=tuple(weight / total for weight in weights),
    )


def _check_same_tokenizer(first: Corpus, other: Corpus) -> None:
    one, two = first.manifest, other.manifest
    if (one.tokenizer_hash, one.special_tokens) != (two.tokenizer_hash, two.special_tokens):
        raise ShardError(
            f"{other.directory} was prepared with another tokenizer ({two.tokenizer_hash[:12]}) than {first.directory} "
            f"({one.tokenizer_hash[:12]}): prepare it again with --tokenizer {first.directory}"
        )


def _joint_manifest(manifests: Sequence[Manifest]) -> Manifest:
    first = manifests[0]
    longest = max(manifest.max_length for manifest in manifests)
    return replace(
        first,
        options={**first.options, "max_length": longest},
        input_files=sum(manifest.input_files for manifest in manifests),
        input_bytes=sum(manifest.input_bytes for manifest in manifests),
        long_lines=sum(manifest.long_lines for manifest in manifests),
        splits={name: _joint_split([manifest.splits.get(name, Split()) for manifest in manifests]) for name in SPLITS},
    )


def _joint_split(splits: Sequence[Split]) -> Split:
    joint = Split()
    for split in splits:
        joint.add(split)
    return joint


@dataclass(frozen=True)
class MixturePart:
    """What a corpus gives to a split of a mixture.

    Attributes:
        examples, tokens: it has; at least one.
        weight: its share of the tokens, in any unit.
    """

    examples: int
    tokens: int
    weight: float


def mixture_parts(mixture: Mixture, split: str) -> list[MixturePart]:
    """The corpora that have examples in a split; the weights of those that have none go to the others."""
    splits = [corpus.manifest.splits.get(split, Split()) for corpus in mixture.corpora]
    pairs = zip(splits, mixture.weights, strict=True)
    return [MixturePart(counts.examples, counts.tokens, weight) for counts, weight in pairs if counts.examples]


def mean_length(parts: Sequence[MixturePart]) -> float:
    """Tokens of an example of the mixture: ``Σ w / Σ (w / mean length)``."""
    return float(sum(Fraction(part.weight) for part in parts) / sum(map(_examples_for_weight, parts)))


def rates(parts: Sequence[MixturePart], window: int) -> list[int]:
    """Examples that each part gives to a window, in units of 2^-32, rounded down.

    In exact arithmetic, so that they, and with them the order, are the same on every machine.
    """
    wanted = [_examples_for_weight(part) for part in parts]
    return [math.floor(window * examples / sum(wanted) * 2**32) for examples in wanted]


def _examples_for_weight(part: MixturePart) -> Fraction:
    """Examples of a part, on average, that have as many tokens as its weight is."""
    return Fraction(part.weight) * part.examples / part.tokens
