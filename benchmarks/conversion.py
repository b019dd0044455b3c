"""What exchanging a trained network's batch norms costs in accuracy: python -m benchmarks.conversion.

The lab's small VGG and ResNet-20 are trained on scikit-learn's digits with batch norm, and their normalisers
are turned into others, with weight and bias as they were and as fitted to the training images. The table goes
into docs/conversion.md.
"""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.markdown import table
from normwright.lab.data import Data
from normwright.lab.grid import make_base
from normwright.lab.recipe import Recipe
from normwright.lab.training import build, evaluate, load_once, reproducible, train
from normwright.network import convert_with_report
from normwright.network.conversion.rules import TABLE

NETWORKS = {"vgg": {"width": 16}, "resnet20": {}}
KINDS = ("group", "layer", "instance")
SEEDS = 3
BATCH = 128
OUT = Path(__file__).parent.parent / "docs" / "conversion.md"


@dataclass(frozen=True)
class Row:
    """One network with one seed, turned into one kind. Shares of right answers on the test images.

    Args:
        network: of the lab.
        kind: what its batch norms became.
        before: with batch norm.
        converted: after the exchange alone.
        calibrated: after the fit.
        trained: after the exchange and one more epoch of training; with the fit in between, the second.
        differences: of the outputs on the images of the fit, relative to their root mean square.
    """

    network: str
    kind: str
    before: float
    converted: float
    calibrated: float
    trained: tuple[float, float]
    differences: tuple[float, float]


def recipe_of(network: str, seed: int) -> Recipe:
    """Enough training to be good at it."""
    options = {"activation": "relu", "initialisation": "kaiming", **NETWORKS[network]}
    return make_base(
        network, "digits", norm="batch", batch_size=64, lr=0.1, epochs=8, seed=seed, momentum=0.9,
        weight_decay=5e-4, schedule="cosine", records=0, evaluations=1, **options,
    )  # fmt: skip


def measure(network: str, seed: int) -> Iterator[Row]:
    """Trains, and converts to each kind."""
    recipe = recipe_of(network, seed)
    data = load_once(recipe.data, None)
    with reproducible(recipe.training):
        trained = build(recipe, data).module
        trained.load_state_dict(train(recipe, data).weights)
        before = accuracy(trained, data)
        batches = list(
            zip(data.train_x.split(BATCH), data.train_y.split(BATCH), strict=True)
        )  # all training images
        for kind in KINDS:
            plain = convert_with_report(trained, kind, example=batches[0][0])[0]
            fitted, report = convert_with_report(trained, kind, calibrate=batches)
            assert report.gap is not None
            assert report.gap.difference_calibrated is not None
            scores = [accuracy(one, data) for one in (plain, fitted)]
            more = tuple(accuracy(one_epoch(one, data), data) for one in (plain, fitted))
            differences = (report.gap.difference_converted, report.gap.difference_calibrated)
            yield Row(network, kind, before, scores[0], scores[1], (more[0], more[1]), differences)


def accuracy(network: nn.Module, data: Data) -> float:
    """On the test images, in inference."""
    return evaluate(network, data.test_x, data.test_y, "accuracy")


def one_epoch(network: nn.Module, data: Data) -> nn.Module:
    """A copy, trained for one epoch at a tenth of the learning rate."""
    network = copy.deepcopy(network).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    order = torch.randperm(len(data.train_y), generator=torch.Generator().manual_seed(0))
    for chosen in order.split(64):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(data.train_x[chosen]), data.train_y[chosen]).backward()
        optimiser.step()
    return network


def page(rows: list[Row], images: int) -> str:
    """docs/conversion.md."""
    head = (
        "network", "to", "batch norm", "converted", "calibrated",
        "converted, one epoch", "calibrated, one epoch", "outputs differ: converted", "calibrated",
    )  # fmt: skip
    lines = []
    for network in NETWORKS:
        for kind in KINDS:
            of = [row for row in rows if (row.network, row.kind) == (network, kind)]
            scores = [
                [row.before for row in of],
                [row.converted for row in of],
                [row.calibrated for row in of],
                [row.trained[0] for row in of],
                [row.trained[1] for row in of],
            ]
            apart = [[row.differences[place] for row in of] for place in (0, 1)]
            figures = [f"{statistics.mean(part):.2f}" for part in apart]
            lines.append((network, kind, *(percent(part) for part in scores), *figures))
    return PAGE.format(seeds=SEEDS, images=images, table=table(head, lines), rules=table(RULES_HEAD, rules()))


def percent(values: list[float]) -> str:
    """The mean over the seeds, and their range."""
    low, high = 100 * min(values), 100 * max(values)
    return f"{100 * statistics.mean(values):.1f} ({low:.1f} to {high:.1f})"


RULES_HEAD = (
    "from",
    "to",
    "the same in inference",
    "kept",
    "set aside for the way back",
    "refused",
    "needed",
)


def rules() -> Iterator[tuple[str, ...]]:
    """`rules.TABLE`, as it is."""
    for rule in TABLE:
        same = "yes" if rule.same else "no"
        kinds = (", ".join(rule.sources), ", ".join(rule.targets))
        yield (*kinds, same, rule.keeps, rule.aside, rule.loses, rule.needs)


PAGE = """# Conversion

`nw.convert(network, to="group")` turns the batch norms of a network into another kind and remembers what
they were; `nw.convert(network, to="batch")` gives them back, to the bit where nothing was trained in between.

## Which may become which

{rules}

Device, dtype, mode, requires_grad, hooks and attributes are always kept, and an optimiser's parameters stay
the same objects where the shape stays. (A frozen norm is always in inference; when it becomes another, it
takes the network's mode.) What is refused can be allowed with `lossy=True`.

## What it costs in accuracy

Accuracy in per cent on the test images of scikit-learn's digits: the mean of {seeds} seeds, and their range.
*Converted* keeps weight and bias as they were. *Calibrated* fits them, layer by layer, to what batch norm put
out on the {images} training images, without labels. *One epoch* is one pass over the training images after
that, at a tenth of the learning rate. The last two columns give the root mean square of the change of the
outputs over that of the outputs, on the training images.

{table}

Made by `python -m benchmarks.conversion`.

Group, layer and instance norm take from each sample what batch norm takes from the whole set. What a sample's
own mean and deviation told is lost, and no weight and bias bring it back: the fit gives the best two numbers
per channel, no more. It brings back most of the accuracy with group and layer norm, whose moments are
taken over several channels. With instance norm, which levels every channel of every sample, it does not help,
and may do harm: its outputs explain little of batch norm's, and least squares shrinks what explains little.
Where one epoch of training is to be had, have it.
"""


def main() -> None:
    """Measures, prints and writes."""
    rows = []
    for network in NETWORKS:
        for seed in range(SEEDS):
            for row in measure(network, seed):
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
    images = len(load_once(recipe_of("vgg", 0).data, None).train_y)
    OUT.write_text(page(rows, images))
    print(OUT.read_text())


if __name__ == "__main__":
    main()
