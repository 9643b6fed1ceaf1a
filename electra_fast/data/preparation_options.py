"""The options of a prepare job, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from electra_fast.data.corpus import ReadOptions
from electra_fast.data.examples import ExampleBuilder
from electra_fast.data.tokenizer_training import TokenizerOptions
from electra_fast.errors import ConfigError

PART_CHARACTERS = 1 << 18  # a longer document is tokenised in parts, which bounds memory and feeds every worker
_DEFAULT_VALIDATION_FRACTION = 0.01


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare, and how. All but ``output``, ``workers`` and ``overwrite`` decide the bytes written.

    Attributes:
        inputs: files, directories or glob patterns: text, jsonl (both also as .gz, .xz, .zst,
            .bz2), parquet, Arrow.
        output: directory for the corpus.
        tokenizer: vocab.txt, tokenizer.json or Hugging Face directory; None trains a WordPiece on the text.
        vocab_size, min_frequency, sample_characters: see `TokenizerOptions`; only for training (None: its defaults).
        lowercase, strip_accents: for training and for a bare vocab.txt. None: see `TokenizerOptions`, `Tokenizer.load`.
        max_length: most tokens of an example, [CLS] and [SEP] included.
        examples, overflow: ``layout`` and ``overflow`` of `ExampleBuilder`.
        documents, text_field, encoding, errors: see `ReadOptions`.
        validation_fraction: share of the documents held out, at most 0.5: with k = round(1 / fraction), document i is
            held out if i % k == k // 2. None: 0.01, or nothing if there are ``validation_inputs``; 0 holds out none.
        validation_inputs: held-out text in files of its own.
        seed: of the random choices in building examples.
        shard_tokens: a shard is closed at this many tokens (a few more may be in it).
        workers: processes; None: one for each CPU, fewer for little text.
        overwrite: throw away what an earlier prepare left in ``output``.
    """

    inputs: Sequence[str | Path]
    output: str | Path
    tokenizer: str | Path | None = None
    vocab_size: int | None = None
    min_frequency: int | None = None
    sample_characters: int | None = None
    lowercase: bool | None = None
    strip_accents: bool | None = None
    max_length: int = 128
    examples: str = "two-segment"
    overflow: str = "carry"
    documents: str = "blank-line"
    text_field: str = "text"
    encoding: str = "utf-8"
    errors: str = "strict"
    validation_fraction: float | None = None
    validation_inputs: Sequence[str | Path] = ()
    seed: int = 0
    shard_tokens: int = 1 << 25
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("inputs", "validation_inputs"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str | Path) else tuple(value))
        for name in ("workers", "shard_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}")
        if not self.inputs:
            raise ConfigError("inputs: expected at least one file, directory or pattern, got none")

    def reading(self) -> ReadOptions:
        """How the text is read."""
        return ReadOptions(
            documents=self.documents,
            text_field=self.text_field,
            encoding=self.encoding,
            errors=self.errors,
            part_characters=PART_CHARACTERS,
        )

    def training(self) -> TokenizerOptions:
        """How a tokenizer is trained, if none is given."""
        wanted = {name: getattr(self, name) for name in ("vocab_size", "min_frequency", "sample_characters")}
        chosen = {name: value for name, value in wanted.items() if value is not None}
        if self.tokenizer is not None and chosen:
            raise ConfigError(
                f"{next(iter(chosen))} is for training a tokenizer, but one is given: leave out one of the two"
            )
        lowercase = True if self.lowercase is None else self.lowercase
        return TokenizerOptions(lowercase=lowercase, strip_accents=self.strip_accents, **chosen)

    def builder(self, *, cls_id: int, sep_id: int) -> ExampleBuilder:
        """What makes examples of sentences."""
        return ExampleBuilder(
            max_length=self.max_length,
            cls_id=cls_id,
            sep_id=sep_id,
            layout=self.examples,
            overflow=self.overflow,
            seed=self.seed,
        )

    def validation_stride(self) -> int:
        """k of "one document in k is held out"; 0: none."""
        fraction = self.validation_fraction
        if self.validation_inputs:
            if fraction:
                raise ConfigError("validation_fraction and validation_inputs are two ways to the same: leave out one")
            return 0
        fraction = _DEFAULT_VALIDATION_FRACTION if fraction is None else fraction
        if not 0 <= fraction <= 0.5:
            raise ConfigError(f"validation_fraction: expected 0 to 0.5, got {fraction}")
        return round(1 / fraction) if fraction else 0
