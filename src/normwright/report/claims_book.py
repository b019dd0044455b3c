"""`nw.run_claims`: the claims of the lab, and the page that is made of their records."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from normwright.lab.book import run as lab
from normwright.lab.book.record import ClaimRecord, read_records
from normwright.lab.book.run import RECORDS
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
        # Said now rather than after the work: the page is made of every record that is there.
        read_records(out / RECORDS)
        judged = 0

        def on_record(record: ClaimRecord) -> None:
            nonlocal judged
            judged += 1
            told(record)

        asked.arguments["on_record"] = on_record
        try:
            records = run(*asked.args, **asked.kwargs)
        finally:
            if judged:
                write(read_records(out / RECORDS), out / BOOK)
        return records

    what, args, rest = (inspect.getdoc(run) or "").partition("\nArgs:\n")
    run_claims.__doc__ = what + _FILES + args + rest
    return run_claims


run_claims = _with_page(lab.run_claims)
