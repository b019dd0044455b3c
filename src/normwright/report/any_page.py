"""The page of whatever has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from normwright.doctor.diagnosis import Diagnosis
from normwright.errors import OptionError
from normwright.lab.records import Comparison
from normwright.report import doctor_page, page
from normwright.report.files import write_whole


def render(records: Comparison | Diagnosis, **more: Any) -> str:
    """The report of a comparison or of a diagnosis as one self-contained HTML page.

    Args:
        records: what `nw.compare` or `nw.diagnose` returned.
        more: of a diagnosis: `mending`, and the `command` that makes the page again.
    Raises:
        OptionError: something else came.
    """
    if isinstance(records, Comparison):
        return page.render(records, **more)
    if isinstance(records, Diagnosis):
        return doctor_page.render(records, **more)
    raise OptionError(
        "a report shows what nw.compare or nw.diagnose returned, but "
        f"{type(records).__name__} came: pass the comparison or the diagnosis itself"
    )


def write(records: Comparison | Diagnosis, path: Path | str, **more: Any) -> None:
    """Writes the report; at every moment `path` holds a whole report, the old one or the new.

    Args:
        records, more: as for `render`.
        path: of the file.
    Raises:
        OptionError: what came has no report.
        StoreError: the file cannot be written (no such folder, no room, no permission).
    """
    write_whole(render(records, **more), Path(path))
