"""What folding does to networks that other people wrote: python -m benchmarks.folding.

First each network of `benchmarks/real_networks.py`: how many normalisers are folded, what is left and why,
the largest error and the time before and after. Then a ResNet-50 at batch 1 and 16, in turn: as it is,
folded, folded by `torch.fx.experimental.optimization.fuse`, and with its normalisers taken out. Then a norm
before a zero-padded convolution, folded in several ways (`benchmarks/border.py`): that alone is
`python -m benchmarks.folding --network --batch`. With
`--docs docs/networks.md` the page is written there too.
"""

from __future__ import annotations

import argparse
import collections
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from benchmarks.alternate import Task, Timing, alternate_for
from benchmarks.border import BorderRace, border_table, race_borders
from benchmarks.machine import describe, in_words
from benchmarks.markdown import figure, table
from benchmarks.real_networks import REAL_NETWORKS, draw_statistics, resnet
from benchmarks.saving import save
from benchmarks.variants import without
from normwright.network import FoldReport, fold_with_report

# What is asked: an error of at most 4 times the unfolded network's; a folded ResNet-50 no slower than fuse's,
# and within 3 % of one without normalisers.
TO_UNFOLDED, TO_FUSED, TO_WITHOUT = 4.0, 1.0, 1.03

# What rounding adds up to is nearly the same for every example, but not for other weights: of one draw either
# network may be far nearer to float64 by chance, the more so where there are two outputs.
DRAWS = 6

_WHY = {
    "those of its input": "normalises by its input",
    "is also read by": "what it normalises is read elsewhere too",
}


@dataclass(frozen=True)
class Errors:
    """The largest of each network against float64, in ulps at the output's largest magnitude."""

    folded: float
    unfolded: float


@dataclass(frozen=True)
class Row:
    """One network; `report` is None where it failed, for the reason."""

    name: str
    report: FoldReport | None
    reason: str = ""
    errors: Errors | None = None


@dataclass(frozen=True)
class Race:
    """A ResNet-50 at one batch size: medians in seconds, and the folded one's time over each."""

    batch: int
    repeats: int
    seconds: dict[str, float]
    folded_to: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and saves."""
    options = _parser().parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    rows = [_fold(name, small=options.quick) for name in options.network]
    races = [_race(batch, options) for batch in options.batch]
    borders = race_borders(options.border_seconds, quick=options.quick) if options.border_seconds else []
    page = _page(rows, races, borders, options)
    records = {"machine": describe(), "rows": rows, "races": races, "borders": borders}
    save(options.out, "folding", page, records)
    if options.docs is not None:
        options.docs.parent.mkdir(parents=True, exist_ok=True)
        options.docs.write_text(page.rstrip() + "\n")
    print(page)


def _fold(name: str, *, small: bool) -> Row:
    print(f"  {name}", file=sys.stderr, flush=True)
    try:
        reports = [_draw(name, small=small) for _ in range(DRAWS)]
        return Row(name, reports[0], errors=_largest(reports))
    except Exception as error:  # one that fails stops no other
        traceback.print_exc()
        return Row(name, None, f"{type(error).__name__}: {error}".splitlines()[0])


def _draw(name: str, *, small: bool) -> FoldReport:
    real = REAL_NETWORKS[name](small=small)
    return fold_with_report(draw_statistics(real.network).eval(), real.example)[1]


def _largest(reports: Sequence[FoldReport]) -> Errors | None:
    found = [report.error for report in reports if report.error is not None]
    if not found:
        return None
    # A network that runs in float64 has both.
    return Errors(
        max(error.folded_ulps or 0.0 for error in found), max(error.unfolded_ulps or 0.0 for error in found)
    )


def _race(batch: int, options: argparse.Namespace) -> Race:
    print(f"  ResNet-50, batch {batch}", file=sys.stderr, flush=True)
    network = _straight_resnet(small=options.quick).eval()
    x = torch.randn(batch, 3, *([48, 48] if options.quick else [224, 224]))
    networks = {
        "unfolded": network,
        "folded": fold_with_report(network, x)[0],
        "fused": fuse(network),
        "without": without(network),
    }
    with torch.no_grad():
        expected = network(x)
        for name in ("folded", "fused"):
            apart = float((networks[name](x) - expected).abs().max() / expected.abs().max())
            assert apart < 1e-4, (name, apart)
        timings = alternate_for(
            {name: _task(it, x) for name, it in networks.items()}, seconds=options.seconds
        )
    return _raced(batch, timings)


def _raced(batch: int, timings: dict[str, Timing]) -> Race:
    return Race(
        batch,
        len(timings["folded"].seconds),
        {name: timing.median for name, timing in timings.items()},
        {name: timings["folded"].ratio_to(timing) for name, timing in timings.items() if name != "folded"},
    )


def _task(network: nn.Module, x: torch.Tensor) -> Task:
    return lambda: network(x)


def _straight_resnet(*, small: bool) -> nn.Sequential:
    """The modules of Transformers' ResNet in a row, for `fuse` cannot trace the checks around them."""
    whole = draw_statistics(resnet(small=small).network)
    inner = whole.resnet
    stages = inner.encoder.stages  # type: ignore[union-attr]
    network = nn.Sequential(
        inner.embedder.embedder, inner.embedder.pooler, *stages, inner.pooler, whole.classifier  # type: ignore
    )  # fmt: skip
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return network


def _page(
    rows: Sequence[Row], races: Sequence[Race], borders: Sequence[BorderRace], options: argparse.Namespace
) -> str:
    size = "shrunk (a trial, not to be quoted)" if options.quick else "as their libraries configure them"
    return "\n\n".join(
        [
            "# Folding networks that other people wrote",
            f"Made by `python -m benchmarks.folding`; {in_words(describe())}; {options.threads} threads. "
            "Random weights, statistics that differ from channel to channel, float32, "
            f"{size}. Errors are the largest of {DRAWS} draws of the weights, against the network in "
            "float64, in ulps at the output's largest magnitude. Time is that of the folded network over "
            "that of the unfolded one, medians of calls in turn.",
            _table(rows),
            "## A ResNet-50 in a row",
            "Transformers' modules in an `nn.Sequential`, ReLU in place, 224 × 224. *Fused* is "
            "`torch.fx.experimental.optimization.fuse`, *without* has `nn.Identity` for its normalisers.",
            _races(races),
            "## A norm before a zero-padded convolution",
            "3 × 3, stride 1, as many channels out as in. Each way computes the same: a *multiply-add* "
            "before the convolution; *folded*, as `fold` does it, with the shift as a convolution of ones; "
            "*padded*, folded with a value of its own for each channel's padding; the *norm* itself.",
            border_table(borders),
            _verdict(rows, races),
        ]
    )


def _table(rows: Sequence[Row]) -> str:
    head = (
        *("network", "normalisers", "folded", "multiply-add", "left", "why no further"),
        *("error folded", "error unfolded", "time after/before"),
    )
    return table(head, [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    report = row.report
    if report is None:
        return (row.name, "", "", "", "", row.reason, "", "", "")
    places = collections.Counter(record.place for record in report.normalisers)
    why = collections.Counter(_why(record.reason) for record in report.normalisers if record.reason)
    errors = row.errors
    return (
        row.name,
        str(len(report.normalisers)),
        str(report.folded),
        str(places["multiply-add"]),
        str(places[""]),
        "; ".join(f"{count}: {reason}" for reason, count in why.most_common()),
        figure(None if errors is None else errors.folded, 1),
        figure(None if errors is None else errors.unfolded, 1),
        figure(None if report.speed is None else report.speed.ratio),
    )


def _why(reason: str) -> str:
    known = [words for part, words in _WHY.items() if part in reason]
    behind = reason.partition("into what is after it: ")[2]
    return "; ".join([*known, *([f"{behind} follows"] if behind else [])]) or reason


def _races(races: Sequence[Race]) -> str:
    head = (
        *("batch", "unfolded, ms", "folded, ms", "fused, ms", "without, ms"),
        *("folded/unfolded", "folded/fused", "folded/without", "repetitions"),
    )
    names = ("unfolded", "folded", "fused", "without")
    return table(
        head,
        [
            (
                str(race.batch),
                *(f"{1e3 * race.seconds[name]:.1f}" for name in names),
                *(figure(race.folded_to[name], 3) for name in names if name != "folded"),
                str(race.repeats),
            )
            for race in races
        ],
    )


def _verdict(rows: Sequence[Row], races: Sequence[Race]) -> str:
    lines = [f"{row.name}: {row.reason}" for row in rows if row.report is None]
    for row in rows:
        if row.errors is not None and row.errors.folded > TO_UNFOLDED * row.errors.unfolded:
            lines.append(f"{row.name}: {row.errors.folded:.1f} ulps for {row.errors.unfolded:.1f} unfolded")
    for race in races:
        for name, bound in (("fused", TO_FUSED), ("without", TO_WITHOUT)):
            if race.folded_to[name] > bound:
                lines.append(f"batch {race.batch}: {race.folded_to[name]:.3f} of {name}, above {bound}")
    return "**Falls short:** " + "; ".join(lines) if lines else "**Nothing falls short.**"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.folding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--network", nargs="*", choices=REAL_NETWORKS, default=list(REAL_NETWORKS))
    add("--batch", type=int, nargs="*", default=[1, 16], help="of the ResNet-50 in a row")
    add("--seconds", type=float, default=60.0, help="for each batch size")
    add("--border-seconds", type=float, default=8.0, help="for each shape before a padded layer; 0 for none")
    add("--threads", type=int, default=2)
    add("--quick", action="store_true", help="shrunk networks: does it run?")
    add("--docs", type=Path, help="also write the page here: docs/networks.md")
    add("--out", type=Path, default=Path("build/benchmarks"), help="folder to save in")
    return parser


if __name__ == "__main__":
    main()
