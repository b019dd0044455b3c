"""What a user's own code raises, prints and warns of, as a command shows it."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from normwright.cli.wording import in_options
from normwright.errors import NormwrightError


@contextlib.contextmanager
def user_errors_shown(options: Mapping[str, str], *, as_json: bool) -> Iterator[None]:
    """Shows an exception of the user's own code as Python shows it, and in a line what PyTorch refuses to
    take or normwright says.

    Args:
        options: of the command, by the names of the arguments that they become.
        as_json: the standard output is for JSON alone.
    """

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        typer.echo(f"warning: {in_options(str(message), options)}", err=True)

    # What a user's code prints must not get between the JSON.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        try:
            with warnings.catch_warnings():
                warnings.showwarning = show
                yield
        except (typer.Exit, typer.BadParameter):
            raise
        except NormwrightError as error:
            error.args = (in_options(str(error), options),)
            raise
        except Exception as error:
            _show(error)
            raise typer.Exit(1) from error


def _show(error: Exception) -> None:
    from normwright.lab.misfit import misfit_of
    from normwright.lab.tracebacks import user_traceback

    misfit = misfit_of(error)
    if misfit is None or not misfit.by_torch:
        typer.echo(user_traceback(error), err=True)
    typer.echo(f"error: {misfit.line if misfit else f'{type(error).__name__}: {error}'}", err=True)
