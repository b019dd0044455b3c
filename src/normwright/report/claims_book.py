"""`nw.run_claims`: the claims of the lab, and the page that is made of their records."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import ParamSpec

from normwright.errors import StoreError
from normwright.lab.book import run as lab
from normwright.lab.book.record import ClaimRecord, file_name, read_records
from normwright.lab.book.run import RECORDS, claims_to_run
from normwright.lab.store.whole import followed
from normwright.report.claims_page import write

P = ParamSpec("P")

BOOK = "book.html"

_FILES = f"""
`out` holds the record of every claim in the folder {RECORDS}, and {BOOK}, one page that is made of them; it
is also written where the work is stopped half-way, with the claims that are judged by then.
"""


def _with_page(run: Callable[P, list[ClaimRecord]]) -> Callable[P, list[ClaimRecord]]:
    """The same function, which also writes the page; its arguments are written down once, in the lab."""
    signature = inspect.signature(run)

    # Without `__module__`: documentation and doctests look for this function in this file.
    @functools.wraps(run, assigned=("__name__", "__qualname__", "__annotations__"))
    def run_claims(*args: P.args, **kwargs: P.kwargs) -> list[ClaimRecord]:
        asked = signature.bind(*args, **kwargs)
        asked.apply_defaults()
        out = Path(asked.arguments["out"])
        told = asked.arguments["on_record"]
        # Those that this call writes anew, whatever they hold.
        unwritten = {
            file_name(claim.number, claim.name, quick=asked.arguments["quick"])
            for claim in claims_to_run(asked.arguments["numbers"])
        }
        # Said now rather than after the work: the page is made of every other record that is there.
        read_records(out / RECORDS, without=unwritten)
        followed(out / BOOK)
        judged = False

        def on_record(record: ClaimRecord) -> None:
            nonlocal judged
            judged = True
            unwritten.discard(record.file_name)
            told(record)

        asked.arguments["on_record"] = on_record
        try:
            records = run(*asked.args, **asked.kwargs)
        finally:
            if judged:
                write(_readable(out / RECORDS, unwritten), out / BOOK)
        return records

    what, args, rest = (inspect.getdoc(run) or "").partition("\nArgs:\n")
    run_claims.__doc__ = what + _FILES + args + rest
    return run_claims


def _readable(folder: Path, unwritten: Collection[str]) -> list[ClaimRecord]:
    """All records; without those that were to be written anew, where the work stopped before."""
    try:
        return read_records(folder)
    except StoreError:
        return read_records(folder, without=unwritten)


run_claims = _with_page(lab.run_claims)
