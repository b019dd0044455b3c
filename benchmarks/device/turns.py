"""A plugin of pytest that notes which tests there are, and each as it ends, so that a run may be stopped.

    NORMWRIGHT_TURNS=FOLDER python -m pytest -p benchmarks.device.turns …

FOLDER/tests.txt gets the name of every test, in order; FOLDER/ended.txt, as each ends, its outcome, its name
and, where it was skipped, why. With pytest-xdist one process of many lists, and the first hears of all ends.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SWITCH = "NORMWRIGHT_TURNS"

_LISTS, _ENDS = "tests.txt", "ended.txt"


@dataclass(frozen=True)
class Turn:
    """One test: passed, failed, skipped (and why), or "no turn" where it had none, or had not ended."""

    test: str
    outcome: str
    why: str = ""


def pytest_configure(config: Any) -> None:
    """Lets one process list, and the first hear."""
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker in (None, "gw0"):
        config.pluginmanager.register(_Lists())
    if worker is None:
        config.pluginmanager.register(_Hears())


class _Lists:
    def pytest_collection_finish(self, session: Any) -> None:
        """Lists the tests; the first of several processes has none."""
        _append(_LISTS, [item.nodeid for item in getattr(session, "items", None) or ()])


class _Hears:
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Notes that a test ended; what comes later counts."""
        if report.when != "call" and report.passed:
            return
        why = str(report.longrepr[2]).replace("\n", " ") if report.skipped else ""
        # xdist's groups stand behind the name
        _append(_ENDS, [f"{report.outcome}\t{report.nodeid.partition('@')[0]}\t{why}"])

    def pytest_collectreport(self, report: Any) -> None:
        """Notes a file that cannot be imported."""
        if report.failed:
            _append(_ENDS, [f"failed\t{report.nodeid}\t"])


def _append(name: str, lines: Sequence[str]) -> None:
    with (Path(os.environ[SWITCH]) / name).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def turns(folder: Path) -> list[Turn]:
    """What became of each test."""
    tests, ended = (
        path.read_text().splitlines() if (path := folder / name).exists() else [] for name in (_LISTS, _ENDS)
    )
    found = {test.partition("@")[0]: Turn(test.partition("@")[0], "no turn") for test in tests}
    for line in ended:
        outcome, test, why = line.split("\t")
        if found.get(test, Turn("", "")).outcome != "failed":  # in its call, whatever its teardown says
            found[test] = Turn(test, outcome, why)
    return list(found.values())
