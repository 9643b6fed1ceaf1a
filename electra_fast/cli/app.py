"""The ``electra-fast`` command line: one function a command, and one place where an error becomes a line and an exit
code.

Exit codes: 0 done, 2 something the user can mend (a one-line message says what), 130 interrupted (Ctrl-C), 143
terminated (SIGTERM).
"""

import inspect
import os
import sys
from typing import NoReturn

import typer

import electra_fast
from electra_fast.cli.bench import bench
from electra_fast.cli.compress import compress
from electra_fast.cli.demo import demo
from electra_fast.cli.doctor import doctor
from electra_fast.cli.evaluate import evaluate
from electra_fast.cli.explain import explain
from electra_fast.cli.export import export
from electra_fast.cli.finetune import finetune
from electra_fast.cli.mistakes import FileMistake, UsageError, command_name, flags, in_options, usage_message
from electra_fast.cli.predict import predict
from electra_fast.cli.prepare import prepare
from electra_fast.cli.pretrain import pretrain
from electra_fast.cli.report import report
from electra_fast.cli.selftrain import selftrain
from electra_fast.cli.serve import serve
from electra_fast.cli.show import show
from electra_fast.cli.status import status
from electra_fast.cli.tune import tune
from electra_fast.errors import ElectraError
from electra_fast.files import DISK_FULL_ADVICE, is_disk_full

_INTERRUPTED = 130

app = typer.Typer(
    name="electra-fast",
    help="Pretrain, fine-tune and run ELECTRA fast in PyTorch.\n\n"
    "From raw text to a checkpoint: [bold]prepare[/] turns text into token shards, [bold]pretrain[/] trains on them, "
    "[bold]status[/] says how that goes, at any time, and [bold]report[/] makes a page of it. "
    "From a checkpoint to use: [bold]finetune[/] teaches it a task, [bold]tune[/] finds the best "
    "options for that, [bold]selftrain[/] learns from text without labels, too, [bold]predict[/] does the task. "
    "[bold]evaluate[/] says how well and where not, [bold]explain[/] which words made it say so, "
    "[bold]serve[/] does it over HTTP. "
    "[bold]compress[/] makes a model smaller, [bold]export[/] writes it for other programs. "
    "[bold]demo[/] does both on text that is already on this machine. [bold]doctor[/] says what runs where, and why. "
    "[bold]bench[/] measures it against the best of what else is there.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = {
    command.__name__: command
    for command in (
        prepare,
        pretrain,
        status,
        report,
        show,
        finetune,
        tune,
        selftrain,
        predict,
        evaluate,
        explain,
        serve,
        export,
        compress,
        demo,
        doctor,
        bench,
    )
}
for command in COMMANDS.values():
    # A paragraph a line: typer would keep the line ends of the source, which fit no terminal.
    app.command(help="\n\n".join(" ".join(text.split()) for text in inspect.getdoc(command).split("\n\n")))(command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"electra-fast {electra_fast.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; the only place that turns an error into an exit code."""
    try:
        code = app(prog_name="electra-fast", standalone_mode=False)
    except UsageError as error:
        if not sys.argv[1:]:  # the message is the help
            error.show()
            sys.exit(2)
        _fail(usage_message(error, sys.argv[1:], COMMANDS))
    except ElectraError as error:
        command = None if isinstance(error, FileMistake) else COMMANDS.get(command_name(sys.argv[1:]))
        _fail(in_options(str(error), flags(command) if command else {}))
    except OSError as error:
        if is_disk_full(error):
            where = f" for {error.filename}" if error.filename else ""
            _fail(f"no space left on the disk{where}. {DISK_FULL_ADVICE}")
        if not error.filename:
            raise
        _fail(f"cannot read or write {error.filename}: {error.strerror}")
    except typer.Abort:  # what typer before 0.15 makes of Ctrl-C
        code = _INTERRUPTED
    if code == _INTERRUPTED:  # what it makes of it since
        print("interrupted", file=sys.stderr)
    sys.exit(code)


def _fail(message: str) -> NoReturn:
    process = os.environ.get("RANK")  # torchrun's
    print(f"error: {message}" if process is None else f"error (process {process}): {message}", file=sys.stderr)
    sys.exit(2)
