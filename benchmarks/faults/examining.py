"""Has the healthy and the sick examined, and holds what the doctor says against what was seeded."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.examination import Examination, Said, begin, examined, made_sick
from benchmarks.faults.patients import PATIENTS, Optimise, adam, sgd
from benchmarks.faults.ranks import examined_by_ranks
from benchmarks.faults.seeded import STATES, Seeded, State

OPTIMISERS: dict[str, Optimise] = {"SGD": sgd(), "Adam": adam()}


@dataclass(frozen=True)
class Verdict:
    """A seeded fault in one state, against the healthy network in that state.

    Args:
        found: by its rule, in its place.
        missed: why nothing was found, or "".
        explained: what other rules say on its account, above a note.
        false_alarms: what is above a note, and neither explained nor said of the healthy.
    """

    fault: str
    state: State
    found: tuple[Said, ...]
    missed: str
    explained: tuple[Said, ...]
    false_alarms: tuple[Said, ...]


def healthy(network: str, optimiser: str, state: State) -> Examination:
    """The doctor on a healthy network."""
    patient = PATIENTS[network]().but(optimise=OPTIMISERS[optimiser])
    return examined(patient.train() if state == "trained" else patient)


def sick(name: str, state: State) -> Examination:
    """The doctor on a network with a seeded fault."""
    fault = FAULTS[name]
    if fault.ranks:
        return examined_by_ranks(name, state)
    return examined(made_sick(fault, state))


def verdict(fault: Seeded, state: State, sick: Examination, healthy: Examination) -> Verdict:
    """What was found, and what else was said that the healthy network does not call for."""
    known = {(said.rule, said.layer, said.severity) for said in healthy.findings}
    new = [said for said in sick.findings if (said.rule, said.layer, said.severity) not in known]
    found = tuple(said for said in new if said.rule == fault.rule and _in_place(fault, said))
    others = [said for said in new if said.grave and said not in found]
    explained = tuple(said for said in others if said.rule in fault.explains)
    false = tuple(said for said in others if said.rule not in fault.explains)
    return Verdict(fault.name, state, found, "" if found else _why_missed(fault, sick), explained, false)


def _in_place(fault: Seeded, said: Said) -> bool:
    return not fault.where or any(part in said.layer for part in fault.where)


def _why_missed(fault: Seeded, sick: Examination) -> str:
    if sick.error:
        return f"the examination raised {sick.error}"
    if any(said.rule == fault.rule for said in sick.findings):
        return "nothing that the healthy network does not have, or elsewhere only"
    if fault.rule not in sick.silent:
        return "there is no such rule"
    return f"skipped: {sick.silent[fault.rule]}" if sick.silent[fault.rule] else "passed"


Task = tuple[str, ...]


def everything(faults: Iterable[str], networks: Iterable[str]) -> list[Task]:
    """What is to be examined: (network, optimiser, state) of the healthy, (fault, state) of the sick."""
    tasks: list[Task] = [(name, how, state) for name in networks for how in OPTIMISERS for state in STATES]
    return tasks + [(name, state) for name in faults for state in FAULTS[name].states]


def examine_all(tasks: Sequence[Task], *, processes: int) -> dict[Task, Examination]:
    """Every task, in so many processes of one thread each."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context, initializer=begin) as pool:
        return dict(zip(tasks, pool.map(_run, tasks), strict=True))


def _run(task: Task) -> Examination:
    return healthy(*task) if len(task) == 3 else sick(*task)  # type: ignore[arg-type]
