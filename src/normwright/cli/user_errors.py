"""What a user's own code raises, prints and warns of, as a command shows it."""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import typer

from normwright.errors import NormwrightError


@contextlib.contextmanager
def user_errors_shown(as_json: bool) -> Iterator[None]:
    """Shows an exception of the user's own code as Python shows it, and normwright's warnings in a line."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        typer.echo(f"warning: {message}", err=True)

    # What a user's code prints must not get between the JSON.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        try:
            with warnings.catch_warnings():
                warnings.showwarning = show
                yield
        except (NormwrightError, typer.Exit):
            raise
        except Exception as error:
            traceback.print_exc()
            typer.echo(f"error: {type(error).__name__}: {error}", err=True)
            if where := _where(error):
                typer.echo(where, err=True)
            raise typer.Exit(1) from error


def _where(error: Exception) -> str:
    from normwright.network.failure import where_it_failed

    return where_it_failed(error)
