"""Progress as plain lines, for a file, a pipe or a log."""

from __future__ import annotations

from typing import TextIO

from normwright.cli.pace import Pace, Running, amount, duration
from normwright.network.counting import how_many


class ReaderGone(BaseException):
    """Whoever read the lines has left. Not an Exception: it is no fault of the run at hand."""


class Lines:
    """A line for each stage, and one about every tenth of the runs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = Pace()
        self._tenths: int | None = None

    def stage(self, sentence: str) -> None:
        """Prints the sentence.

        Raises:
            ReaderGone: nobody reads any more.
        """
        self._print(sentence)

    def runs(self, done: int, total: int, running: Running) -> None:
        """Prints a line when another tenth is done.

        Raises:
            ReaderGone: nobody reads any more.
        """
        left = self._pace.seconds_left(done, total, running)
        tenths = int(10 * amount(done, running) / total)
        if done < total:  # after its last step a run is still to be kept
            tenths = min(tenths, 9)
        # What was done before needs no line: the stage has said it.
        told = tenths if self._tenths is None else self._tenths
        self._tenths = max(told, tenths)
        if tenths > told:
            rest = f", about {duration(left)} left" if left and done < total else ""
            self._print(f"  {10 * tenths} %: {done} of {how_many(total, 'run')} done{rest}")

    def close(self) -> None:
        """Does nothing: lines need no end."""

    def _print(self, line: str) -> None:
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error
