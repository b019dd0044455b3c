"""What the other verbs do to networks that other people wrote: python -m benchmarks.verbs.

Each network of `benchmarks/real_networks.py` is accelerated, recalibrated on two batches and taken back, and
converted to group norm and back: how many normalisers each verb serves, why it does not serve the rest, and
what is left of the outputs. Folding has a page of its own (`benchmarks/folding.py`). With `--docs
docs/verbs.md` the page is written there too.
"""

from __future__ import annotations

import argparse
import collections
import copy
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import normwright as nw
from benchmarks.alternate import alternate_for
from benchmarks.machine import describe, in_words
from benchmarks.markdown import figure, table
from benchmarks.real_networks import REAL_NETWORKS, Real, draw_statistics
from benchmarks.saving import save
from normwright.errors import NormwrightError
from normwright.network import accelerate_with_report, convert_with_report
from normwright.network.calling import tensors_of


@dataclass(frozen=True)
class Served:
    """One verb on one network.

    Args:
        served: how many normalisers it acted on.
        found: how many it looked at.
        note: the figures, in words.
        why: why it did not act on the rest, or raised.
    """

    served: int
    found: int
    note: str
    why: str


Verb = Callable[[Real, float], Served]


def accelerated(real: Real, seconds: float) -> Served:
    """How many become drop-ins; the largest change of an output, and the time of an inference."""
    network, report = accelerate_with_report(real.network)
    apart = _apart(_outputs(network, real.example), _outputs(real.network, real.example))
    with torch.no_grad():
        timings = alternate_for(
            {"after": lambda: network(real.example), "before": lambda: real.network(real.example)},
            seconds=seconds,
        )
    became = [record for record in report.normalisers if record.became]
    fused = sum(bool(record.fused) for record in became)
    note = f"{fused} with something fused; moves an output by {apart:.0e}; inference takes "
    note += f"{timings['after'].ratio_to(timings['before']):.2f} of the time"
    left = (record.reason for record in report.normalisers if not record.became)
    return Served(len(became), len(report.normalisers), note, _counted(left))


def recalibrated(real: Real, _: float) -> Served:
    """How many are re-estimated from two batches; that taking back gives every bit again."""
    network = copy.deepcopy(real.network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    example = torch.cat([real.example, real.example.flip(-1)])
    handle = nw.recalibrate(network, [example, 2 * example + 1])
    layers = handle.report.layers
    handle.undo()
    same = all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    note = "taken back to the bit" if same else "NOT TAKEN BACK"
    done = sum(not layer.reason for layer in layers)
    return Served(done, len(layers), note, _counted(layer.reason for layer in layers))


def converted(real: Real, _: float) -> Served:
    """How many become group norms; that the way back gives every bit of an inference again."""
    network, report = convert_with_report(real.network, "group", example=real.example)
    kind = "frozen" if "Frozen" in report.layers[0].before else "batch"
    back = nw.convert(network, kind)
    there = _apart(_outputs(back, real.example), _outputs(real.network, real.example))
    note = "there and back to the bit" if there == 0 else f"there and back moves an output by {there:.0e}"
    done = sum(bool(layer.became) for layer in report.layers)
    return Served(done, len(report.layers), note, _counted(layer.reason for layer in report.layers))


VERBS: dict[str, Verb] = {"accelerate": accelerated, "recalibrate": recalibrated, "convert": converted}


def _outputs(network: nn.Module, example: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return tensors_of(network(example))


def _apart(these: list[Tensor], those: list[Tensor]) -> float:
    """The largest difference of an output, in units of that output's largest element."""
    return max(
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))
        for one, other in zip(these, those, strict=True)
    )


def _counted(reasons: Iterable[str]) -> str:
    counts = collections.Counter(reason for reason in reasons if reason)
    return "; ".join(f"{count}: {reason}" for reason, count in counts.most_common())


def _try(verb: Verb, real: Real, seconds: float) -> Served:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dropout, which draws nothing in inference
            return verb(real, seconds)
    except NormwrightError as error:
        return Served(0, 0, "refused", str(error).splitlines()[0].partition(":")[0][:200])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and saves."""
    options = _parser().parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    found: dict[str, dict[str, Served]] = {}
    for name in options.network:
        print(f"  {name}", file=sys.stderr, flush=True)
        real = REAL_NETWORKS[name](small=options.quick)
        draw_statistics(real.network).eval()
        found[name] = {verb: _try(act, real, options.seconds) for verb, act in VERBS.items()}
    page = _page(found, options)
    save(options.out, "verbs", page, {"machine": describe(), "networks": found})
    if options.docs is not None:
        options.docs.parent.mkdir(parents=True, exist_ok=True)
        options.docs.write_text(page.rstrip() + "\n")
    print(page)


def _page(found: dict[str, dict[str, Served]], options: argparse.Namespace) -> str:
    size = "shrunk, so that their times say little" if options.quick else "as their libraries configure them"
    command = "python -m benchmarks.verbs" + (" --quick" if options.quick else "")
    head = ("network", "served", "of", "what came of it", "why not the rest")
    parts = [
        "# The verbs on networks that other people wrote",
        f"Made by `{command}`; {in_words(describe())}; {options.threads} threads. Random weights, statistics "
        f"that differ from channel to channel, float32, {size}. An output's change is given in units of its "
        "largest element. What folding does is in [networks.md](networks.md).",
    ]
    for verb in VERBS:
        rows = [(name, verbs[verb]) for name, verbs in found.items()]
        parts += [
            f"## {verb}",
            table(
                head,
                [(name, figure(it.served, 0), figure(it.found, 0), it.note, it.why) for name, it in rows],
            ),
        ]
    return "\n\n".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verbs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--network", nargs="*", choices=REAL_NETWORKS, default=list(REAL_NETWORKS))
    add("--seconds", type=float, default=4.0, help="for each network's two inferences")
    add("--threads", type=int, default=2)
    add("--quick", action="store_true", help="shrunk networks: does it run?")
    add("--docs", type=Path, help="also write the page here: docs/verbs.md")
    add("--out", type=Path, default=Path("build/benchmarks"), help="folder to save in")
    return parser


if __name__ == "__main__":
    main()
