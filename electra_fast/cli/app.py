"""The ``electra-fast`` command line: one function a command, and one place where an error becomes a line and an exit
code.

Exit codes: 0 done, 2 something the user can mend (a one-line message says what), 130 interrupted (Ctrl-C), 143
terminated (SIGTERM).
"""

import errno
import sys

import typer

import electra_fast
from electra_fast.cli.demo import demo
from electra_fast.cli.doctor import doctor
from electra_fast.cli.prepare import prepare
from electra_fast.cli.pretrain import pretrain
from electra_fast.cli.show import show
from electra_fast.errors import ElectraError

app = typer.Typer(
    name="electra-fast",
    help="Pretrain and run ELECTRA fast in PyTorch.\n\n"
    "From raw text to a checkpoint: [bold]prepare[/] turns text into token shards, [bold]pretrain[/] trains on them. "
    "[bold]demo[/] does both on text that is already on this machine. [bold]doctor[/] says what runs where, and why.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(prepare)
app.command()(pretrain)
app.command()(show)
app.command()(demo)
app.command()(doctor)


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
        app()
    except ElectraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        print(f"error: no space left on the device{where}: free some and run the same command again", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
