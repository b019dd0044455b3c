"""Progress as bars, for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from normwright.cli.pace import Pace, Running, amount, duration


class Bars:
    """A bar over all runs with the time left, and one for each run under way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace = Pace()
        self._bars: _Open | None = None

    def stage(self, sentence: str) -> None:
        """Prints the sentence below what was shown before."""
        self.close()
        self._console.print(Text(sentence))

    def runs(self, done: int, total: int, running: Running) -> None:
        """Moves the bars."""
        if self._bars is None:
            self._bars = _Open(self._console, total)
        left = self._pace.seconds_left(done, total, running)
        rest = f"{duration(left)} left" if left and done < total else ""
        self._bars.move(done, total, running, rest)

    def close(self) -> None:
        """Leaves the bar over all runs, and takes the others away."""
        if self._bars is not None:
            self._bars.close()
            self._bars = None


class _Open:
    """The bars while they are on the screen."""

    def __init__(self, console: Console, total: int) -> None:
        # Without markup: names may hold square brackets, which Rich would read as its own.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}", justify="right", markup=False),
            TextColumn("{task.fields[rest]}", markup=False),
            console=console,
            expand=True,
        )
        self._overall = self._progress.add_task("all runs", total=total, count="", rest="")
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def move(self, done: int, total: int, running: Running, rest: str) -> None:
        so_far = amount(done, running)
        self._progress.update(self._overall, completed=so_far, count=f"{done}/{total} runs", rest=rest)
        for run in self._tasks.keys() - {run for run, _, _ in running}:
            self._progress.remove_task(self._tasks.pop(run))
        for run, step, steps in running:
            if run not in self._tasks:
                self._tasks[run] = self._progress.add_task(_short(run), total=None, count="", rest="")
            if steps:  # else it is being set up, and the bar pulses
                self._progress.update(
                    self._tasks[run], completed=step, total=steps, count=f"{step}/{steps} steps"
                )

    def close(self) -> None:
        # Asks the screen and not `_tasks`: Ctrl-C may come between drawing a bar and noting it.
        for task in self._progress.task_ids:
            if task != self._overall:
                self._progress.remove_task(task)
        self._progress.stop()


def _short(run: str) -> str:
    """A run without its network and data, which are the same for all.

    Example:
        >>> _short("mlp on digits, norm batch, batch 2, lr 1, seed 0")
        'norm batch, batch 2, lr 1, seed 0'
    """
    _, norm, rest = run.rpartition("norm ")
    return norm + rest
