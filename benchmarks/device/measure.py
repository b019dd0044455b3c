"""Measures one case on a device in its modes: every contender and a copy in turn, and the errors of two."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from benchmarks import contenders
from benchmarks.alternate import Task, Timing
from benchmarks.cases import Case
from benchmarks.contenders import Contender
from benchmarks.device import rivals, rotation
from benchmarks.device.clock import Clock, clock_of, in_turn
from benchmarks.device.exact import exact
from benchmarks.device.ulps import error
from benchmarks.inputs import Inputs, random_inputs
from benchmarks.ulps import Error


@dataclass(frozen=True)
class Job:
    """What one job measures.

    Args:
        cases: alike but for their mode.
        compile_too: whether `torch.compile` takes part.
        device: torch's name of it.
        seconds: to spend on the repetitions of one mode.
        least: repetitions.
    """

    cases: tuple[Case, ...]
    compile_too: bool = False
    device: str = "cuda"
    seconds: float = 0.25
    least: int = 11


@dataclass(frozen=True)
class DeviceMeasured:
    """One case's figures.

    Args:
        case: what was measured.
        repeats: repetitions; every time is a median over them.
        sets: sets of inputs that each repetition went through.
        seconds: of one call, of "copy", "ours", "eager" and those rivals that ran.
        absent: why a rival is not in `seconds`.
        waited: whose times hold the host's, because the device waited for it.
        errors: by result (y, dx, …), of "ours" and "eager".
    """

    case: Case
    repeats: int
    sets: int
    seconds: dict[str, float]
    absent: dict[str, str] = field(default_factory=dict)
    waited: tuple[str, ...] = ()
    errors: dict[str, dict[str, Error]] = field(default_factory=dict)


def measure_job(job: Job) -> list[DeviceMeasured]:
    """Measures the job's cases, which share their inputs."""
    device = torch.device(job.device)
    checked = _checked(job.cases[-1], device)
    case = job.cases[0]
    count = rotation.sets_needed(case, rotation.second_cache_bytes(device))
    sets = [inputs_of(case, device, seed) for seed in range(count)]
    compiled = contenders.compiled(case) if job.compile_too else None
    return [_measure(job, mode_case, sets, compiled, checked) for mode_case in job.cases]


def compile_job(job: Job) -> None:
    """Runs everything that the job will measure once, on one set of inputs, for what that compiles."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # as many processes do this at once
    case = job.cases[-1]
    inputs = inputs_of(case, torch.device(job.device), seed=0)
    compiled = contenders.compiled(case) if job.compile_too else None
    for mode_case in job.cases:
        offered, _ = rivals.offers(mode_case)
        for contender in _contenders(mode_case, compiled, offered).values():
            _trial(rotation.rotating(contender, mode_case, [inputs]))


def inputs_of(case: Case, device: torch.device, seed: int) -> Inputs:
    """Random inputs. Batch norm's parameters are float32, as under autocast; others have x's dtype."""
    dtype = torch.float32 if case.operator == "batch_norm" and case.torch_dtype.itemsize == 2 else None
    return random_inputs(case, seed=seed, device=device, parameter_dtype=dtype)


def _measure(
    job: Job,
    case: Case,
    sets: list[Inputs],
    compiled: Contender | None,
    errors: dict[str, dict[str, Error]],
) -> DeviceMeasured:
    clock = clock_of(torch.device(job.device))
    offered, absent = rivals.offers(case)
    tasks = {"copy": rotation.rotating_copy(sets)}
    for name, contender in _contenders(case, compiled, offered).items():
        task = rotation.rotating(contender, case, sets)
        if name == "ours" or (words := _trial(task)) is None:
            tasks[name] = task
        else:
            absent[name] = words
    timings = in_turn(tasks, clock, seconds=job.seconds, least=job.least)
    repeats = len(timings["copy"].seconds)
    return DeviceMeasured(
        case=case,
        repeats=repeats,
        sets=len(sets),
        seconds={name: timing.median / len(sets) for name, timing in timings.items()},
        absent=absent,
        waited=_waited(clock, timings, repeats),
        errors=errors,
    )


def _contenders(
    case: Case, compiled: Contender | None, offered: dict[str, Contender]
) -> dict[str, Contender]:
    found = {"ours": contenders.ours(case), "eager": contenders.eager(case)}
    if compiled is not None:
        found["compiled"] = compiled
    return found | offered


def _trial(task: Task) -> str | None:
    """Runs the task once; the last words of one that raises. A rival that fails stops nobody else."""
    try:
        task()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except Exception as error:
        traceback.print_exc()
        return f"raises {type(error).__name__}: {error}".splitlines()[0]
    return None


def _waited(clock: Clock, timings: dict[str, Timing], repeats: int) -> tuple[str, ...]:
    return tuple(name for name in timings if 4 * clock.waited[name] > repeats)


def _checked(case: Case, device: torch.device) -> dict[str, dict[str, Error]]:
    """The errors of ours and of eager PyTorch on inputs of their own."""
    wanted, inputs = exact(case, inputs_of(case, device, seed=10**6))
    found: dict[str, dict[str, Error]] = {name: {} for name in wanted}
    makers: dict[str, Callable[[Case], Contender]] = {"ours": contenders.ours, "eager": contenders.eager}
    for name, make in makers.items():
        for result, values in contenders.results(make(case), case, inputs).items():
            found[result][name] = error(result, values, wanted[result], case.axes)
    return found


def in_modes(case: Case, modes: tuple[str, ...]) -> tuple[Case, ...]:
    """The case in each mode."""
    return tuple(replace(case, mode=mode) for mode in modes)
