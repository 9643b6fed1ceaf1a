"""Text to token shards: the whole job behind ``electra-fast prepare``.

Stopped by Ctrl-C, SIGTERM, SIGKILL or a full disk, the same call goes on where it was; the bytes it writes depend
neither on that nor on the number of workers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from electra_fast.data.corpus import DocumentReader, Position
from electra_fast.data.job import Job, check_identity, is_prepared, open_directory, read_state, remove_own_files
from electra_fast.data.manifest import MANIFEST_NAME, Manifest, content_hash
from electra_fast.data.preparation_options import PrepareOptions
from electra_fast.data.shards import Shard
from electra_fast.data.sources import Sources, check_unique, find_sources
from electra_fast.data.tokenise import BuildOptions, Unit, WorkerError, build_all
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.data.tokenizer_training import thin_out, train_tokenizer
from electra_fast.errors import ConfigError, CorpusError, ShardError
from electra_fast.signals import DeferredSignals

UNIT_CHARACTERS = 1 << 18  # what a worker gets at once: about 0.1 s of work
_BYTES_WORTH_A_WORKER = 1 << 20
_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True)
class PrepareProgress:
    """How far a job is. ``stage``: "reading", "training", "tokenising", or "note" (then only ``message`` counts)."""

    stage: str
    bytes_done: int = 0
    bytes_total: int = 0
    documents: int = 0
    tokens: int = 0
    message: str = ""


Listener = Callable[[PrepareProgress], None]


def prepare(options: PrepareOptions, progress: Listener | None = None) -> Manifest:
    """Turn text into token shards with a tokenizer and a manifest (docs/design.md, "Token shards").

    A finished, identical job is left as it is. Ctrl-C and SIGTERM (in the main thread) save the state and then have
    their usual effect. An error before any state worth keeping leaves nothing behind.

    Args:
        options: what and how.
        progress: called now and then, from this thread.

    Raises:
        ConfigError: options out of range, at odds with each other, or other than those of the job in ``output``.
        CorpusError: text that is missing, empty, unreadable, or has too few documents to hold some out.
        TokenizerError: a tokenizer that cannot be loaded or lacks a special token.
        ShardError: what an earlier run left in ``output`` is damaged.
        DiskFullError: no space left; the same call goes on once there is.
    """
    return _Preparation(options, progress or (lambda _: None)).run()


class _Preparation:
    """One call of `prepare`: the options checked, the input files found."""

    def __init__(self, options: PrepareOptions, report: Listener) -> None:
        self.options = options
        self.report = report
        self.last_report = 0.0
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

    def run(self) -> Manifest:
        identity = self._identity()
        with open_directory(self.directory) as created:
            state = self._existing_state()
            if state is not None:
                check_identity(self.directory, state["identity"], identity)
                if (self.directory / MANIFEST_NAME).exists():
                    return self._finished_before()
            job = Job(self.directory, identity, self.options.shard_tokens)
            if state is not None:
                job.load(state)
                if job.saved_progress:
                    self._note(f"going on after {job.documents:,} documents, {job.tokens:,} tokens")
            try:
                return self._work(job)
            except BaseException:
                if not job.saved_progress:
                    remove_own_files(self.directory)
                    if created:
                        with contextlib.suppress(OSError):
                            self.directory.rmdir()
                raise

    def _work(self, job: Job) -> Manifest:
        job.clean_up()
        job.save()
        tokenizer = self._tokenizer(job)
        self._tokenise(job, tokenizer)
        if not job.splits["train"].examples:
            raise CorpusError("the text holds no token, only spaces and control characters: nothing to train on")
        job.finish()
        manifest = Manifest(
            options=self._manifest_options(),
            tokenizer_hash=tokenizer.hash,
            vocab_size=tokenizer.vocab_size,
            special_tokens=tokenizer.special_tokens,
            input_files=len(self.files),
            input_bytes=self.total_bytes,
            long_lines=job.long_lines,
            splits=job.splits,
        )
        manifest.save(self.directory)
        job.clean_up()
        return manifest

    def _existing_state(self) -> dict[str, Any] | None:
        """The state of the job in the output directory, None for a new job."""
        directory = self.directory
        if self.options.overwrite:
            if not is_prepared(directory):
                _refuse_foreign_files(directory)
            remove_own_files(directory)
            return None
        state = read_state(directory)
        if state is None:
            if is_prepared(directory):
                raise ConfigError(
                    f"{directory} holds a corpus that was prepared elsewhere. Use --overwrite, or another --output"
                )
            _refuse_foreign_files(directory)
        return state

    def _finished_before(self) -> Manifest:
        manifest = Manifest.load(self.directory)
        for split in manifest.splits.values():
            for entry in split.shards:
                Shard(self.directory / entry.name)
        self._note(f"{self.directory} is already prepared from this text with these options: nothing to do")
        return manifest

    def _tokenizer(self, job: Job) -> Tokenizer:
        """The given tokenizer, the one an earlier run trained, or a new one, saved in the output directory."""
        if job.tokenizer_hash is not None:
            tokenizer = self.given or Tokenizer.load(self.directory)
            if tokenizer.hash != job.tokenizer_hash:
                raise ShardError(f"the tokenizer in {self.directory} was changed. Start again with --overwrite")
            return tokenizer
        for path in (*self.train.skipped, *self.validation.skipped):
            self._note(f"skipped {path}: not a text file by its name")
        if self.validation.files and next(DocumentReader(self.validation.files, self.read).parts(), None) is None:
            raise CorpusError("the validation input holds no text")
        if self.given is not None:
            self._require_documents(self._count_documents(stop_at=self.every // 2 + 1))
            tokenizer = self.given
        else:
            tokenizer = self._train_tokenizer()
        tokenizer.save(self.directory, model_max_length=self.options.max_length)
        job.tokenizer_hash = tokenizer.hash
        job.save()
        return tokenizer

    def _train_tokenizer(self) -> Tokenizer:
        reader = DocumentReader(self.train.files, self.read)
        documents = 0

        def texts() -> Iterator[str]:
            nonlocal documents
            for part, _ in reader.parts():
                documents = part.document + 1
                self._progress("reading", reader.bytes_done, documents, 0)
                if not self._held_out(part.document):
                    yield part.text

        sample = thin_out(texts(), self.training.sample_characters)
        self._require_documents(documents)
        self._progress("training", self.total_bytes, documents, 0, at_once=True)
        tokenizer = train_tokenizer(sample, self.training)
        if tokenizer.vocab_size < self.training.vocab_size:
            self._note(
                f"the vocabulary has {tokenizer.vocab_size} entries, {self.training.vocab_size} were asked for: "
                "there is no more text to learn them from"
            )
        return tokenizer

    def _count_documents(self, stop_at: int) -> int:
        documents = 0
        reader = DocumentReader(self.train.files, self.read)
        for part, _ in reader.parts():
            documents = part.document + 1
            self._progress("reading", reader.bytes_done, documents, 0)
            if documents >= stop_at:
                break
        return documents

    def _require_documents(self, documents: int) -> None:
        if documents == 0:
            raise CorpusError("the input holds no text: every file is empty or blank")
        if self.every // 2 < documents:
            return
        separated = "separated by blank lines" if self.read.documents == "blank-line" else "one a file"
        ways = "name held-out text with --validation-input, or use --validation-fraction 0 to hold out none"
        if documents > 1:
            ways = f"use --validation-fraction {1 / documents:.2g} or more, {ways}"
        raise CorpusError(
            f"the text has too few documents ({documents}, {separated}) to hold out one in {self.every}: {ways}"
        )

    def _held_out(self, document: int) -> bool:
        return self.every > 0 and document % self.every == self.every // 2

    def _split(self, document: int, file: int) -> str:
        return "validation" if file >= len(self.train.files) or self._held_out(document) else "train"

    def _units(self, start: Position) -> Iterator[tuple[Unit, tuple[Position, int]]]:
        reader = DocumentReader(self.files, self.read)
        unit: Unit = []
        size = 0
        position = start
        for part, position in reader.parts(start):
            unit.append((self._split(part.document, position.file), part))
            size += len(part.text)
            if size >= UNIT_CHARACTERS:
                yield unit, (position, reader.bytes_done)
                unit, size = [], 0
        if unit:
            yield unit, (position, self.total_bytes)

    def _tokenise(self, job: Job, tokenizer: Tokenizer) -> None:
        build = BuildOptions(
            tokenizer_json=tokenizer.backend.to_str(),
            names=tokenizer.names,
            layout=self.options.examples,
            overflow=self.options.overflow,
            max_length=self.options.max_length,
            seed=self.options.seed,
        )
        self._progress("tokenising", job.bytes_done, job.documents, job.tokens, at_once=True)
        with DeferredSignals() as signals:
            results = build_all(self._units(job.position), build, self._workers())
            try:
                with contextlib.closing(results):
                    for result, (position, bytes_done) in results:
                        job.add(result, position, bytes_done)
                        self._progress("tokenising", bytes_done, job.documents, job.tokens)
                        if signals.received is not None:
                            break
            except WorkerError:
                if signals.received is None:  # else they were told to stop as we were
                    raise
            if signals.received is not None:
                job.save()
        if signals.received is not None:
            signal.raise_signal(signals.received)
            raise KeyboardInterrupt  # the caller's handler let it pass, but the job is not done

    def _workers(self) -> int:
        if self.options.workers is not None:
            return self.options.workers
        affinity = getattr(os, "sched_getaffinity", None)
        available = len(affinity(0)) if affinity else os.cpu_count() or 1
        return max(1, min(available, self.total_bytes // _BYTES_WORTH_A_WORKER))

    def _manifest_options(self) -> dict[str, Any]:
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

    def _identity(self) -> dict[str, Any]:
        return {**self._manifest_options(), "inputs": content_hash([_stamps(self.train), _stamps(self.validation)])}

    def _progress(self, stage: str, bytes_done: int, documents: int, tokens: int, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if now < self.last_report + _SECONDS_BETWEEN_REPORTS and not at_once:
            return
        self.last_report = now
        self.report(PrepareProgress(stage, bytes_done, self.total_bytes, documents, tokens))

    def _note(self, message: str) -> None:
        self.report(PrepareProgress("note", message=message))


def _stamps(sources: Sources) -> list[tuple[str, int, int]]:
    return [(str(source.path.resolve()), source.bytes, source.modified_ns) for source in sources.files]


def _refuse_foreign_files(directory: Path) -> None:
    """An output directory must be empty, or prepare's own: nothing of the user's is overwritten."""
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    if names:
        raise ConfigError(f"{directory} holds other files ({', '.join(names[:3])}): give a new or empty directory")
