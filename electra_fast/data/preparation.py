"""Text to token shards: the whole job behind ``electra-fast prepare``.

Stopped by Ctrl-C, SIGTERM, SIGKILL or a full disk, the same call goes on where it was; the bytes it writes depend
neither on that nor on the number of workers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra_fast.data.corpus import DocumentReader
from electra_fast.data.job import Job, check_identity, is_prepared, open_directory, read_state, remove_own_files
from electra_fast.data.manifest import MANIFEST_NAME, Manifest
from electra_fast.data.preparation_options import PrepareOptions
from electra_fast.data.request import Request
from electra_fast.data.shards import Shard
from electra_fast.data.text_pass import Listener, Reporter, TextPass, usable_workers
from electra_fast.data.tokenizer import Tokenizer
from electra_fast.data.tokenizer_training import thin_out, train_tokenizer
from electra_fast.errors import ConfigError, CorpusError, ShardError


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
    request = Request(options)
    return _Preparation(request, Reporter(progress, request.total_bytes)).run()


class _Preparation:
    """One call of `prepare`."""

    def __init__(self, request: Request, report: Reporter) -> None:
        self.request = request
        self.report = report
        self.options = request.options
        self.directory = request.directory

    def run(self) -> Manifest:
        identity = self.request.identity()
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
                    self.report.note(f"going on after {job.documents:,} documents, {job.tokens:,} tokens")
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
            options=self.request.manifest_options(),
            tokenizer_hash=tokenizer.hash,
            vocab_size=tokenizer.vocab_size,
            special_tokens=tokenizer.special_tokens,
            input_files=len(self.request.files),
            input_bytes=self.request.total_bytes,
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
                refuse_foreign_files(directory)
            remove_own_files(directory)
            return None
        state = read_state(directory)
        if state is None:
            if is_prepared(directory):
                raise ConfigError(
                    f"{directory} holds a corpus that was prepared elsewhere. Use --overwrite, or another --output"
                )
            refuse_foreign_files(directory)
        return state

    def _finished_before(self) -> Manifest:
        manifest = Manifest.load(self.directory)
        for split in manifest.splits.values():
            for entry in split.shards:
                Shard(self.directory / entry.name)
        self.report.note(f"{self.directory} is already prepared from this text with these options: nothing to do")
        return manifest

    def _tokenizer(self, job: Job) -> Tokenizer:
        """The given tokenizer, the one an earlier run trained, or a new one, saved in the output directory."""
        if job.tokenizer_hash is not None:
            tokenizer = self.request.given or Tokenizer.load(self.directory)
            if tokenizer.hash != job.tokenizer_hash:
                raise ShardError(f"the tokenizer in {self.directory} was changed. Start again with --overwrite")
            return tokenizer
        for path in (*self.request.train.skipped, *self.request.validation.skipped):
            self.report.note(f"skipped {path}: not a text file by its name")
        if (
            self.request.validation.files
            and next(DocumentReader(self.request.validation.files, self.request.read).parts(), None) is None
        ):
            raise CorpusError("the validation input holds no text")
        if self.request.given is not None:
            self._require_documents(self._count_documents(stop_at=self.request.every // 2 + 1))
            tokenizer = self.request.given
        else:
            tokenizer = self._train_tokenizer()
        tokenizer.save(self.directory, model_max_length=self.options.max_length)
        job.tokenizer_hash = tokenizer.hash
        job.save()
        return tokenizer

    def _train_tokenizer(self) -> Tokenizer:
        reader = DocumentReader(self.request.train.files, self.request.read)
        documents = 0

        def texts() -> Iterator[str]:
            nonlocal documents
            for part, _ in reader.parts():
                documents = part.document + 1
                self.report.progress("reading", reader.bytes_done, documents, 0)
                if not self._held_out(part.document):
                    yield part.text

        sample = thin_out(texts(), self.request.training.sample_characters)
        self._require_documents(documents)
        self.report.progress("training", self.request.total_bytes, documents, 0, at_once=True)
        tokenizer = train_tokenizer(sample, self.request.training)
        if tokenizer.vocab_size < self.request.training.vocab_size:
            self.report.note(
                f"the vocabulary has {tokenizer.vocab_size} entries, {self.request.training.vocab_size} were asked "
                "for: there is no more text to learn them from"
            )
        return tokenizer

    def _count_documents(self, stop_at: int) -> int:
        documents = 0
        reader = DocumentReader(self.request.train.files, self.request.read)
        for part, _ in reader.parts():
            documents = part.document + 1
            self.report.progress("reading", reader.bytes_done, documents, 0)
            if documents >= stop_at:
                break
        return documents

    def _require_documents(self, documents: int) -> None:
        if documents == 0:
            raise CorpusError("the input holds no text: every file is empty or blank")
        if self.request.every // 2 < documents:
            return
        separated = "separated by blank lines" if self.request.read.documents == "blank-line" else "one a file"
        ways = "name held-out text with --validation-input, or use --validation-fraction 0 to hold out none"
        if documents > 1:
            ways = f"use --validation-fraction {1 / documents:.2g} or more, {ways}"
        raise CorpusError(
            f"the text has too few documents ({documents}, {separated}) to hold out one in {self.request.every}: {ways}"
        )

    def _held_out(self, document: int) -> bool:
        return self.request.every > 0 and document % self.request.every == self.request.every // 2

    def _tokenise(self, job: Job, tokenizer: Tokenizer) -> None:
        request = self.request

        def split(document: int, file: int) -> str:
            return "validation" if file >= len(request.train.files) or self._held_out(document) else "train"

        def progress(at_once: bool = False) -> None:
            self.report.progress("tokenising", job.bytes_done, job.documents, job.tokens, at_once=at_once)

        workers = usable_workers(self.options.workers, request.total_bytes)
        progress(at_once=True)
        TextPass(request.files, request.read, request.build_options(tokenizer), workers, split).run(job, progress)
        progress(at_once=True)


def refuse_foreign_files(directory: Path) -> None:
    """An output directory must be empty, or prepare's own: nothing of the user's is overwritten."""
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    if names:
        raise ConfigError(f"{directory} holds other files ({', '.join(names[:3])}): give a new or empty directory")
