"""What a prepare job was asked for: its options checked, its tokenizer loaded, its files found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from electra_fast.data.manifest import content_hash
from electra_fast.data.preparation_options import PrepareOptions
from electra_fast.data.sources import Sources, check_unique, find_sources
from electra_fast.data.tokenise import BuildOptions
from electra_fast.data.tokenizer import Tokenizer


class Request:
    """The parts of `PrepareOptions` in the form the work needs them.

    Attributes:
        read: how text is read.
        training: how a tokenizer is trained, if none is given.
        every: one document in ``every`` is held out; 0: none.
        given: the tokenizer that was given, or None.
        train, validation: the input files.
    """

    def __init__(self, options: PrepareOptions) -> None:
        self.options = options
        self.directory = Path(options.output)
        self.read = options.reading()
        options.builder(cls_id=0, sep_id=0)  # checks its arguments before any work
        self.training = options.training()
        self.every = options.validation_stride()
        self.given = None
        if options.tokenizer is not None:
            self.given = Tokenizer.load(
                options.tokenizer, lowercase=options.lowercase, strip_accents=options.strip_accents
            )
        self.train = find_sources(options.inputs, exclude=self.directory)
        self.validation = find_sources(options.validation_inputs, exclude=self.directory)
        self.files = [*self.train.files, *self.validation.files]
        check_unique(source.path for source in self.files)
        self.total_bytes = self.train.bytes + self.validation.bytes

    def build_options(self, tokenizer: Tokenizer) -> BuildOptions:
        """What a worker needs to make examples."""
        return BuildOptions(
            tokenizer_json=tokenizer.backend.to_str(),
            names=tokenizer.names,
            layout=self.options.examples,
            overflow=self.options.overflow,
            max_length=self.options.max_length,
            seed=self.options.seed,
        )

    def manifest_options(self) -> dict[str, Any]:
        """The options that decide the bytes written."""
        options = self.options
        return {
            "max_length": options.max_length,
            "examples": options.examples,
            "overflow": options.overflow,
            "seed": options.seed,
            "documents": options.documents,
            "text_field": options.text_field,
            "encoding": options.encoding,
            "errors": options.errors,
            "validation_every": self.every,
            "validation_inputs": bool(self.validation.files),
            "shard_tokens": options.shard_tokens,
            **({"tokenizer": self.given.hash} if self.given else {"tokenizer": "trained", **asdict(self.training)}),
        }

    def identity(self) -> dict[str, Any]:
        """What must be equal for a job on disk to be this one: options and input files."""
        return {**self.manifest_options(), "inputs": content_hash([_stamps(self.train), _stamps(self.validation)])}


def _stamps(sources: Sources) -> list[tuple[str, int, int]]:
    return [(str(source.path.resolve()), source.bytes, source.modified_ns) for source in sources.files]
