"""`nw.compare`: the comparison of the lab, and the files that it leaves for people and for machines."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from normwright.errors import OptionError, StoreError
from normwright.lab import compare as lab
from normwright.lab.records import Comparison
from normwright.lab.store.experiment import FILE
from normwright.lab.store.whole import followed
from normwright.report.files import write_whole
from normwright.report.markdown import to_markdown
from normwright.report.page import write

P = ParamSpec("P")

REPORT, TABLE, RECORDS = "report.html", "table.md", "comparison.json"

_FILES = f"""
At the end `out` also holds {REPORT}, one page with every figure; {TABLE}, the table and the
verdicts; and {RECORDS}, all that the report shows, for machines.
"""


def _reported(train: Callable[P, Comparison]) -> Callable[P, Comparison]:
    """The same function, which also writes the files; its arguments are written down once, in the lab."""
    signature = inspect.signature(train)

    # Without `__module__`: documentation and doctests look for this function in this file.
    @functools.wraps(train, assigned=("__name__", "__qualname__", "__annotations__"))
    def compare(*args: P.args, **kwargs: P.kwargs) -> Comparison:
        asked = signature.bind(*args, **kwargs)
        asked.apply_defaults()
        _check_places(Path(asked.arguments["out"]))
        comparison = train(*args, **kwargs)
        asked.arguments["on_stage"]("writing the report")
        out = Path(asked.arguments["out"])
        try:
            write_files(comparison, out)
        except StoreError as error:
            raise StoreError(
                f"{error}. All runs are done and kept in {out}: the same command or call then makes the "
                "report of them, and trains nothing"
            ) from error
        return comparison

    what, args, rest = (inspect.getdoc(train) or "").partition("\nArgs:\n")
    compare.__doc__ = what + _FILES + args + rest
    return compare


def _check_places(folder: Path) -> None:
    """Says before the work what `write_files` would say after it, and spares files that are not its own."""
    for name in (REPORT, TABLE, RECORDS):
        if followed(folder / name).exists() and not (folder / FILE).exists():
            raise OptionError(
                f"out must be a new folder or one of an experiment, but {folder} holds a {name} and no "
                "experiment: choose another, so that it is not replaced"
            )


def write_files(comparison: Comparison, folder: Path) -> None:
    """Writes the report, the table and the records; each file is at every moment whole, the old or the new.

    Raises:
        StoreError: a file cannot be written (no such folder, no room, no permission).
    """
    write(comparison, folder / REPORT)
    write_whole(to_markdown(comparison), folder / TABLE)
    write_whole(comparison.to_json(curves=True), folder / RECORDS)


compare = _reported(lab.compare)
