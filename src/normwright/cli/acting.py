"""What the commands that act on a network and its checkpoint do alike: read, build, act, write and print."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from normwright.cli.lines import ReaderGone
from normwright.cli.options import any_of
from normwright.errors import NormwrightError, OptionError

if TYPE_CHECKING:
    from torch import nn

    from normwright.cli.counted import Counted
    from normwright.lab.batches import Batches
    from normwright.network.table import Table


class Report(Protocol):
    """What a verb tells of what it did: a dataclass of plain values."""

    def table(self) -> Table:
        """For a person."""


@dataclass(frozen=True)
class Given:
    """What a verb acts on.

    Args:
        network: in inference mode, with its weights, on its device.
        batches: of the data set, shown as they are read; None without one.
        build: makes another such network, without the checkpoint's weights.
        call: the Python that does so, as in a script that imports the function.
    """

    network: nn.Module
    batches: Counted | None
    build: Callable[[], nn.Module]
    call: str


@dataclass(frozen=True)
class Done:
    """What a verb did.

    Args:
        report: a dataclass.
        write: writes the output to a path, and returns notes.
        use: how the output at a path is used, in lines of Python.
    """

    report: Report
    write: Callable[[Path], Sequence[str]]
    use: Callable[[Path], Sequence[str]]


@dataclass(frozen=True)
class Act:
    """One command: what is acted on, and what becomes of it.

    Args:
        network, checkpoint, key: see the options of these names.
        out: the output file; None on a dry run only.
        endings: those that `out` may have, the usual one first.
        force, dry_run, as_json, device: see the options of these names.
    """

    network: str
    checkpoint: Path
    key: str | None
    out: Path | None
    endings: tuple[str, ...]
    force: bool
    dry_run: bool
    as_json: bool
    device: str

    def run(self, open_data: Callable[[], Batches | None], verb: Callable[[Given], Done]) -> None:
        """Reads the checkpoint, builds the network, acts, writes and prints.

        Args:
            open_data: makes the batches, if there are any.
            verb: acts on the network.
        """
        self._check_out()
        try:
            with outcome(self.as_json):
                done, notes = self._act(open_data, verb)
                try:
                    if self.out is not None and not self.dry_run:
                        notes += done.write(self.out)
                except NormwrightError:
                    self._print(done, notes, written=False)
                    raise
        except KeyboardInterrupt:
            typer.echo("\nstopped: nothing was written", err=True)
            raise typer.Exit(130) from None
        except ReaderGone as gone:
            raise BrokenPipeError(errno.EPIPE, "nobody reads the progress any more") from gone
        self._print(done, notes, written=not self.dry_run)

    def _act(
        self, open_data: Callable[[], Batches | None], verb: Callable[[Given], Done]
    ) -> tuple[Done, list[str]]:
        from normwright.cli.counted import Counted
        from normwright.lab.devices import device_of
        from normwright.lab.networks.own_network import OwnNetwork
        from normwright.lab.weights.fit import fit
        from normwright.lab.weights.read import read_weights

        device = device_of(self.device)
        weights = read_weights(self.checkpoint, key=self.key)
        batches = open_data()
        own = OwnNetwork(
            self.network, *((None, None) if batches is None else (batches.sample_shape, batches.classes))
        )
        network = own.build()
        notes = list(fit(network, weights))
        network.to(device)
        if batches is None:
            return verb(Given(network, None, own.build, own.call)), notes
        with contextlib.closing(Counted(batches)) as counted:
            return verb(Given(network, counted, own.build, own.call)), notes

    def _check_out(self) -> None:
        """Says before the work what would be said after it."""
        if self.out is None:
            if not self.dry_run:
                raise typer.BadParameter(
                    f"name the output file by --out (as out{self.endings[0]}), or ask for --dry-run"
                )
            return
        if self.out.suffix not in self.endings:
            raise OptionError(
                f"--out must end in {any_of(self.endings)}, but is {self.out}" + _why_not(self.endings)
            )
        if self.out.is_dir():
            raise OptionError(f"--out must be a file, but {self.out} is a folder")
        if not self.out.parent.is_dir():
            raise OptionError(
                f"--out must be in a folder that exists, but {self.out.parent} does not: make it"
            )
        if self.out.exists() and not self.force and not self.dry_run:
            raise OptionError(f"{self.out} exists: choose another --out, or replace it by --force")

    def _print(self, done: Done, notes: Sequence[str], *, written: bool) -> None:
        from normwright.cli.tables import print_table

        if self.as_json:
            typer.echo(json_of(done.report))
        else:
            print_table(done.report.table())
        for note in notes:
            typer.echo(f"note: {note}", err=self.as_json)
        if self.dry_run:
            typer.echo("dry run: nothing was written", err=self.as_json)
        elif written and self.out is not None:
            typer.echo(f"written: {self.out}", err=self.as_json)
            typer.echo("".join(f"\n    {line}" for line in done.use(self.out)), err=self.as_json)


def json_of(report: Report) -> str:
    """A report as JSON, which has no infinity and no NaN: they become null."""
    plain = json.dumps(dataclasses.asdict(report))  # type: ignore[call-overload]
    finite = json.loads(plain, parse_constant=lambda name: None)
    return json.dumps(finite, indent=2, allow_nan=False)


def _why_not(endings: tuple[str, ...]) -> str:
    if ".pt2" in endings:
        return (
            ": a folded network has other layers than the function builds, so its weights alone would "
            "not say what they belong to"
        )
    return ""


@contextlib.contextmanager
def outcome(as_json: bool) -> Iterator[None]:
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
            raise typer.Exit(1) from error
