"""How many kernels a call launches, counted by PyTorch's profiler, and how long the host takes for a call."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType

from benchmarks import contenders
from benchmarks.cases import Case, shrunk
from benchmarks.contenders import Contender
from benchmarks.device.deadline import Deadline
from benchmarks.device.goals import DEVICE_HEADLINE
from benchmarks.device.isolated import NotRun, run_jobs
from benchmarks.device.measure import inputs_of
from benchmarks.device.report import Outcome
from benchmarks.device.sections import Section
from benchmarks.markdown import bullets, figure, table
from benchmarks.overhead import Overhead, measure_overheads

# What the profiler may say of itself among the kernels.
_PROFILER_S_OWN = ("Activity Buffer Request", "Lazy Function Loading", "Runtime Triggered Module Loading")

MOST_FORWARD, MOST_BACKWARD = 2, 3


@dataclass(frozen=True)
class Launches:
    """The kernels of one call, by contender ("ours", "eager"), in the order of their launch."""

    case: Case
    forward: dict[str, list[str]]
    backward: dict[str, list[str]]

    @property
    def within(self) -> bool:
        """Whether ours launches as few as are asked for; where none was seen, nothing was counted."""
        few_forward = 0 < len(self.forward["ours"]) <= MOST_FORWARD
        return few_forward and len(self.backward["ours"]) <= MOST_BACKWARD


@dataclass(frozen=True)
class LaunchJob:
    """A case whose launches are counted, or None for the host's times."""

    case: Case | None
    device: str
    inner: int = 200
    repeats: int = 15


def launches_section(options: argparse.Namespace) -> Section:
    """The section."""
    return Section("launches", 20.0, 60.0, partial(_measure, options))


def measure_launches(job: LaunchJob) -> Launches | list[Overhead]:
    """The kernels of the job's case, or the host's times of every layer."""
    if job.case is None:
        return measure_overheads(inner=job.inner, repeats=job.repeats, device=job.device)
    case, device = job.case, torch.device(job.device)
    inputs = inputs_of(case, device, seed=0)
    counter = torch.zeros((), dtype=torch.long, device=device)
    tracked: dict[str, Tensor] = {"num_batches_tracked": counter} if case.operator == "batch_norm" else {}
    rivals = {"ours": contenders.ours(case, **tracked), "eager": contenders.eager(case)}
    counted = {name: _count(rival, inputs, device) for name, rival in rivals.items()}
    return Launches(
        case,
        {name: forward for name, (forward, _) in counted.items()},
        {name: backward for name, (_, backward) in counted.items()},
    )


def _count(contender: Contender, inputs: Any, device: torch.device) -> tuple[list[str], list[str]]:
    leaves = tuple(inputs.leaves.values())
    for _ in range(2):  # the first profile of a process may miss kernels
        outputs: list[Tensor] = []
        forward = kernels(lambda kept=outputs: kept.append(contender(inputs)), device)  # type: ignore[misc]
        y = outputs[0]
        backward = kernels(lambda y=y: torch.autograd.grad(y, leaves, inputs.dy), device)  # type: ignore[misc]
    return forward, backward


def kernels(task: Callable[[], object], device: torch.device) -> list[str]:
    """The names of the kernels, and of the copies and fills, that a task launches; none on a CPU."""
    if device.type != "cuda":
        task()
        return []
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        task()
        torch.cuda.synchronize()
    events = sorted(profile.events(), key=lambda event: event.time_range.start)
    on_device = [event.name for event in events if event.device_type == DeviceType.CUDA]
    return [name for name in on_device if name not in _PROFILER_S_OWN]


def launch_cases() -> list[Case]:
    """The steps of the headline in bfloat16."""
    return [case for case in DEVICE_HEADLINE if case.mode == "step" and case.dtype == "bfloat16"]


def _measure(options: argparse.Namespace, deadline: Deadline, log: IO[str] | None) -> Iterator[Outcome]:
    cases = [shrunk(case, 2**14) for case in launch_cases()] if options.rehearse else launch_cases()
    effort = {"inner": 2, "repeats": 3} if options.rehearse else {}
    jobs = [LaunchJob(case, options.device, **effort) for case in (*cases, None)]
    rows: list[Launches] = []
    overheads: list[Overhead] = []
    trouble: list[str] = []
    for number, result in run_jobs(measure_launches, jobs, deadline=deadline, log=log):
        if isinstance(result, Launches):
            rows.append(result)
        elif isinstance(result, list):
            overheads = result
        else:
            case = jobs[number].case
            words = "no time was left" if isinstance(result, NotRun) else result.reason
            trouble.append(f"{case.label if case else 'host times'}: {words}")
        yield _outcome(rows, overheads, trouble)


def _outcome(rows: Sequence[Launches], overheads: Sequence[Overhead], trouble: Sequence[str]) -> Outcome:
    many = [row for row in rows if not row.within]
    first = (
        f"**At most {MOST_FORWARD} launches forward and {MOST_BACKWARD} backward: "
        f"{len(rows) - len(many)} of {len(rows)} cases**"
    )
    lines = [
        *(
            f"{row.case.label}: {len(row.forward['ours'])} forward, {len(row.backward['ours'])} backward"
            for row in many
        ),
        *(f"failed: {line}" for line in trouble),
    ]
    parts = [first, bullets(lines), launch_table(rows), host_table(overheads) if overheads else ""]
    host = [
        f"host, {row.run}, {row.layer}: {row.ratio:.2f} of torch.nn's {row.theirs_us:.0f} µs"
        for row in overheads
    ]
    records = {"launches": rows, "host": overheads, "trouble": trouble}
    return Outcome("Launches", "\n\n".join(part for part in parts if part), records, [first, *lines, *host])


def launch_table(rows: Sequence[Launches]) -> str:
    """Counts, and the names of our kernels."""
    head = ("operator", "shape", "layout", "forward: ours", "eager", "backward: ours", "eager", "our kernels")
    return table(head, [_cells(row) for row in rows])


def _cells(row: Launches) -> tuple[str, ...]:
    counts = (str(len(found[name])) for found in (row.forward, row.backward) for name in ("ours", "eager"))
    names = "; ".join(
        ", ".join(_short(name) for name in found["ours"]) for found in (row.forward, row.backward)
    )
    return (row.case.what, row.case.size, row.case.layout, *counts, names)


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:47]}…"


def host_table(rows: Sequence[Overhead]) -> str:
    """The host's time of a layer's call on a tensor of 4×8×2×2, ours over torch.nn's."""
    head = ("layer on 4×8×2×2", "run", "host: ours/torch.nn", "torch.nn, µs")
    return table(head, [(row.layer, row.run, figure(row.ratio), f"{row.theirs_us:.0f}") for row in rows])
