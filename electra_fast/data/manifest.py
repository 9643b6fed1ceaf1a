"""The manifest of a prepared corpus: what is in it, how it was made, and whether its files are whole.

It names no path, time or number of workers, so that the same text and options give the same bytes anywhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from electra_fast.data.shards import Shard, ShardEntry, verify_shard
from electra_fast.errors import ShardError
from electra_fast.files import write_text

FORMAT = "electra-fast corpus"
VERSION = 1
MANIFEST_NAME = "manifest.json"
JOB_NAME = "job.json"
PLAN_NAME = "plan.json"
SPLITS = ("train", "validation")


@dataclass
class Split:
    """Counts of one split.

    ``tokens`` include [CLS] and [SEP]; ``unknown_tokens`` are [UNK]; ``truncated_tokens`` were cut off and are lost.
    """

    documents: int = 0
    lines: int = 0
    examples: int = 0
    two_segment_examples: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    truncated_tokens: int = 0
    shards: list[ShardEntry] = field(default_factory=list)

    def add(self, other: Split, folder: str = "") -> None:
        """Count ``other``'s examples in, whose shards are in ``folder``."""
        for counted in fields(self):
            if counted.name != "shards":
                setattr(self, counted.name, getattr(self, counted.name) + getattr(other, counted.name))
        self.shards += [replace(entry, name=folder + entry.name) for entry in other.shards]

    @staticmethod
    def from_json(value: dict[str, Any]) -> Split:
        return Split(**{**value, "shards": [ShardEntry(**entry) for entry in value["shards"]]})


@dataclass
class Manifest:
    """``manifest.json`` of a prepared corpus; ``options`` are those that decide its bytes."""

    options: dict[str, Any]
    tokenizer_hash: str
    vocab_size: int
    special_tokens: dict[str, int]
    input_files: int
    input_bytes: int
    long_lines: int
    splits: dict[str, Split]

    @property
    def max_length(self) -> int:
        """Most tokens an example may have, [CLS] and [SEP] included."""
        return self.options["max_length"]

    @property
    def options_hash(self) -> str:
        """sha256 over the tokenizer and the options: two corpora of the same text and hash are the same."""
        return content_hash({"tokenizer": self.tokenizer_hash, "options": self.options})

    def fill(self, split: str = "train") -> float:
        """Mean length of an example over the longest possible: what share of a padded batch would be text."""
        counts = self.splits[split]
        return counts.tokens / (counts.examples * self.max_length) if counts.examples else 0.0

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, "options_hash": self.options_hash, **asdict(self)}

    def save(self, directory: str | Path) -> None:
        """Write ``manifest.json`` atomically; its presence is what makes the directory a finished corpus."""
        write_text(Path(directory) / MANIFEST_NAME, json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")

    @staticmethod
    def load(directory: str | Path) -> Manifest:
        """Read the manifest of a prepared corpus.

        Raises:
            ShardError: no directory, no (finished) corpus in it, a damaged manifest, or one of another version.
        """
        folder = Path(directory)
        path = folder / MANIFEST_NAME
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise ShardError(_why_no_corpus(folder)) from None
        except ValueError as error:
            raise ShardError(f"{path} is damaged ({error}). Run prepare again with --overwrite") from None
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ShardError(f"{path} is not the manifest of a corpus written by electra-fast prepare")
        if value.get("version") != VERSION:
            raise ShardError(
                f"{path} has format version {value.get('version')}, this electra_fast reads version {VERSION}. "
                "Run prepare again with --overwrite"
            )
        expected_hash = value.pop("options_hash", None)
        del value["format"], value["version"]
        try:
            splits = {name: Split.from_json(split) for name, split in value.pop("splits").items()}
            manifest = Manifest(**value, splits=splits)
        except (KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"{path} is damaged ({error}). Run prepare again with --overwrite") from None
        if manifest.options_hash != expected_hash:
            raise ShardError(f"{path} was changed by hand: its hash differs. Run prepare again with --overwrite")
        return manifest


def _why_no_corpus(folder: Path) -> str:
    if (folder / JOB_NAME).exists() or (folder / PLAN_NAME).exists():
        return f"the corpus in {folder} is not finished. Run the same prepare command again to go on"
    reason = f"it holds no {MANIFEST_NAME}" if folder.is_dir() else "there is no such directory"
    return f"{folder} is not a prepared corpus: {reason}. Make one with electra-fast prepare --output {folder}"


def content_hash(value: object) -> str:
    """sha256 (hex) of a JSON-able value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, opened: its manifest and the memory-mapped shards of each split."""

    directory: Path
    manifest: Manifest
    shards: dict[str, list[Shard]]

    def paths(self, split: str) -> list[Path]:
        """The shard files of a split, in order."""
        return [shard.path for shard in self.shards[split]]


def open_corpus(directory: str | Path, *, verify: bool = True, tokenizer_hash: str | None = None) -> Corpus:
    """Open a prepared corpus.

    Args:
        directory: what ``prepare`` wrote.
        verify: read every shard once and compare its crc32; otherwise only sizes and headers are checked.
        tokenizer_hash: if given, the hash of the tokenizer the caller is going to use.

    Raises:
        ShardError: no finished corpus, a missing, truncated or damaged shard, or another tokenizer than the shards'.
    """
    folder = Path(directory)
    manifest = Manifest.load(folder)
    if tokenizer_hash is not None and tokenizer_hash != manifest.tokenizer_hash:
        raise ShardError(
            f"the vocabulary does not match the shards in {folder}: they were made with tokenizer "
            f"{manifest.tokenizer_hash[:12]}, given was {tokenizer_hash[:12]}. Use {folder / 'tokenizer.json'}, "
            "or run prepare again with the tokenizer you want"
        )
    shards = {
        name: [verify_shard(folder, entry) if verify else Shard(folder / entry.name) for entry in split.shards]
        for name, split in manifest.splits.items()
    }
    return Corpus(folder, manifest, shards)
