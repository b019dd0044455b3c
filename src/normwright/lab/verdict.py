"""The verdict of a comparison in words, by a written rule.

At each batch size the normaliser with the highest test metric is named. Another is level with it where the
95 % interval of the difference, paired by seed, holds zero (Student's t over the seeds); with a single seed
nothing can be told apart, and the verdict says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from normwright.lab.intervals import mean_interval
from normwright.lab.records import Row

NAMES = {
    "none": "no normaliser",
    "batch": "batch norm",
    "layer": "layer norm",
    "group": "group norm",
    "instance": "instance norm",
    "rms": "RMS norm",
    "lrn": "local response norm",
}

SeedMetrics = Mapping[str, Mapping[int, float]]
"""Test metric by normaliser and seed."""


def verdict(
    rows: Sequence[Row], seeds: SeedMetrics, *, target: float, metric: str, lrs: Sequence[float]
) -> str:
    """One batch size in a few sentences.

    Args:
        rows: of one batch size.
        seeds: the test metric of each of their finished runs.
        target: of the validation metric.
        metric: its name; `accuracy` is told in percent.
        lrs: the learning rates that were tried.
    """
    alive = [row for row in rows if row.test is not None]
    if not alive:
        return "Every run diverged: try smaller learning rates."
    best = max(alive, key=_test)
    level = [row for row in alive if row is not best and _level(seeds[best.norm], seeds[row.norm])]
    sentences = [
        f"{_capital(NAMES[best.norm])} does best: test {metric} {_shown(_test(best), metric)} at learning "
        f"rate {best.lr:g}{_against_none(best, alive, metric)}."
    ]
    if best.seeds == 1:
        sentences.append("One seed cannot tell a difference from chance: take three or more.")
    elif level:
        sentences.append(
            f"{best.seeds} seeds cannot tell it from {_list([NAMES[row.norm] for row in level])}."
        )
    sentences += [_speed(alive, target, metric), *_diverged(rows), *_edges(alive, lrs)]
    return " ".join(sentences)


def _test(row: Row) -> float:
    assert row.test is not None
    return row.test.mean


def _level(best: Mapping[int, float], other: Mapping[int, float]) -> bool:
    difference = mean_interval([best[seed] - other[seed] for seed in best if seed in other])
    if difference is None or difference.low is None or difference.high is None:
        return True
    return difference.low <= 0 <= difference.high


def _against_none(best: Row, alive: Sequence[Row], metric: str) -> str:
    none = next((row for row in alive if row.norm == "none"), None)
    if none is None or best is none:
        return ""
    return f", against {_shown(_test(none), metric)} without a normaliser"


def _speed(alive: Sequence[Row], target: float, metric: str) -> str:
    goal = f"{_shown(target, metric)} on the validation split"
    there = [row for row in alive if row.steps is not None]
    if not there:
        return f"None reached {goal} with every seed."
    fastest = min(there, key=lambda row: row.steps.mean if row.steps else 0)
    assert fastest.steps is not None
    said = f"{_capital(NAMES[fastest.norm])} reached {goal} soonest, in {fastest.steps.mean:,.0f} steps"
    none = next((row for row in alive if row.norm == "none"), None)
    if none is None or fastest.norm == "none":
        return said + "."
    if fastest.ratio is None:
        return f"{said}; without a normaliser {none.reached} of {none.seeds} seeds got there."
    return f"{said}, {fastest.ratio.mean:.2g} times fewer than without a normaliser."


def _diverged(rows: Sequence[Row]) -> list[str]:
    some = [f"{NAMES[row.norm]} ({row.diverged:.0%} of its runs)" for row in rows if row.diverged > 0]
    return [f"Diverged at some learning rates: {_list(some)}."] if some else []


def _edges(alive: Sequence[Row], lrs: Sequence[float]) -> list[str]:
    """Whose best rate might lie outside those tried."""
    ends = {"largest": max(lrs), "smallest": min(lrs)} if len(lrs) > 1 else {}
    there = {end: [NAMES[row.norm] for row in alive if row.lr == lr] for end, lr in ends.items()}
    said = [f"the {end} for {_list(names)}" for end, names in there.items() if names]
    if not said:
        return []
    return [f"The best learning rate tried is {' and '.join(said)}: rates beyond may do better still."]


def _shown(value: float, metric: str) -> str:
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.4g}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
