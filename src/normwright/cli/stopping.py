"""How a command ends that is stopped half-way."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import typer

from normwright.cli.lines import ReaderGone


def nothing_written() -> str:
    """What a command leaves that writes at its end."""
    return "nothing was written"


@contextlib.contextmanager
def stops_told(left: Callable[[], str] = nothing_written) -> Iterator[None]:
    """Inside, Ctrl-C ends the command with a line and status 130, SIGTERM with 143; no draft is left.

    A reader that leaves ends it as a broken pipe.

    Args:
        left: asked then, what the command leaves, to follow "stopped: ".
    """
    try:
        with _terminated_as_interrupted():
            yield
    except KeyboardInterrupt as interrupt:
        typer.echo(f"\nstopped: {left()}", err=True)
        raise typer.Exit(143 if isinstance(interrupt, _Terminated) else 130) from None
    except ReaderGone as gone:
        raise BrokenPipeError(errno.EPIPE, "nobody reads the progress any more") from gone


class _Terminated(KeyboardInterrupt):
    """SIGTERM came, as from `timeout`, `kill` or a scheduler that wants the machine."""


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Inside, SIGTERM unwinds this process as Ctrl-C does, unless the program has a handler of its own."""
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def stop(number: int, _: Any) -> None:
        if os.getpid() == process:
            raise _Terminated
        # a child that was forked, such as a worker of a data loader, ends as it would without us
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
