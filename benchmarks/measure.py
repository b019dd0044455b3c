"""Measures cases: ours, eager and compiled PyTorch and a copy in turn, and the errors of the first two."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from benchmarks import contenders
from benchmarks.alternate import alternate_for
from benchmarks.cases import Case
from benchmarks.exact import exact
from benchmarks.inputs import Inputs, random_inputs
from benchmarks.machine import touch_heap
from benchmarks.ulps import Error, error


@dataclass(frozen=True)
class Measured:
    """One case's figures.

    Args:
        case: what was measured.
        repeats: repetitions; every figure is a median over them.
        copy_ms: milliseconds of a copy, for the record; every other figure is a ratio.
        copies: time in copies, of "ours", "eager" and perhaps "compiled".
        ours_to: our time over theirs, of "eager" and perhaps "compiled".
        errors: by result (y, dx, …), of "ours" and "eager".
    """

    case: Case
    repeats: int
    copy_ms: float
    copies: dict[str, float]
    ours_to: dict[str, float]
    errors: dict[str, dict[str, Error]] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A case that raised, and its last words."""

    case: Case
    reason: str


def measure_all(cases: Sequence[tuple[Case, bool]], *, seconds: float, least: int) -> list[Measured | Failed]:
    """Measures each case, with `torch.compile` where its flag says so; one that raises stops no other."""
    touch_heap()
    found: list[Measured | Failed] = []
    for number, (case, compile_too) in enumerate(cases, 1):
        print(f"  {number}/{len(cases)} {case.label}", file=sys.stderr, flush=True)
        try:
            found.append(measure(case, compile_too=compile_too, seconds=seconds, least=least))
        except Exception as error:
            traceback.print_exc()
            found.append(Failed(case, f"{type(error).__name__}: {error}".splitlines()[0]))
    return found


def measure(case: Case, *, compile_too: bool, seconds: float, least: int = 7) -> Measured:
    """Measures one case for about `seconds`, beyond what checking and compiling take."""
    torch.set_num_threads(case.threads)
    inputs = random_inputs(case)
    rivals = {"ours": contenders.ours(case), "eager": contenders.eager(case)}
    errors = errors_of(rivals, case, inputs)
    if compile_too:
        rivals["compiled"] = contenders.compiled(case)
    tasks = {"copy": contenders.copy(inputs)}
    tasks |= {name: contenders.task(rival, case, inputs) for name, rival in rivals.items()}
    timings = alternate_for(tasks, seconds=seconds, least=least)
    unit = timings["copy"]
    return Measured(
        case=case,
        repeats=len(unit.seconds),
        copy_ms=1e3 * unit.median,
        copies={name: timings[name].ratio_to(unit) for name in rivals},
        ours_to={name: timings["ours"].ratio_to(timings[name]) for name in rivals if name != "ours"},
        errors=errors,
    )


def errors_of(
    rivals: dict[str, contenders.Contender], case: Case, inputs: Inputs
) -> dict[str, dict[str, Error]]:
    """The errors of every result against the float64 reference, by result and contender."""
    wanted = exact(case, inputs)
    computed = {name: contenders.results(rival, case, inputs) for name, rival in rivals.items()}
    return {
        result: {name: error(result, computed[name][result], wanted[result], case.axes) for name in rivals}
        for result in wanted
    }
