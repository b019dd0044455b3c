"""What normalising costs a training step of whole networks: python -m benchmarks.networks.

Three variants: PyTorch's normalisers (eager), ours (accelerated), and none (without). Every network in both
layouts (a transformer has one) and under both allocator settings, each in a child process of its own, the
variants' steps in turn; the peak memory of each variant in one more child. Prints and saves the tables.

With `--device cuda` see benchmarks/device/networks.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import ALLOCATORS, Allocator, in_child
from benchmarks.device import networks as device_networks
from benchmarks.device.command import device_of
from benchmarks.machine import describe, in_words
from benchmarks.markdown import bullets, figure, table
from benchmarks.models import MODELS
from benchmarks.saving import save
from benchmarks.training_step import Setup, StepTimes, measure_peak, measure_steps
from benchmarks.variants import VARIANTS

ONE_LAYOUT = ("transformer", "transformer_rms")
QUICK = {
    "resnet50": (2, 32),
    "unet3d": (1, 32),
    "diffusion": (1, 16),
    "transformer": (1, 16),
    "transformer_rms": (1, 16),
}

STEP = (
    "A step is forward, the mean square of the output as loss, and backward, without an optimiser, from the "
    "weights as the library initialises them. `accelerated` is `normwright.accelerate`; `without` has "
    "`nn.Identity` in place of normalisers. Ratios are medians over steps in turn, peaks what steps add to "
    "resident memory."
)

# What accelerated/without is to be at most, by network and allocator setting.
BOUNDS = {("resnet50", "default allocator"): 1.15, ("resnet50", "memory reused"): 1.08}


@dataclass(frozen=True)
class Row:
    """One network in one layout under one setting; `peaks` are bytes, by variant."""

    setup: Setup
    allocator: str
    times: StepTimes
    peaks: dict[str, int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and saves."""
    device, others = device_of(arguments)
    if device != "cpu":
        device_networks.main(["--device", device, *others])
        return
    options = _parser().parse_args(others)
    repeats, steps = (2, 1) if options.quick else (options.repeats, 2)
    machines = {allocator.name: in_child(allocator, describe) for allocator in ALLOCATORS}
    rows: list[Row] = []
    for setup in _setups(options):
        for allocator in ALLOCATORS:
            print(f"  {setup.network}, {setup.layout}, {allocator.name}", file=sys.stderr, flush=True)
            rows.append(_measure(setup, allocator, repeats, steps))
            save(options.out, "networks", _page(machines, rows), {"machines": machines, "rows": rows})
    print(_page(machines, rows))


def _measure(setup: Setup, allocator: Allocator, repeats: int, steps: int) -> Row:
    times = in_child(allocator, measure_steps, setup, repeats=repeats)
    peaks = {name: in_child(allocator, measure_peak, setup, name, steps=steps) for name in VARIANTS}
    return Row(setup, allocator.name, times, peaks)


def _page(machines: dict[str, dict[str, object]], rows: Sequence[Row]) -> str:
    facts = [f"{name}: {in_words(facts)}" for name, facts in machines.items()]
    notes = dict.fromkeys(f"{row.setup.network}: {row.times.note}" for row in rows)
    return "\n\n".join(["# Networks", bullets(facts), bullets(notes), STEP, _table(rows), _verdict(rows)])


def _table(rows: Sequence[Row]) -> str:
    head = (
        *("network", "layout", "allocator", "eager/without", "accelerated/without", "bound"),
        *("accelerated/eager", "step without, s"),
        *(f"peak {name}, MB" for name in VARIANTS),
    )
    return table(head, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    times = row.times
    return (
        *(row.setup.network, row.setup.layout, row.allocator),
        *(figure(times.eager_to_without), figure(times.accelerated_to_without), figure(_bound(row))),
        *(figure(times.accelerated_to_eager), figure(times.seconds["without"], 3)),
        *(f"{row.peaks[name] / 1e6:.0f}" for name in VARIANTS),
    )


def _bound(row: Row) -> float | None:
    return BOUNDS.get((row.setup.network, row.allocator))


def _verdict(rows: Sequence[Row]) -> str:
    """What falls short: a bound, eager's time or peak memory, or arithmetic that was not ordinary."""
    lines = []
    for row in rows:
        place = f"{row.setup.network}, {row.setup.layout}, {row.allocator}"
        bound, times, peaks = _bound(row), row.times, row.peaks
        if bound is not None and times.accelerated_to_without > bound:
            lines.append(f"{place}: {times.accelerated_to_without:.2f} of the step without, above {bound}")
        if times.accelerated_to_eager > 1.0:
            lines.append(f"{place}: {times.accelerated_to_eager:.2f} of eager's time")
        if peaks["accelerated"] > peaks["eager"]:
            lines.append(f"{place}: {peaks['accelerated'] / peaks['eager']:.3f} of eager's peak memory")
        for name, (finite, subnormal) in times.ordinary.items():
            if not finite or subnormal > 1e-4:
                lines.append(f"{place}, {name}: finite {finite}, {subnormal:.1%} of the gradients subnormal")
    return "**Falls short**\n\n" + bullets(lines) if lines else "**Nothing falls short**"


def _setups(options: argparse.Namespace) -> Iterator[Setup]:
    for network in options.network:
        batch, size = QUICK[network] if options.quick else (options.batch, options.size)
        for layout in options.layout:
            if layout == "contiguous" or network not in ONE_LAYOUT:
                yield Setup(network, batch, size, layout, options.threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    layouts = ["contiguous", "channels-last"]
    add("--device", default="cpu", help="cpu, or cuda, which has options of its own")
    add("--network", nargs="+", choices=MODELS, default=list(MODELS))
    add("--layout", nargs="+", choices=layouts, default=layouts)
    add("--batch", type=int, help="in place of the network's own: 16 for resnet50")
    add("--size", type=int, help="images' or volumes' edge, or sequence length: 224 for resnet50")
    add("--threads", type=int, default=2)
    add("--repeats", type=int, default=7, help="steps that are timed, after two that are not")
    add("--quick", action="store_true", help="small inputs, few steps: does it run?")
    add("--out", type=Path, default=Path("build/benchmarks"), help="folder to save in")
    return parser


if __name__ == "__main__":
    main()
