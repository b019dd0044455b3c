"""The command `normwright`: its commands and what they share."""

from __future__ import annotations

from typing import Annotated

import typer

from normwright import __version__
from normwright.cli.adapt import EXAMPLES as ADAPT
from normwright.cli.adapt import adapt
from normwright.cli.backends import backends
from normwright.cli.batch_size import EXAMPLES as BATCH_SIZE
from normwright.cli.batch_size import batch_size
from normwright.cli.claims import app as claims
from normwright.cli.compare import compare
from normwright.cli.convert import EXAMPLES as CONVERT
from normwright.cli.convert import convert
from normwright.cli.doctor import doctor
from normwright.cli.doctor_options import EXAMPLES as DOCTOR
from normwright.cli.fold import EXAMPLES as FOLD
from normwright.cli.fold import fold
from normwright.cli.in_python import Commands
from normwright.cli.lr import EXAMPLES as LR
from normwright.cli.lr import lr
from normwright.cli.options import EXAMPLES
from normwright.cli.recalibrate import EXAMPLES as RECALIBRATE
from normwright.cli.recalibrate import recalibrate
from normwright.cli.shift import EXAMPLES as SHIFT
from normwright.cli.shift import shift
from normwright.cli.wording import unwrapped

app = typer.Typer(
    name="normwright",
    cls=Commands,
    help="The normalization workbench for PyTorch.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    # A user's exception is shown as Python shows it, not in boxes that hide half of its lines.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=EXAMPLES)(compare)
app.command(epilog=DOCTOR)(doctor)
app.command(epilog=RECALIBRATE)(recalibrate)
app.command(epilog=ADAPT)(adapt)
app.command(epilog=FOLD)(fold)
app.command(epilog=CONVERT)(convert)
app.command("batch-size", epilog=BATCH_SIZE)(batch_size)
app.command(epilog=LR)(lr)
app.command(epilog=SHIFT)(shift)
app.add_typer(claims, name="claims")
app.command()(backends)
for command in app.registered_commands:
    command.help = unwrapped(command.callback.__doc__ if command.callback else None)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"normwright {__version__}")
        raise typer.Exit


@app.callback()
def normwright(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """The normalization workbench for PyTorch: choose a normaliser, and see why."""
