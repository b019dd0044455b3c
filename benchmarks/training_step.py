"""A training step of a network, timed in its variants, and its peak memory.

A step is forward, the mean square of the output as loss, backward, and dropping the gradients; there is no
optimiser, whose time and memory the normalisers do not touch. The loss is not cross entropy because a network
without normalisers has large outputs, at which a softmax saturates: its gradients would be zeros and
subnormal numbers, which have a speed of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.alternate import Task, alternate
from benchmarks.machine import touch_heap
from benchmarks.models import MODELS, Model
from benchmarks.variants import VARIANTS
from normwright.network.acceleration.accelerate import accelerate_with_report

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Setup:
    """What is trained: a model by its name, its batch and size (None for its own), layout and threads."""

    network: str
    batch: int | None = None
    size: int | None = None
    layout: str = "contiguous"
    threads: int = 2


@dataclass(frozen=True)
class StepTimes:
    """Times of a step, as ratios of repetitions in turn.

    Args:
        seconds: median of each variant, for the record.
        eager_to_without: what PyTorch's normalisers cost.
        accelerated_to_without: what ours cost.
        accelerated_to_eager: what is gained.
        note: on the model, and on how it was accelerated.
        ordinary: by variant, whether loss and gradients were finite, and the share of gradient entries that
            are subnormal, which would make the arithmetic slower than it is.
    """

    seconds: dict[str, float]
    eager_to_without: float
    accelerated_to_without: float
    accelerated_to_eager: float
    note: str
    ordinary: dict[str, tuple[bool, float]]


def measure_steps(setup: Setup, *, repeats: int, warmup: int = 1) -> StepTimes:
    """Steps the three variants in turn, in this process, after one step each that looks at the gradients."""
    touch_heap()
    model = prepared(setup)
    networks = {name: variant(model.network) for name, variant in VARIANTS.items()}
    tasks = {name: step(network, model.inputs) for name, network in networks.items()}
    ordinary = {name: is_ordinary(network, model.inputs) for name, network in networks.items()}
    _, report = accelerate_with_report(model.network)
    timings = alternate(tasks, repeats=repeats, warmup=warmup)
    return StepTimes(
        seconds={name: timing.median for name, timing in timings.items()},
        eager_to_without=timings["eager"].ratio_to(timings["without"]),
        accelerated_to_without=timings["accelerated"].ratio_to(timings["without"]),
        accelerated_to_eager=timings["accelerated"].ratio_to(timings["eager"]),
        note=f"{model.note} {str(report).splitlines()[0]}",
        ordinary=ordinary,
    )


def measure_peak(setup: Setup, variant: str, *, steps: int = 2) -> int:
    """The most memory that some steps add to what the process held before the first, in bytes.

    One variant to a process. The kernel keeps the high-water mark per address space; `ru_maxrss` would carry
    over the parent's.
    """
    model = prepared(setup)
    run = step(VARIANTS[variant](model.network), model.inputs)
    before = _status("VmRSS")
    for _ in range(steps):
        run()
    return _status("VmHWM") - before


def prepared(setup: Setup) -> Model:
    """The model of a setup, initialised as its library does, in its layout; the threads are set."""
    torch.set_num_threads(setup.threads)
    torch.manual_seed(0)
    sizes = {"batch": setup.batch, "size": setup.size}
    model = MODELS[setup.network](**{name: value for name, value in sizes.items() if value is not None})
    x, *others = model.inputs
    if setup.layout == "contiguous":
        return model
    memory_format = _CHANNELS_LAST[x.dim()]
    network = model.network.to(memory_format=memory_format)  # type: ignore[call-overload]
    return Model(network, (x.contiguous(memory_format=memory_format), *others), model.note)


def step(network: nn.Module, inputs: tuple[Tensor, ...]) -> Task:
    """One training step; nothing of it outlives it."""

    def run() -> None:
        mean_square(network, inputs).backward()
        network.zero_grad(set_to_none=True)

    return run


def mean_square(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """The loss: the mean square of the network's output."""
    output = network(*inputs)
    values: Tensor = output if isinstance(output, Tensor) else output.logits
    return values.square().mean()


def is_ordinary(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[bool, float]:
    """Whether loss and gradients are finite, and the share of gradient entries that are subnormal."""
    loss = mean_square(network, inputs)
    loss.backward()
    gradients = [weight.grad.abs() for weight in network.parameters() if weight.grad is not None]
    finite = all(bool(values.isfinite().all()) for values in (loss, *gradients))
    tiny = torch.finfo(torch.float32).smallest_normal
    subnormal = sum(int(((values > 0) & (values < tiny)).sum()) for values in gradients)
    share = subnormal / sum(values.numel() for values in gradients)
    network.zero_grad(set_to_none=True)
    return finite, share


def _status(name: str) -> int:
    """A line of this process's memory in bytes: VmRSS is what it holds now, VmHWM the most that it held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no line {name}")
