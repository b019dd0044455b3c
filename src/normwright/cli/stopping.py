"""How a command ends that is stopped half-way."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator

import typer

from normwright.cli.lines import ReaderGone


def nothing_written() -> str:
    """What a command leaves that writes at its end."""
    return "nothing was written"


@contextlib.contextmanager
def stops_told(left: Callable[[], str] = nothing_written) -> Iterator[None]:
    """Inside, Ctrl-C ends the command with a line and status 130, and a reader that leaves as a broken pipe.

    Args:
        left: asked then, what the command leaves, to follow "stopped: ".
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nstopped: {left()}", err=True)
        raise typer.Exit(130) from None
    except ReaderGone as gone:
        raise BrokenPipeError(errno.EPIPE, "nobody reads the progress any more") from gone
