"""What `normwright doctor` prints and writes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from normwright import __version__
from normwright.cli.outputs import FOUND, check_output
from normwright.lab.weights import WEIGHTS

if TYPE_CHECKING:
    from normwright.doctor.diagnosis import Diagnosis
    from normwright.doctor.finding import Severity
    from normwright.doctor.treatments.mending import Mending


@dataclass(frozen=True)
class Outputs:
    """What is written and how it is shown: see the options of these names."""

    out: Path | None
    sarif: Path | None
    checkpoint: Path | None
    force: bool
    as_json: bool
    every_layer: bool
    fail_on: Severity | None

    def check(self) -> None:
        """Says before the work what would be said after it."""
        for option, path, endings, replace in (
            ("--out", self.out, (".html",), True),
            ("--sarif", self.sarif, (".sarif", ".json"), True),
            ("--out-checkpoint", self.checkpoint, WEIGHTS, self.force),
        ):
            if path is not None:
                check_output(option, path, endings, replace=replace)

    def show(self, diagnosis: Diagnosis, mending: Mending | None) -> None:
        """Prints the findings, and what came of mending them."""
        from normwright.cli.tables import print_table
        from normwright.doctor.diagnosis import MOST

        if self.as_json:
            typer.echo(diagnosis.to_json(**({} if mending is None else {"mending": mending.record()})))
            return
        print_table(diagnosis.table(None if self.every_layer else MOST))
        if mending is not None:
            typer.echo()
            print_table(mending.table())

    def write(self, diagnosis: Diagnosis, mending: Mending | None, where: str) -> Iterator[Path]:
        """Writes the files that were asked for, and gives each when it is there.

        Args:
            diagnosis, mending: what was found, and what came of mending it.
            where: file and line of the network's function, or "".
        Raises:
            StoreError: a file cannot be written.
            OptionError: a checkpoint of this kind has no place for a weight.
        """
        from normwright.doctor.sarif import to_sarif
        from normwright.lab.store.whole import write_whole

        if self.sarif is not None:
            text = to_sarif(diagnosis, version=__version__, root=Path.cwd(), otherwise=where)
            write_whole(self.sarif, text.encode())
            yield self.sarif
        if self.out is not None:
            from normwright.report.doctor_page import write

            write(diagnosis, self.out, mending=mending, command=_command())
            yield self.out
        if self.checkpoint is not None and mending is not None:
            from normwright.lab.weights.write import write_weights

            write_weights(
                mending.network, self.checkpoint, made_by={"normwright": __version__, "verb": "doctor"}
            )
            yield self.checkpoint
            if not mending.same_weights:
                typer.echo(f"note: {_misfit(self.checkpoint, mending)}", err=True)

    def fail(self, diagnosis: Diagnosis) -> None:
        """Ends with status 3 where something as grave as asked about was found.

        Raises:
            typer.Exit: it was.
        """
        from normwright.doctor.finding import SEVERITIES

        if self.fail_on is None:
            return
        grave = sum(map(diagnosis.count, SEVERITIES[: SEVERITIES.index(self.fail_on) + 1]))
        if grave:
            above = " or above" if self.fail_on != SEVERITIES[0] else ""
            typer.echo(f"failed: {grave} of severity {self.fail_on}{above} (--fail-on)", err=True)
            raise typer.Exit(FOUND)


_NAMED = 8  # weights that a note lists


def _misfit(path: Path, mending: Mending) -> str:
    """What must change in the code before the mended weights fit it."""
    others = mending.other_weights
    more = f"; and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    keeping = ",".join(mending.keeping)
    without = f"; what keeps the code as it is: --fix-only {keeping}" if keeping else ""
    return (
        f"{path} holds other weights than the function builds ({'; '.join(others[:_NAMED])}{more}): change "
        f"the code as the table says before you load it{without}"
    )


def _command() -> str:
    return shlex.join(["normwright", *sys.argv[1:]])
