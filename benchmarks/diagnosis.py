"""What a diagnosis costs beside the same number of plain training steps: python -m benchmarks.diagnosis.

Transformers' ResNet-50 and, to see the overhead, a ResNet-20 on small images. A plain step is forward, loss,
backward and SGD's step, on the same batches. Both alternate, and the median of their ratios is quoted; so is
how much of a diagnosis each part of the evidence takes.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normwright as nw
from benchmarks.alternate import Task, alternate
from benchmarks.machine import describe, in_words
from benchmarks.markdown import figure, table
from benchmarks.models import resnet50
from benchmarks.saving import save
from normwright.doctor import evidence
from normwright.lab.networks import build_network
from normwright.lab.recipe import NetworkRecipe

GOAL = 3.0

Batches = Sequence[tuple[Tensor, Tensor]]
Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Cost:
    """What a diagnosis of one network costs.

    Args:
        network: with the batches' size.
        plain: median seconds of the plain training steps.
        ratio: median of a diagnosis's time over theirs.
        parts: seconds of the parts, in the order in which they first ran; medians.
    """

    network: str
    plain: float
    ratio: float
    parts: dict[str, float]


def measure(network: nn.Module, loss: Loss, batches: Batches, repeats: int, name: str) -> Cost:
    """Diagnoses and trains in turn."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    trained = copy.deepcopy(network)
    parts: list[dict[str, float]] = []

    def diagnosis() -> None:
        with timed_parts() as seconds:
            found = nw.diagnose(network, batches, loss, optimiser=optimiser, steps=len(batches))
        assert found.outcomes
        parts.append(seconds)

    tasks = {"plain": training(trained, loss, batches), "diagnosis": diagnosis}
    timings = alternate(tasks, repeats=repeats, warmup=1 if repeats > 2 else 0)
    medians = {part: statistics.median(them.get(part, 0.0) for them in parts) for part in parts[-1]}
    return Cost(name, timings["plain"].median, timings["diagnosis"].ratio_to(timings["plain"]), medians)


def training(network: nn.Module, loss: Loss, batches: Batches) -> Task:
    """One plain training step on each batch."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def steps() -> None:
        for images, labels in batches:
            loss(network(images), labels).backward()
            optimiser.step()
            optimiser.zero_grad()

    return steps


@contextlib.contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Inside, the seconds of each function of the doctor's that gathers evidence, and of all rules."""
    seconds: dict[str, float] = {}
    # by its name, for the package has the function in the module's place
    diagnose = importlib.import_module("normwright.doctor.diagnose")
    places = [(evidence, name) for name, value in vars(evidence).items() if _gathers(value)]
    places.append((diagnose, "judge"))
    kept = [(module, name, getattr(module, name)) for module, name in places]
    try:
        for module, name, function in kept:
            setattr(module, name, _timed(function, "rules" if name == "judge" else name, seconds))
        yield seconds
    finally:
        for module, name, function in kept:
            setattr(module, name, function)


def _gathers(value: object) -> bool:
    """Whether it is a function that `gather` calls for a part of the evidence, from a file of its own."""
    module = getattr(value, "__module__", "")
    own = module.startswith("normwright.doctor.") and module != evidence.__name__
    wraps = ("part_or_missing", "random_states_kept")
    return own and callable(value) and not isinstance(value, type) and value.__name__ not in wraps  # type: ignore[attr-defined]


def _timed(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    return timed


def of_resnet50(steps: int, batch: int, size: int, repeats: int) -> Cost:
    """Transformers' ResNet-50."""
    network = resnet50(1, 32).network.train()
    name = f"ResNet-50 of transformers, {steps} × {batch} × 3 × {size} × {size}"
    batches = _batches(steps, (batch, 3, size, size), 1000)
    return measure(network, lambda outputs, y: F.cross_entropy(outputs.logits, y), batches, repeats, name)


def of_resnet20(steps: int, batch: int, repeats: int) -> Cost:
    """ResNet-20 of the lab."""
    recipe = NetworkRecipe(name="resnet20", activation="relu", initialisation="kaiming")
    network = build_network(recipe, "batch", (3, 32, 32), 10).module
    batches = _batches(steps, (batch, 3, 32, 32), 10)
    name = f"ResNet-20 of the lab, {steps} × {batch} × 3 × 32 × 32"
    return measure(network, F.cross_entropy, batches, repeats, name)


def _batches(steps: int, shape: tuple[int, ...], classes: int) -> Batches:
    return [(torch.randn(*shape), torch.randint(classes, shape[:1])) for _ in range(steps)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and saves."""
    options = _parser().parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    costs = [of_resnet20(options.steps, options.batch, max(options.repeats, 3))]
    if not options.small:
        costs.append(of_resnet50(options.steps, options.batch, options.size, options.repeats))
    page = _page(costs, options)
    save(options.out, "diagnosis", page, {"machine": describe(), "costs": costs})
    print(page)


def _page(costs: Sequence[Cost], options: argparse.Namespace) -> str:
    head = ("network and batches", "plain steps, s", "diagnosis ÷ plain", "at most")
    rows = [(it.network, figure(it.plain), figure(it.ratio), figure(GOAL, 1)) for it in costs]
    names = list(dict.fromkeys(part for it in costs for part in it.parts))
    steps = options.steps
    shares = [
        (
            it.network,
            *(figure(steps * it.parts.get(part, 0.0) / it.plain, 1) for part in names),
            _rest(it, steps),
        )
        for it in costs
    ]
    return "\n\n".join(
        [
            "# What a diagnosis costs",
            f"Made by `python -m benchmarks.diagnosis`; {in_words(describe())}; {options.threads} threads.",
            table(head, rows),
            f"Of that, in plain training steps ({GOAL * steps:.0f} may be spent on {steps}):",
            table(("network and batches", *names, "the rest"), shares),
        ]
    )


def _rest(cost: Cost, steps: int) -> str:
    return figure(steps * (cost.ratio - sum(cost.parts.values()) / cost.plain), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diagnosis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--steps", type=int, default=8)
    add("--batch", type=int, default=16)
    add("--size", type=int, default=224, help="of the ResNet-50's images")
    add("--repeats", type=int, default=2, help="of the ResNet-50; the small network has at least 3")
    add("--threads", type=int, default=2)
    add("--small", action="store_true", help="the small network alone")
    add("--out", type=Path, default=Path("build/benchmarks"), help="folder to save in")
    return parser


if __name__ == "__main__":
    main()
