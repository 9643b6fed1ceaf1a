"""A prepare job shared by many machines, or tasks of a cluster, which meet only in its output directory.

The input files are cut, in order, into pieces of whole files. Which machine does which piece follows from the files and
the number of machines alone; each piece is a small job of its own in ``parts/<number>/``, with the state of `Job`, so
that whatever is stopped goes on where it was. Whoever finds all pieces finished writes the manifest. What is random in
a document's examples, and whether it is held out, depends on its piece and its number there, so that the corpus is the
same, byte for byte, for any number of machines in any order (docs/data.md, "Many machines").
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from electra_fast.data.job import PARTS_NAME, PLAN_FORMAT, Job, check_identity, is_at_work, open_directory, read_state
from electra_fast.data.manifest import MANIFEST_NAME, PLAN_NAME, SPLITS, Manifest, Split, content_hash
from electra_fast.data.preparation import refuse_foreign_files
from electra_fast.data.preparation_options import PrepareOptions
from electra_fast.data.request import Request
from electra_fast.data.sources import Source
from electra_fast.data.text_pass import Listener, Reporter, TextPass, usable_workers
from electra_fast.errors import ConfigError, CorpusError, ShardError
from electra_fast.files import write_text

PIECE_BYTES = 256 << 20  # of files as they are on the disk, and at least one file
_RESULT_NAME = "part.json"
_DOCUMENTS_OF_A_PIECE = 1 << 40
_RANKS = ("RANK", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID")


def prepare_share(
    options: PrepareOptions, *, machines: int, machine: int | None = None, progress: Listener | None = None
) -> Manifest | None:
    """Do one machine's share of a job, and finish the corpus if nothing else is left.

    Args:
        options: the same on all machines; ``tokenizer`` must be given, since all need it before they begin, and
            ``overwrite`` is not possible.
        machines: that share the job. A later call may name another number: finished pieces stay.
        machine: this one's number from 0 on. Default: RANK, SLURM_ARRAY_TASK_ID or SLURM_PROCID of the environment.
        progress: called now and then, with the bytes of this machine's share.

    Returns:
        The manifest, or None while pieces of other machines are unfinished.

    Raises:
        ConfigError: options out of range, or other than those of the job in ``output``.
        CorpusError, TokenizerError, ShardError, DiskFullError: as `electra_fast.data.prepare`.
    """
    if machines < 1:
        raise ConfigError(f"machines must be at least 1, got {machines}")
    machine = machine_of(os.environ) if machine is None else machine
    if not 0 <= machine < machines:
        raise ConfigError(f"machine must be from 0 to {machines - 1} with {machines} machines, got {machine}")
    if options.tokenizer is None:
        raise ConfigError(
            "tokenizer is missing: machines that share a job need it before they begin. Prepare a sample of the text "
            "first, and give the directory it is written to"
        )
    if options.overwrite:
        raise ConfigError("overwrite and machines exclude each other: remove the output directory before they start")
    return _SharedJob(Request(options), progress, machines, machine).run()


def machine_of(environment: Mapping[str, str]) -> int:
    """This task's number from 0 on: RANK (torchrun), SLURM_ARRAY_TASK_ID or SLURM_PROCID, the first that is set.

    Raises: ConfigError if none is, or it is no number.
    """
    for name in _RANKS:
        if name in environment:
            first = environment.get("SLURM_ARRAY_TASK_MIN", "0") if name == "SLURM_ARRAY_TASK_ID" else "0"
            try:
                return int(environment[name]) - int(first)
            except ValueError:
                raise ConfigError(f"machine must be a number, got {name}={environment[name]!r}") from None
    raise ConfigError(f"machine is missing: give it, or start this where one of {', '.join(_RANKS)} is set")


@dataclass(frozen=True)
class Piece:
    """Whole files that are prepared together; ``split`` is where the documents go that are not held out."""

    number: int
    split: str
    files: list[Source]

    @property
    def bytes(self) -> int:
        return sum(source.bytes for source in self.files)


def cut_into_pieces(train: list[Source], validation: list[Source]) -> list[Piece]:
    """Files in order, in pieces of `PIECE_BYTES` or a little more."""
    pieces: list[Piece] = []
    for split, files in (("train", train), ("validation", validation)):
        gathered: list[Source] = []
        for index, source in enumerate(files):
            gathered.append(source)
            if sum(file.bytes for file in gathered) >= PIECE_BYTES or index == len(files) - 1:
                pieces.append(Piece(len(pieces), split, gathered))
                gathered = []
    return pieces


def share_of(pieces: list[Piece], machines: int, machine: int) -> list[Piece]:
    """The pieces of one machine: the largest first, each goes to the machine that has the fewest bytes so far."""
    loads = [0] * machines
    mine = []
    for piece in sorted(pieces, key=lambda piece: (-piece.bytes, piece.number)):
        least = min(range(machines), key=loads.__getitem__)
        loads[least] += piece.bytes
        if least == machine:
            mine.append(piece)
    return mine


class _SharedJob:
    def __init__(self, request: Request, progress: Listener | None, machines: int, machine: int) -> None:
        assert request.given is not None
        self.request = request
        self.tokenizer = request.given
        self.directory = request.directory
        self.machine = machine
        self.pieces = cut_into_pieces(request.train.files, request.validation.files)
        self.mine = share_of(self.pieces, machines, machine)
        self.options = {**request.manifest_options(), "piece_bytes": PIECE_BYTES}
        self.identity = {**request.identity(), "piece_bytes": PIECE_BYTES}
        self.report = Reporter(progress, sum(piece.bytes for piece in self.mine))
        self.before = [0, 0, 0]  # bytes, documents and tokens of the pieces behind this machine

    def run(self) -> Manifest | None:
        self._agree()
        if (self.directory / MANIFEST_NAME).exists():
            self.report.note(f"{self.directory} is already prepared from this text with these options: nothing to do")
            return Manifest.load(self.directory)
        for piece in self.mine:
            self._prepare(piece)
        missing = [piece.number for piece in self.pieces if not (self._folder(piece) / _RESULT_NAME).exists()]
        if missing:
            self.report.note(
                f"{len(self.pieces) - len(missing)} of {len(self.pieces)} pieces are finished, other machines have the "
                "rest; the last one to finish writes the manifest"
            )
            return None
        return self._merge()

    def _agree(self) -> None:
        """Write what the job is, or compare it with what another machine has written."""
        with contextlib.suppress(FileExistsError):
            self.directory.mkdir(parents=True)
        path = self.directory / PLAN_NAME
        if not path.exists():
            try:
                refuse_foreign_files(self.directory)
            except ConfigError:
                if not path.exists():  # else another machine was a moment earlier
                    raise
            plan = {"format": PLAN_FORMAT, "identity": self.identity}
            with self._publishing() as folder:
                write_text(folder / PLAN_NAME, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{path} is damaged ({error}): remove {self.directory} and start again") from None
        check_identity(self.directory, stored, self.identity)

    @contextlib.contextmanager
    def _publishing(self) -> Iterator[Path]:
        """A folder of this machine's own, whose files then take their places one by one, each in one step."""
        folder = self.directory / f".machine-{self.machine}"
        folder.mkdir(exist_ok=True)
        yield folder
        for path in sorted(folder.iterdir()):
            os.replace(path, self.directory / path.name)
        folder.rmdir()

    def _folder(self, piece: Piece) -> Path:
        return self.directory / PARTS_NAME / f"{piece.number:05d}"

    def _job_identity(self, piece: Piece) -> dict[str, Any]:
        return {"plan": content_hash(self.identity), "piece": piece.number}

    def _prepare(self, piece: Piece) -> None:
        folder = self._folder(piece)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _RESULT_NAME).exists():
            if is_at_work(folder):  # the number of machines was changed while some were at work
                self.report.note(f"piece {piece.number} is being prepared by another process: left to it")
                return
            with open_directory(folder):
                self._tokenise(piece, folder)
        self.before[0] += piece.bytes

    def _tokenise(self, piece: Piece, folder: Path) -> None:
        request, every = self.request, self.request.every
        job = Job(folder, self._job_identity(piece), self.options["shard_tokens"], tokenizer_hash=self.tokenizer.hash)
        state = read_state(folder)
        if state is not None:
            check_identity(folder, state["identity"], job.identity)
            job.load(state)
        job.clean_up()

        def split(document: int, file: int) -> str:
            held_out = every > 0 and (piece.number + document) % every == every // 2
            return "validation" if held_out else piece.split

        def progress(at_once: bool = False) -> None:
            done = (job.bytes_done, job.documents, job.tokens)
            self.report.progress(
                "tokenising", *(a + b for a, b in zip(self.before, done, strict=True)), at_once=at_once
            )

        build = request.build_options(self.tokenizer)
        workers = usable_workers(request.options.workers, piece.bytes)
        first = piece.number * _DOCUMENTS_OF_A_PIECE
        TextPass(piece.files, request.read, build, workers, split, first).run(job, progress)
        progress(at_once=True)
        job.finish()
        result = {"long_lines": job.long_lines, "splits": {name: asdict(split) for name, split in job.splits.items()}}
        write_text(folder / _RESULT_NAME, json.dumps({**self._job_identity(piece), **result}, indent=2) + "\n")
        job.clean_up()
        self.before[1] += job.documents
        self.before[2] += job.tokens

    def _merge(self) -> Manifest:
        """Count all pieces together. Two machines that do it at once write the same bytes."""
        splits = {name: Split() for name in SPLITS}
        long_lines = 0
        for piece in self.pieces:
            result = self._result(piece)
            long_lines += result["long_lines"]
            for name, counts in result["splits"].items():
                splits[name].add(Split.from_json(counts), f"{PARTS_NAME}/{piece.number:05d}/")
        if not splits["train"].examples:
            raise CorpusError("the text holds no token, only spaces and control characters: nothing to train on")
        if self.request.every and not splits["validation"].examples:
            self.report.note("nothing is held out: the text has too few documents for this --validation-fraction")
        with self._publishing() as folder:
            self.tokenizer.save(folder, model_max_length=self.options["max_length"])
        manifest = Manifest(
            options=self.options,
            tokenizer_hash=self.tokenizer.hash,
            vocab_size=self.tokenizer.vocab_size,
            special_tokens=self.tokenizer.special_tokens,
            input_files=len(self.request.files),
            input_bytes=self.request.total_bytes,
            long_lines=long_lines,
            splits=splits,
        )
        with self._publishing() as folder:  # last: it is what makes the directory a finished corpus
            manifest.save(folder)
        return manifest

    def _result(self, piece: Piece) -> dict[str, Any]:
        path = self._folder(piece) / _RESULT_NAME
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if {name: result[name] for name in ("plan", "piece")} == self._job_identity(piece):
                return result
            reason = "it is of another job"
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error)
        raise ShardError(f"{path} is damaged ({reason}): remove {path.parent} and run this piece's machine again")
