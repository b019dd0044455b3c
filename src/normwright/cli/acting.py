"""What the commands that act on a network and its checkpoint do alike: read, build, act, write and print."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from normwright.cli.acting_options import Asked
from normwright.cli.outputs import check_output
from normwright.cli.stopping import stops_told
from normwright.cli.user_errors import user_errors_shown
from normwright.cli.wording import in_options, options_of
from normwright.errors import NormwrightError, OptionError

if TYPE_CHECKING:
    from torch import nn

    from normwright.cli.counted import Counted
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


class Act:
    """One command: what is acted on, and what becomes of it.

    Args:
        context: of the command, which has the arguments of `acting_options`, and `out`, the output file.
        endings: those that `out` may have, the usual one first.
        usual_split: of the data, where the user asks for none.
        checks: each raises an error where an option of the command's own is wrong by itself.
    """

    def __init__(
        self,
        context: typer.Context,
        endings: tuple[str, ...],
        *,
        usual_split: str = "train",
        checks: Sequence[Callable[[], object]] = (),
    ) -> None:
        self._checks = checks
        self._asked = Asked.of(context)
        self._endings = endings
        self._usual_split = usual_split
        self._options = options_of(context)

    def run(self, verb: Callable[[Given], Done]) -> None:
        """Reads the checkpoint, builds the network, has the verb act on it, writes and prints."""
        asked = self._asked
        with stops_told(), user_errors_shown(self._options, as_json=asked.as_json):
            self._check()
            done, notes = self._act(verb)
            try:
                if asked.out is not None and not asked.dry_run:
                    notes += done.write(asked.out)
            except NormwrightError:
                self._print(done, notes, written=False)
                raise
        self._print(done, notes, written=not asked.dry_run)

    def _act(self, verb: Callable[[Given], Done]) -> tuple[Done, list[str]]:
        from normwright.cli.counted import Counted
        from normwright.lab.devices import device_of
        from normwright.lab.networks.own_network import OwnNetwork
        from normwright.lab.weights.fit import fit
        from normwright.lab.weights.read import read_weights

        asked = self._asked
        device = device_of(asked.device)
        weights = read_weights(asked.checkpoint, key=asked.key)
        batches = asked.open_data(self._usual_split)
        own = OwnNetwork(
            asked.network, *((None, None) if batches is None else (batches.sample_shape, batches.classes))
        )
        network = own.build()
        notes = list(fit(network, weights))
        network.to(device)
        counted = None if batches is None else Counted(batches)
        with contextlib.nullcontext() if counted is None else contextlib.closing(counted):
            return verb(Given(network, counted, own.build, own.call)), notes

    def _check(self) -> None:
        """Says before the work all that can be known to be wrong by then, in the order of what is typed."""
        from normwright.lab.devices import device_of
        from normwright.lab.user_code import resolve
        from normwright.lab.weights.read import check_is_there

        asked, wrong = self._asked, []
        for check in (
            *self._checks,
            *asked.data_checks(),
            lambda: device_of(asked.device),
            lambda: resolve(asked.network),
            lambda: check_is_there(asked.checkpoint),
            asked.check_data_function,
            self._check_out,
        ):
            try:
                check()
            except (NormwrightError, typer.BadParameter) as error:
                wrong.append(error)
        if len(wrong) == 1:
            raise wrong[0]
        if wrong:
            raise OptionError("\n".join((f"{len(wrong)} arguments are wrong:", *map(_listed, wrong))))

    def _check_out(self) -> None:
        asked, out = self._asked, self._asked.out
        if out is None:
            if not asked.dry_run:
                raise typer.BadParameter(
                    f"name the output file by --out (as out{self._endings[0]}), or ask for --dry-run"
                )
            return
        check_output(
            "--out",
            out,
            self._endings,
            why_not=_why_not(self._endings),
            replace=asked.force or asked.dry_run,
        )

    def _print(self, done: Done, notes: Sequence[str], *, written: bool) -> None:
        from normwright.cli.tables import print_json, print_table
        from normwright.network.table import Table

        asked = self._asked
        if asked.as_json:
            record = dataclasses.asdict(done.report)  # type: ignore[call-overload]
            print_json(in_options(record, self._options))
        else:
            print_table(Table(*in_options(dataclasses.astuple(done.report.table()), self._options)))
        for note in notes:
            typer.echo(f"note: {note}", err=asked.as_json)
        if asked.dry_run:
            typer.echo("dry run: nothing was written", err=asked.as_json)
        elif written and asked.out is not None:
            typer.echo(f"written: {asked.out}", err=asked.as_json)
            typer.echo("".join(f"\n    {line}" for line in done.use(asked.out)), err=asked.as_json)


def _listed(error: NormwrightError | typer.BadParameter) -> str:
    return f"  - {error.message if isinstance(error, typer.BadParameter) else error}"


def _why_not(endings: tuple[str, ...]) -> str:
    if ".pt2" in endings:
        return (
            ": a folded network has other layers than the function builds, so its weights alone would "
            "not say what they belong to"
        )
    return ""
