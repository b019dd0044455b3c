"""The verdict of a comparison in words, by a written rule.

At each batch size the normaliser with the highest mean test metric is named, among those of which most seeds
finished. Another is level with it where the 95 % interval of the difference, paired by seed, holds zero
(Student's t over the seeds), or has no width, as when accuracies on a small test set differ by the same few
samples; with fewer than three seeds nothing can be told apart, and the verdict says so.
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
    "renorm": "batch renorm",
    "ghost": "ghost batch norm",
    "whitening": "whitening",
    "frn": "filter response norm",
    "dyt": "dynamic tanh",
    "weight": "weight norm",
    "ws": "weight standardisation with group norm",
    "recurrent-batch": "recurrent batch norm",
    "recurrent-layer": "recurrent layer norm",
}

SeedMetrics = Mapping[str, Mapping[int, float]]
"""Test metric by normaliser and seed."""


def verdict(
    rows: Sequence[Row], seeds: SeedMetrics, *, target: float, metric: str, edges: Mapping[str, str | None]
) -> str:
    """One batch size in a few sentences.

    Args:
        rows: of one batch size.
        seeds: the test metric of each of their finished runs.
        target: of the validation metric.
        metric: its name; `accuracy` is told in percent.
        edges: the end of the learning rates tried at which a normaliser's best one lies, if at any.
    """
    alive = [row for row in rows if row.test is not None]
    if not alive:
        return "Every run diverged: try smaller learning rates."
    best = max(alive, key=lambda row: (_finished(row), _test(row)))
    level = [row for row in alive if row is not best and _level(seeds[best.norm], seeds[row.norm])]
    sentences = [
        f"{_capital(NAMES[best.norm])} does best: test {metric} {_shown(_test(best), metric)} at learning "
        f"rate {best.lr:g}{_against_none(best, alive, metric)}."
    ]
    if _finished(best) < best.seeds:
        sentences.append(f"Only {_finished(best)} of its {best.seeds} seeds finished; the others diverged.")
    if best.seeds < 3:
        few = "One seed" if best.seeds == 1 else "Two seeds"
        sentences.append(f"{few} cannot tell a difference from chance: take three or more.")
    elif level:
        sentences.append(
            f"{best.seeds} seeds cannot tell it from {_list([NAMES[row.norm] for row in level])}."
        )
    sentences += [_speed(alive, target, metric), *_diverged(rows), *_edges(alive, edges)]
    return " ".join(sentences)


def _test(row: Row) -> float:
    assert row.test is not None
    return row.test.mean


def _finished(row: Row) -> int:
    assert row.test is not None
    return row.test.count


def _level(best: Mapping[int, float], other: Mapping[int, float]) -> bool:
    difference = mean_interval([best[seed] - other[seed] for seed in best if seed in other])
    if difference is None or difference.low is None or difference.high is None:
        return True
    return difference.low <= 0 <= difference.high or difference.low == difference.high


def _against_none(best: Row, alive: Sequence[Row], metric: str) -> str:
    none = next((row for row in alive if row.norm == "none"), None)
    if none is None or best.norm == "none":
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
    if fastest.ratio.low is None or fastest.ratio.low <= 1:
        return f"{said}; the seeds cannot tell whether that is fewer than without a normaliser."
    return f"{said}, {fastest.ratio.mean:.2g} times fewer than without a normaliser."


def _diverged(rows: Sequence[Row]) -> list[str]:
    some = [f"{NAMES[row.norm]} ({row.diverged:.0%} of its runs)" for row in rows if row.diverged > 0]
    return [f"Diverged at some learning rates: {_list(some)}."] if some else []


def _edges(alive: Sequence[Row], edges: Mapping[str, str | None]) -> list[str]:
    """Whose best rate might lie outside those tried."""
    there = {
        end: [NAMES[row.norm] for row in alive if edges.get(row.norm) == end]
        for end in ("largest", "smallest")
    }
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
