"""A training step of a network on a GPU, timed in its variants by device events, and its peak memory.

A step is what `benchmarks.training_step` says; in bfloat16 by autocast, or with the whole network in
bfloat16. The variants' steps are queued in turn without waiting in between, as a training loop queues them,
so that a step's time is the device's, or the host's where that takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.alternate import Task, Timing
from benchmarks.models import Model
from benchmarks.training_step import Setup, is_ordinary, mean_square, prepared
from benchmarks.variants import VARIANTS
from normwright.network.acceleration.accelerate import accelerate_with_report


@dataclass(frozen=True)
class DeviceSetup:
    """What is trained.

    Args:
        setup: the network, its batch, size and layout.
        precision: "autocast" to bfloat16, "bfloat16" for the whole network, or "float32".
        device: torch's name of it.
        repeats: steps that are timed.
        compile_too: whether eager by `torch.compile` takes part.
    """

    setup: Setup
    precision: str
    device: str = "cuda"
    repeats: int = 15
    compile_too: bool = False


@dataclass(frozen=True)
class DeviceSteps:
    """What the steps come to, by variant.

    Args:
        seconds: median of a step.
        to_without: medians of the ratios step by step to the network without normalisers.
        host_seconds: that the host takes to queue a step; the device waits where it is the longer.
        peaks: most bytes allocated on the device, the weights and gradients included.
        ordinary: whether loss and gradients were finite, and the share of gradients that are subnormal.
        note: on the model, and on how it was accelerated.
    """

    setup: DeviceSetup
    seconds: dict[str, float]
    to_without: dict[str, float]
    host_seconds: dict[str, float]
    peaks: dict[str, int]
    ordinary: dict[str, tuple[bool, float]]
    note: str


def measure_device_steps(setup: DeviceSetup) -> DeviceSteps:
    """Weighs each variant alone, then steps them in turn."""
    device = torch.device(setup.device)
    model = _prepared(setup)
    inputs = tuple(tensor.to(device) for tensor in model.inputs)
    peaks = {name: _peak(make, model, inputs, setup) for name, make in VARIANTS.items()}
    networks = {name: make(model.network).to(device) for name, make in VARIANTS.items()}
    tasks = {name: step(network, inputs, setup) for name, network in networks.items()}
    with _autocast(setup):
        ordinary = {name: is_ordinary(network, inputs) for name, network in networks.items()}
    if setup.compile_too:
        tasks["compiled"] = step(torch.compile(VARIANTS["eager"](model.network).to(device)), inputs, setup)  # type: ignore[arg-type]
    _, report = accelerate_with_report(model.network)
    times, host = _in_turn(tasks, setup.repeats, device)
    return DeviceSteps(
        setup=setup,
        seconds={name: timing.median for name, timing in times.items()},
        to_without={name: timing.ratio_to(times["without"]) for name, timing in times.items()},
        host_seconds={name: timing.median for name, timing in host.items()},
        peaks=peaks,
        ordinary=ordinary,
        note=f"{model.note} {str(report).splitlines()[0]}",
    )


def step(network: nn.Module, inputs: tuple[Tensor, ...], setup: DeviceSetup) -> Task:
    """One training step; nothing of it outlives it."""

    def run() -> None:
        with _autocast(setup):
            loss = mean_square(network, inputs)
        loss.backward()
        network.zero_grad(set_to_none=True)

    return run


def _prepared(setup: DeviceSetup) -> Model:
    model = prepared(setup.setup)
    if setup.precision != "bfloat16":
        return model
    x, *others = model.inputs
    return Model(model.network.bfloat16(), (x.bfloat16(), *others), model.note)


def _autocast(setup: DeviceSetup) -> torch.autocast:
    kind = torch.device(setup.device).type
    return torch.autocast(kind, torch.bfloat16, enabled=setup.precision == "autocast")


def _peak(
    make: Callable[[nn.Module], nn.Module], model: Model, inputs: tuple[Tensor, ...], setup: DeviceSetup
) -> int:
    """The most bytes that two steps of one variant allocate, it being alone on the device; 0 on a CPU."""
    device = torch.device(setup.device)
    run = step(make(model.network).to(device), inputs, setup)
    if device.type != "cuda":
        run()
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(device)


def _in_turn(
    tasks: dict[str, Task], repeats: int, device: torch.device, warmup: int = 3
) -> tuple[dict[str, Timing], dict[str, Timing]]:
    """The device's and the host's seconds of each task, A B C A B C …; on a CPU they are one."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    host: dict[str, list[float]] = {name: [] for name in tasks}
    for repetition in range(warmup + repeats):
        marks = []
        for name, task in tasks.items():
            start, before = _mark(device), time.perf_counter()
            task()
            marks.append((name, start, _mark(device), time.perf_counter() - before))
        if repetition >= warmup:
            for name, start, end, queued in marks:
                host[name].append(queued)
                times[name].append(queued if start is None else _between(start, end))
    return _timings(times), _timings(host)


def _mark(device: torch.device) -> torch.cuda.Event | None:
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(start: torch.cuda.Event, end: torch.cuda.Event | None) -> float:
    assert end is not None
    end.synchronize()
    return 1e-3 * float(start.elapsed_time(end))


def _timings(seconds: dict[str, list[float]]) -> dict[str, Timing]:
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
