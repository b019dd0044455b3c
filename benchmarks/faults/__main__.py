"""Does the doctor find what people do wrong? python -m benchmarks.faults [--docs docs/faults.md].

Seeds every fault of `benchmarks/faults/` in its network, asks `nw.diagnose` about the sick and the healthy,
and prints the table: what was found where, what was missed, and every false alarm.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.examining import everything, examine_all, verdict
from benchmarks.faults.page import page
from benchmarks.faults.patients import PATIENTS
from benchmarks.saving import save


def main(arguments: Sequence[str] | None = None) -> None:
    """Examines, prints and saves."""
    options = _parser().parse_args(arguments)
    names = [name for name in FAULTS if not options.rule or FAULTS[name].rule in options.rule]
    networks = [name for name in PATIENTS if not options.rule or name in {FAULTS[it].network for it in names}]
    start = time.perf_counter()
    came = examine_all(everything(names, networks), processes=options.processes)
    seconds = time.perf_counter() - start
    healthy = {task: it for task, it in came.items() if len(task) == 3}
    # the networks come with SGD before something is done to them
    verdicts = [
        verdict(FAULTS[name], state, came[name, state], healthy[FAULTS[name].network, "SGD", state])
        for name in names
        for state in FAULTS[name].states
    ]
    command = "python -m benchmarks.faults" + "".join(f" --rule {rule}" for rule in options.rule)
    made = page(verdicts, healthy, command)
    print(f"{len(came)} examinations in {seconds:.0f} s", file=sys.stderr)
    record = {
        "verdicts": [dataclasses.asdict(it) for it in verdicts],
        "healthy": {" ".join(task): dataclasses.asdict(it) for task, it in healthy.items()},
    }
    save(options.out, "faults", made, record)
    if options.docs is not None:
        options.docs.parent.mkdir(parents=True, exist_ok=True)
        options.docs.write_text(made.rstrip() + "\n")
    print(made)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    rules = sorted({fault.rule for fault in FAULTS.values()})
    add("--rule", action="append", default=[], choices=rules, help="only its faults; may be repeated")
    add("--processes", type=int, default=2, help="of one thread each")
    add("--docs", type=Path, help="also write the page here: docs/faults.md")
    add("--out", type=Path, default=Path("build/benchmarks"), help="folder to save in")
    return parser


if __name__ == "__main__":
    main()
