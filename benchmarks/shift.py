"""The shift test on Fashion-MNIST: what it sees, how often it errs, and what it costs.

    python -m benchmarks.shift --docs docs/shift.md [--part versions|alarms|time] [--repetitions N]

Writes the page and, beside it, shift.json with the figures; a part that is not run keeps its figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

import normwright as nw
from benchmarks.machine import describe, in_words
from benchmarks.markdown import table
from benchmarks.saving import save
from normwright.lab.data.corruptions import CORRUPTIONS, corrupted
from normwright.lab.data.mnist import read_fashion_mnist
from normwright.lab.samples import Reading, read_samples
from normwright.shift import ShiftReport
from normwright.shift.classifier import Classifier
from normwright.shift.columns import coded

COMMAND = "python -m benchmarks.shift --docs docs/shift.md"
SIZE = 5_000
SEEN = 1_000
LEVEL = 0.05
Labelled = tuple[Tensor, Tensor]


def versions(reference: Labelled, other: Labelled) -> dict[str, tuple[Labelled, bool]]:
    """Current sets by name, each with whether the labels are compared, too."""
    images, labels = other
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(len(images), generator=generator)[:500]
    few = torch.randperm(len(images), generator=generator)[:50]
    kept = labels < 7
    moved = torch.rand(len(labels), generator=generator) < 0.3
    relabelled = torch.where(moved, (labels + 1) % 10, labels)
    levelled = torch.where(moved, 0, labels)
    return {
        "other images": ((images, labels), False),
        "the same images": (reference, False),
        "subsampled: 500 other images": ((images[some], labels[some]), False),
        "subsampled: 50 other images": ((images[few], labels[few]), False),
        "three of ten classes left out": ((images[kept], labels[kept]), False),
        **{f"corrupted: {name}": ((corrupted(name, images), labels), False) for name in CORRUPTIONS},
        "relabelled: 30 % as the next class, labels not compared": ((images, relabelled), False),
        "relabelled: 30 % as the next class, labels compared": ((images, relabelled), True),
        "other images, labels compared": ((images, labels), True),
        "relabelled: 30 % as class 0, labels compared": ((images, levelled), True),
    }


def seen(reference: Labelled, other: Labelled) -> list[dict[str, Any]]:
    """What the test says of each version."""
    rows = []
    for name, (current, with_labels) in versions(reference, other).items():
        start = time.perf_counter()
        report = nw.shift_test(reference, current, with_labels=with_labels)
        print(f"{name}: {report.summary} {time.perf_counter() - start:.0f} s", flush=True)
        rows.append({"name": name, **_figures(report)})
    return rows


def _figures(report: ShiftReport) -> dict[str, Any]:
    return {
        "rows": report.current_rows,
        "mcc": report.mcc,
        "mcc_interval": report.mcc_interval,
        "auc": report.auc,
        "auc_interval": report.auc_interval,
        "p": report.p_value,
        "verdict": report.verdict,
        "feature": report.features[0].name if report.features else "",
    }


def mixed_frame(generator: np.random.Generator, rows: int) -> dict[str, Any]:
    """A table of two numbers, one with values missing, and two texts, one of them of few values."""
    age = generator.normal(40, 10, rows)
    age[generator.random(rows) < 0.1] = np.nan
    return {
        "age": age,
        "income": np.exp(generator.normal(size=rows)) * (1 + np.nan_to_num(age) / 40),
        "colour": generator.choice(["red", "green", "blue"], rows, p=[0.6, 0.3, 0.1]).tolist(),
        "town": generator.choice([f"town {number}" for number in range(30)], rows).tolist(),
    }


def settings(images: Tensor) -> dict[str, Callable[[np.random.Generator], tuple[Any, Any]]]:
    """Draws of two sets of one distribution."""
    import polars

    small = F.avg_pool2d(images, 4)

    def of_images(first: int, second: int) -> Callable[[np.random.Generator], tuple[Any, Any]]:
        def draw(generator: np.random.Generator) -> tuple[Any, Any]:
            rows = torch.from_numpy(generator.permutation(len(small))[: first + second])
            return small[rows[:first]], small[rows[first:]]

        return draw

    def of_tables(generator: np.random.Generator) -> tuple[Any, Any]:
        one, other = (polars.DataFrame(mixed_frame(generator, rows)) for rows in (200, 200))
        return one, other

    return {
        "200 and 200 images of 7 × 7": of_images(200, 200),
        "400 and 40 images of 7 × 7": of_images(400, 40),
        "20 and 20 images of 7 × 7": of_images(20, 20),
        "200 and 200 rows of a table with texts and missing values": of_tables,
    }


def false_alarms(images: Tensor, repetitions: int) -> list[dict[str, Any]]:
    """How often the p-value is at most the level where nothing differs."""
    rows = []
    for name, draw in settings(images).items():
        reports = []
        start = time.perf_counter()
        for repetition in range(repetitions):
            sets = draw(np.random.default_rng(repetition))
            reports.append(nw.shift_test(*sets, seed=repetition, level=LEVEL))
        alarms = sum(report.p_value <= LEVEL for report in reports)
        ends = binomtest(alarms, repetitions).proportion_ci(0.95, "exact")
        held = [
            sum(interval[0] <= truth <= interval[1] for interval in intervals)
            for truth, intervals in (
                (0.5, [report.auc_interval for report in reports]),
                (0.0, [report.mcc_interval for report in reports]),
            )
        ]
        rows.append(
            {
                "name": name,
                "repetitions": repetitions,
                "alarms": alarms,
                "low": ends.low,
                "high": ends.high,
                "shifts": sum(report.verdict == "shift" for report in reports),
                "auc held": held[0],
                "mcc held": held[1],
            }
        )
        print(f"{name}: {alarms} of {repetitions}, {time.perf_counter() - start:.0f} s", flush=True)
    return rows


def cost(reference: Labelled, other: Labelled) -> dict[str, Any]:
    """Seconds of a test of 10,000 rows of 784 columns, and of one fit of its classifier on all of them.

    Processor time of all threads, which other work on the machine does not lengthen as it does the clock's.
    """
    torch.set_num_threads(1)
    how = Reading(SIZE, 0)
    rows = [
        read_samples(images, name, "all", how).rows for images, name in ((reference[0], "a"), (other[0], "b"))
    ]
    data = coded(*rows)
    with threadpool_limits(1, user_api="openmp"):
        start = time.process_time()
        Classifier(data.codes, data.current, data.categories, 0)
        one = time.process_time() - start
    found = {}
    for name, current in (("no shift", other[0]), ("shift", corrupted("blur", other[0]))):
        start = time.process_time()
        verdict = nw.shift_test(reference[0], current).verdict
        found[name] = time.process_time() - start
        print(f"{verdict}: {found[name]:.1f} s, one fit {one:.2f} s", flush=True)
    return {"fit": one, **found, "machine": in_words(describe())}


def document(found: dict[str, Any]) -> str:
    """The page."""
    rows = [
        [
            row["name"],
            f"{row['rows']:,}",
            f"{row['mcc']:.3f} ({row['mcc_interval'][0]:.3f} to {row['mcc_interval'][1]:.3f})",
            f"{row['auc']:.3f} ({row['auc_interval'][0]:.3f} to {row['auc_interval'][1]:.3f})",
            f"{row['p']:.2g}",
            row["verdict"],
            row["feature"],
        ]
        for row in found["versions"]
    ]
    alarms = [
        [
            row["name"],
            f"{row['alarms']} of {row['repetitions']}",
            f"{row['low']:.1%} to {row['high']:.1%}",
            str(row["shifts"]),
            f"{row['auc held'] / row['repetitions']:.1%}",
            f"{row['mcc held'] / row['repetitions']:.1%}",
        ]
        for row in found["alarms"]
    ]
    spent = found["time"]
    return PAGE.format(
        command=COMMAND,
        size=SEEN,
        versions=table(["current set", "rows", "MCC", "AUC", "p-value", "verdict", "first give-away"], rows),
        alarms=table(
            [
                "two sets of one distribution",
                "p ≤ 0.05",
                "95 % interval",
                "verdicts of a shift",
                "AUC held",
                "MCC held",
            ],
            alarms,
        ),
        none=spent["no shift"],
        shift=spent["shift"],
        fit=spent["fit"],
        ratio=spent["no shift"] / spent["fit"],
        more=spent["shift"] / spent["fit"],
        machine=spent["machine"],
    )


PAGE = """# Has my data changed?

    normwright shift REFERENCE CURRENT
    nw.shift_test(reference, current)

A classifier (gradient-boosted trees) is asked to tell the two sets apart. Where it can, on rows that it
was not taught from, they differ; what it goes by says in what.

| verdict | MCC ≥ 0.2 | p ≤ 0.05 | what to do |
| --- | --- | --- | --- |
| shift | yes | yes | `--fail-on-shift` exits with status 3; the last line says where to begin |
| small shift | no | yes | a real difference, too small for an alarm |
| undecided | yes | no | it looks large and may be chance: collect more rows |
| no shift | no | no | nothing |

- **MCC**, Matthews' correlation of answers and truth: 0 by chance, 1 without an error. Both sets weigh
  the same, whatever their sizes, so that 0.2 means the same for 5,000 against 50 rows as for 50 against
  50.
- **AUC**: the share of pairs of rows, one of each set, that are ranked rightly; 0.5 by chance.
- **Intervals** of 95 %: Newcombe's score interval for the AUC; for the MCC, quantiles over Jeffreys'
  posteriors of the two shares that were answered rightly. Each set counts as half its rows, because
  answers out of fold hang together: the classifier that answers one fold was taught from the others.
- **p-value**: by permutation. Fold k is answered by a classifier that was taught from the folds before
  it alone, so that the labels of fold k may be permuted without teaching again, exactly; Fisher's rule
  joins the folds. Permuting the labels of cross-validated answers, as is often done, raises twice as
  many alarms as said.
- **without x**: how much the AUC loses when the values of x are shuffled among rows out of fold, where that
  is more than chance explains: a column that does not differ is named in one list of twenty. Columns
  that say the same stand in for each other, so each alone may lose little. Pixels are shuffled in
  squares, `pixel[rows,columns]`; of more than 64 columns, runs first, then the columns of the three that
  tell most.

Rows are taken for independent draws. Of several rows of one patient, or frames of one film, the p-value is
too small, since other patients and films differ, too: two sets of 20 groups of 20 rows, all groups drawn
alike, were told apart at p ≤ 0.05 in 60 of 60 repetitions. Give one row of each.

At least 20 rows of each set are needed. At most 10,000 of each are drawn (`--samples`).

What is compared: numbers by their order alone (so no scale matters, and infinities are ends); text as
categories, up to 63 of them; dates; a missing value is a value of its own. Left out, and named: constant
columns, text of more values, and what is none of these. Columns that differ in name or kind are an
error. A column that rises from row to row, as a row number does, is told of: it would give everything
away. Rows that are in both sets are kept in one fold and counted; they make the test more cautious,
never less.

With a network (`--network nets.py:net --checkpoint a.pt`, or `network=`), up to 2,000 samples of each
set are run through a copy, and for each normaliser the table says how far the mean of each channel of
its input moved, in the reference's deviations, and the Gaussian KL divergence (the mean over channels,
and the largest). A layer moved where its largest difference of any channel's mean or mean square is
beyond what permuting samples between the sets gives, over all layers together. Where the sets have
labels: the accuracy on both, and on the current set after `nw.adapt` on it.

## What it sees

Fashion-MNIST: {size:,} training images against versions of {size:,} others. Corruptions are those of
`normwright.lab.data.corruptions` at their usual strengths.

{versions}

A change of the labels alone is seen only where the labels are compared (`--with-labels`), and easily only
where it changes how often each occurs. Where the shares stay as they were and only what belongs to what
has changed, the classifier must first learn what belongs to what, for which this many images are too few.

## How often it errs

The p-value where both sets come from one distribution. The first three draw images of Fashion-MNIST,
averaged down, without replacement. *Held*: how often the 95 % interval held 0.5, or 0.

{alarms}

With 20 rows of each set it errs less often than said.

## What it costs

10,000 rows of 784 columns, in processor time (nearly all of it on one thread): {none:.0f} s where
nothing shifted, {shift:.0f} s with the search for what gives a shift away; that is {ratio:.1f} and
{more:.1f} times one fit of the classifier on all rows ({fit:.1f} s). {machine}.

Made by `{command}`.
"""


def main() -> None:
    """Measures what is asked for and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--docs", type=Path, default=Path("docs/shift.md"))
    parser.add_argument("--part", choices=("versions", "alarms", "time"))
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args()
    raw = read_fashion_mnist(None)
    images, labels = raw.train_x.float() / raw.top, raw.train_y
    reference = images[:SIZE], labels[:SIZE]
    other = images[SIZE : 2 * SIZE], labels[SIZE : 2 * SIZE]
    figures = options.docs.with_suffix(".json")
    found: dict[str, Any] = json.loads(figures.read_text()) if figures.exists() else {}
    parts: dict[str, Callable[[], Any]] = {
        "versions": lambda: seen(*((x[:SEEN], y[:SEEN]) for x, y in (reference, other))),
        "alarms": lambda: false_alarms(images, options.repetitions),
        "time": lambda: cost(reference, other),
    }
    for name, measure in parts.items():
        if options.part in (None, name):
            found[name] = measure()
            figures.write_text(json.dumps(found, indent=1))
    if parts.keys() <= found.keys():
        save(options.docs.parent, options.docs.stem, document(found), found)


if __name__ == "__main__":
    main()
