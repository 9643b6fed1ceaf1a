"""``electra-fast prepare``: text to token shards."""

from __future__ import annotations

import signal
import sys
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from electra_fast.data import Manifest, PrepareProgress

_UNKNOWN_SHARE_TO_MENTION = 0.02


class Examples(str, Enum):
    """How examples are made."""

    two_segment = "two-segment"
    document = "document"


class Overflow(str, Enum):
    """What happens to text that does not fit an example."""

    carry = "carry"
    truncate = "truncate"


class Documents(str, Enum):
    """What ends a document of plain text."""

    blank_line = "blank-line"
    file = "file"


class Errors(str, Enum):
    """What to do with bytes that do not decode."""

    strict = "strict"
    replace = "replace"


def prepare(
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            help="Text: a file, a directory (recursive) or a quoted pattern; may be given several times. "
            ".txt, .jsonl, .parquet and .arrow, the first two also as .gz, .xz, .zst, .bz2.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the corpus.", show_default=False)],
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="Use this vocab.txt, tokenizer.json or Hugging Face directory. Without it a WordPiece is trained on "
            "the text.",
            rich_help_panel="Tokenizer",
        ),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            help="Entries of a trained vocabulary, at most. [dim]\\[default: 30522][/]", rich_help_panel="Tokenizer"
        ),
    ] = None,
    lowercase: Annotated[
        bool | None,
        typer.Option(
            "--lowercase/--cased",
            help="Lower-case the text, or keep case. [dim]\\[default: lowercase, unless a given vocab.txt has "
            "upper-case letters][/]",
            show_default=False,
            rich_help_panel="Tokenizer",
        ),
    ] = None,
    strip_accents: Annotated[
        bool | None,
        typer.Option(
            "--strip-accents/--keep-accents",
            help="Remove accents (é to e), or keep them. [dim]\\[default: strip if lowercase][/]",
            show_default=False,
            rich_help_panel="Tokenizer",
        ),
    ] = None,
    min_frequency: Annotated[
        int | None,
        typer.Option(
            help="How often a character or pair must occur to get into the vocabulary. [dim]\\[default: 2][/]",
            rich_help_panel="Tokenizer",
        ),
    ] = None,
    sample_characters: Annotated[
        int | None,
        typer.Option(
            help="Most characters to train the tokenizer on, spread over the text. [dim]\\[default: 200000000][/]",
            rich_help_panel="Tokenizer",
        ),
    ] = None,
    max_length: Annotated[
        int, typer.Option(help="Most tokens of an example, special ones included.", rich_help_panel="Examples")
    ] = 128,
    examples: Annotated[
        Examples,
        typer.Option(
            help="ELECTRA's two segments (10 % one segment, 5 % short), or a document in full-length pieces.",
            rich_help_panel="Examples",
        ),
    ] = Examples.two_segment,
    overflow: Annotated[
        Overflow,
        typer.Option(
            help="Text too long for a two-segment example begins the next one, or is cut off as in Google's code.",
            rich_help_panel="Examples",
        ),
    ] = Overflow.carry,
    seed: Annotated[
        int, typer.Option(help="Of the random choices in making examples.", rich_help_panel="Examples")
    ] = 0,
    documents: Annotated[
        Documents,
        typer.Option(help="What ends a document of plain text; the end of a file always does.", rich_help_panel="Text"),
    ] = Documents.blank_line,
    text_field: Annotated[
        str, typer.Option(help="Field of a jsonl row, or column of a parquet or Arrow file.", rich_help_panel="Text")
    ] = "text",
    encoding: Annotated[
        str, typer.Option(help="Of plain text, for instance utf-8 or latin-1.", rich_help_panel="Text")
    ] = "utf-8",
    errors: Annotated[
        Errors, typer.Option(help="Stop at bytes that do not decode, or replace them.", rich_help_panel="Text")
    ] = Errors.strict,
    validation_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the documents held out for evaluation, 0 to 0.5. [dim]\\[default: 0.01][/]",
            rich_help_panel="Validation",
        ),
    ] = None,
    validation_inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--validation-input", help="Held-out text in files of its own, like --input.", rich_help_panel="Validation"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes. The result is the same for any number. [dim]\\[default: one for each CPU][/]",
            rich_help_panel="Job",
        ),
    ] = None,
    shard_tokens: Annotated[
        int, typer.Option(help="Tokens in a shard; after each the job can be resumed.", rich_help_panel="Job")
    ] = 1 << 25,
    machines: Annotated[
        int | None,
        typer.Option(
            help="Share the job among this many machines or tasks, each started with the same command on a shared "
            "directory. Needs --tokenizer. The result is the same for any number.",
            rich_help_panel="Job",
        ),
    ] = None,
    machine: Annotated[
        int | None,
        typer.Option(
            help="This one's number, from 0 on. [dim]\\[default: RANK, SLURM_ARRAY_TASK_ID or SLURM_PROCID][/]",
            rich_help_panel="Job",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Throw away what an earlier prepare left in OUTPUT.", rich_help_panel="Job"),
    ] = False,
) -> None:
    """Turn text into token shards to pretrain on.

    One sentence or paragraph a line; a blank line or the end of a file ends a document. Stopped in the middle
    (Ctrl-C, kill, full disk), the same command goes on where it was; a finished one does nothing.

    [bold]Examples[/]

    [dim]$[/] electra-fast prepare --input books.txt --output corpus

    [dim]$[/] electra-fast prepare -i 'wiki/*.jsonl.zst' --text-field body -o corpus --vocab-size 32000 --cased

    [dim]$[/] electra-fast prepare -i texts/ -o corpus --tokenizer bert/vocab.txt --max-length 512

    [dim]$[/] srun --ntasks 32 electra-fast prepare -i texts/ -o corpus --tokenizer sample --machines 32
    """
    from rich.console import Console

    from electra_fast.cli.progress import preparing
    from electra_fast.data import PrepareOptions, prepare_share
    from electra_fast.data import prepare as job
    from electra_fast.errors import ConfigError

    if machine is not None and machines is None:
        raise ConfigError("machine is one of several: say of how many with --machines")

    options = PrepareOptions(
        inputs=inputs,
        output=output,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        sample_characters=sample_characters,
        lowercase=lowercase,
        strip_accents=strip_accents,
        max_length=max_length,
        examples=examples.value,
        overflow=overflow.value,
        documents=documents.value,
        text_field=text_field,
        encoding=encoding,
        errors=errors.value,
        validation_fraction=validation_fraction,
        validation_inputs=validation_inputs or (),
        seed=seed,
        shard_tokens=shard_tokens,
        workers=workers,
        overwrite=overwrite,
    )
    console = Console()
    meter = _Meter()
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with preparing(console) as show:

            def listen(event: PrepareProgress) -> None:
                meter(event)
                show(event)

            if machines is None:
                manifest = job(options, listen)
            else:
                manifest = prepare_share(options, machines=machines, machine=machine, progress=listen)
    except (KeyboardInterrupt, SystemExit) as stop:
        without = " without --overwrite" if overwrite else ""
        print(f"stopped: run the same command again{without} to go on", file=sys.stderr)
        sys.exit(130 if isinstance(stop, KeyboardInterrupt) else stop.code)
    finally:
        signal.signal(signal.SIGTERM, before)
    if manifest is not None:
        _summarise(console, manifest, output)
    if meter.began is not None:
        console.print(meter.speed(), highlight=False)


def _terminate(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


class _Meter:
    """Time and tokens of this run, without those of a run it goes on from."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.began: float | None = None
        self.tokens_before = self.tokens = 0

    def __call__(self, event: PrepareProgress) -> None:
        if event.stage == "tokenising" and self.began is None:
            self.began = time.monotonic()
            self.tokens_before = event.tokens
        self.tokens = max(self.tokens, event.tokens)

    def speed(self) -> str:
        now = time.monotonic()
        tokens = self.tokens - self.tokens_before
        seconds = now - self.began if self.began is not None else 0.0
        speed = f"{tokens / seconds:,.0f} tokens/s" if seconds else ""
        return f"{now - self.started:,.1f} s, of them {seconds:,.1f} s for text to tokens: {speed}"


def _summarise(console: Console, manifest: Manifest, output: Path) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    shown = [name for name, split in manifest.splits.items() if split.examples]
    for name in shown:
        table.add_column(name, justify="right")
    splits = [manifest.splits[name] for name in shown]

    def row(title: str, values: list[str]) -> None:
        table.add_row(title, *values)

    row("documents", [f"{split.documents:,}" for split in splits])
    row("lines", [f"{split.lines:,}" for split in splits])
    row("examples", [f"{split.examples:,}" for split in splits])
    row("with two segments", [f"{split.two_segment_examples / split.examples:.1%}" for split in splits])
    row("tokens", [f"{split.tokens:,}" for split in splits])
    row("unknown tokens", [f"{split.unknown_tokens / split.tokens:.3%}" for split in splits])
    row("cut off and lost", [f"{split.truncated_tokens:,}" for split in splits])
    row(f"mean length of {manifest.max_length}", [f"{manifest.fill(name):.1%}" for name in shown])
    row("shards", [f"{len(split.shards):,}" for split in splits])
    console.print(table)
    console.print(f"{output}: {manifest.vocab_size:,} vocabulary entries", highlight=False)
    if manifest.long_lines:
        console.print(f"lines longer than 100,000 characters, cut at spaces: {manifest.long_lines:,}", highlight=False)
    train = manifest.splits["train"]
    if train.unknown_tokens > _UNKNOWN_SHARE_TO_MENTION * train.tokens:
        console.print(
            "[yellow]Many words are unknown to this tokenizer.[/] "
            "Does its language, or --lowercase/--cased, fit the text?"
        )
