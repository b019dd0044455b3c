"""What normalising costs a step of whole networks on a GPU: python -m benchmarks.networks --device cuda.

ResNet-50 (bfloat16 autocast, channels-last), a transformer block with layer and with RMS norm (bfloat16), and
a diffusion U-Net (bfloat16 autocast), each with PyTorch's normalisers (eager), ours (accelerated) and none
(without); ResNet-50 again with eager by torch.compile, last. All in child processes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO

from benchmarks.device.command import add_options, run
from benchmarks.device.deadline import Deadline
from benchmarks.device.isolated import NotRun, run_jobs
from benchmarks.device.report import Outcome
from benchmarks.device.sections import Section
from benchmarks.device.sets import BATCHES
from benchmarks.device.training_step import DeviceSetup, DeviceSteps, measure_device_steps
from benchmarks.markdown import bullets, figure, table
from benchmarks.training_step import Setup
from benchmarks.variants import VARIANTS

# What accelerated/without is to be at most.
BOUNDS = {"resnet50": 1.10}

UNITS = (
    "A step is forward, the mean square of the output as loss, and backward, without an optimiser. Times "
    "are by device events, medians of steps in turn, queued as a training loop queues them; `host` is "
    "what queueing a step takes, and bounds the step where it is the longer. Peaks are "
    "`torch.cuda.max_memory_allocated` of one variant alone, weights and gradients included."
)


def _setup(
    network: str, precision: str, layout: str = "contiguous", *, compile_too: bool = False
) -> DeviceSetup:
    setup = Setup(network, batch=BATCHES[network], layout=layout)
    return DeviceSetup(setup, precision, compile_too=compile_too)


# By section, the most important first.
SETUPS: dict[str, tuple[DeviceSetup, ...]] = {
    "resnet50": (_setup("resnet50", "autocast", "channels-last"),),
    "blocks": (
        _setup("transformer", "bfloat16"),
        _setup("transformer_rms", "bfloat16"),
        _setup("diffusion", "autocast", "channels-last"),
        _setup("diffusion", "autocast"),
    ),
    "resnet50 compiled": (_setup("resnet50", "autocast", "channels-last", compile_too=True),),
}
_SECONDS = {"resnet50": (25.0, 90.0), "blocks": (20.0, 90.0), "resnet50 compiled": (75.0, 180.0)}
_TITLES = {
    "resnet50": "Networks: ResNet-50",
    "blocks": "Networks: transformer blocks and a diffusion U-Net",
    "resnet50 compiled": "Networks: ResNet-50 beside torch.compile",
}
_SMALL = {"resnet50": (2, 32), "diffusion": (1, 16), "transformer": (1, 16), "transformer_rms": (1, 16)}


def sections(options: argparse.Namespace) -> dict[str, Section]:
    """The sections by name, the most important first."""
    return {name: Section(name, *_SECONDS[name], partial(_measure, name, options)) for name in SETUPS}


def _measure(
    name: str, options: argparse.Namespace, deadline: Deadline, log: IO[str] | None
) -> Iterator[Outcome]:
    setups = [_rehearsed(setup) if options.rehearse else setup for setup in SETUPS[name]]
    rows: list[DeviceSteps] = []
    trouble: list[str] = []
    jobs = run_jobs(measure_device_steps, setups, deadline=deadline, longest=_SECONDS[name][1], log=log)
    for number, result in jobs:
        if isinstance(result, DeviceSteps):
            rows.append(result)
        else:
            words = "no time was left" if isinstance(result, NotRun) else f"failed: {result.reason}"
            trouble.append(f"{_place(setups[number])}: {words}")
        yield _outcome(_TITLES[name], rows, trouble)


def _rehearsed(setup: DeviceSetup) -> DeviceSetup:
    batch, size = _SMALL[setup.setup.network]
    small = Setup(setup.setup.network, batch, size, setup.setup.layout, threads=1)
    return DeviceSetup(small, setup.precision, device="cpu", repeats=1)


def _outcome(title: str, rows: Sequence[DeviceSteps], trouble: Sequence[str]) -> Outcome:
    short = [words for row in rows for words in shortcomings(row)]
    notes = dict.fromkeys(row.note for row in rows)
    first = f"**{len(rows)} networks measured, {len(short)} shortcomings**"
    markdown = "\n\n".join([UNITS, first, bullets([*short, *trouble]), networks_table(rows), bullets(notes)])
    summary = [first, *short, *trouble, *(line for row in rows for line in _summary(row))]
    return Outcome(title, markdown, {"rows": rows, "trouble": trouble}, summary)


def shortcomings(row: DeviceSteps) -> list[str]:
    """Where a bound is missed, eager is quicker or smaller, or the arithmetic was not ordinary."""
    place, found = _place(row.setup), []
    bound, share = BOUNDS.get(row.setup.setup.network), row.to_without["accelerated"]
    if bound is not None and share > bound:
        found.append(f"{place}: {share:.2f} of the step without, above {bound:.2f}")
    if row.seconds["accelerated"] > row.seconds["eager"]:
        ratio = row.seconds["accelerated"] / row.seconds["eager"]
        found.append(f"{place}: {ratio:.2f} of eager's time")
    if row.peaks["accelerated"] > row.peaks["eager"]:
        ratio = row.peaks["accelerated"] / row.peaks["eager"]
        found.append(f"{place}: {ratio:.3f} of eager's peak memory")
    for name, (finite, subnormal) in row.ordinary.items():
        if not finite or subnormal > 1e-4:
            found.append(f"{place}, {name}: finite {finite}, {subnormal:.1%} of the gradients subnormal")
    return found


def networks_table(rows: Sequence[DeviceSteps]) -> str:
    """Ratios to the step without normalisers, times and peaks."""
    timed = [name for name in (*VARIANTS, "compiled") if any(name in row.seconds for row in rows)]
    head = (
        *("network", "layout", "precision", "batch", "eager/without", "accelerated/without", "bound"),
        *(f"step {name}, ms" for name in timed),
        *(f"host {name}, ms" for name in timed),
        *(f"peak {name}, MB" for name in VARIANTS),
    )
    return table(head, [_cells(row, timed) for row in rows])


def _cells(row: DeviceSteps, timed: Sequence[str]) -> tuple[str, ...]:
    setup = row.setup.setup
    return (
        *(setup.network, setup.layout, row.setup.precision, str(setup.batch)),
        *(figure(row.to_without[name], 3) for name in ("eager", "accelerated")),
        figure(BOUNDS.get(setup.network)),
        *(_milliseconds(row.seconds.get(name)) for name in timed),
        *(_milliseconds(row.host_seconds.get(name)) for name in timed),
        *(f"{row.peaks[name] / 1e6:.0f}" for name in VARIANTS),
    )


def _milliseconds(seconds: float | None) -> str:
    return figure(None if seconds is None else 1e3 * seconds)


def _summary(row: DeviceSteps) -> list[str]:
    times = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in row.seconds.items())
    peaks = ", ".join(f"{name} {peak / 1e6:.0f} MB" for name, peak in row.peaks.items())
    host = 1e3 * row.host_seconds["accelerated"]
    ratio = row.to_without["accelerated"]
    return [f"{_place(row.setup)}: accelerated/without {ratio:.3f}; {times} (host {host:.2f}); {peaks}"]


def _place(setup: DeviceSetup) -> str:
    return f"{setup.setup.network}, {setup.setup.layout}, {setup.precision}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, saves and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks --device cuda",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--set", nargs="+", choices=SETUPS, default=list(SETUPS), help="what to measure")
    add_options(parser, minutes=9.0)
    options = parser.parse_args(arguments)
    chosen = [section for name, section in sections(options).items() if name in options.set]
    print(run("networks", "Networks on a GPU", chosen, options).page())
