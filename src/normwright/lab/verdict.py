"""The verdict of a comparison in words; whether there is a winner is the rule of `lead`.

The same holds for the steps to the target: who took fewest is said to be soonest only where three seeds or
more tell it from each other that got there with every seed, by the interval of the ratio, paired by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from normwright.lab.intervals import ratio_interval
from normwright.lab.lead import (
    ALONE,
    CHANCE,
    LEAST_SEEDS,
    LEVEL,
    SEEDS,
    Guessing,
    SeedMetrics,
    finished,
    mean_test,
)
from normwright.lab.records import Lead, Row

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


def verdict(
    rows: Sequence[Row],
    found: Lead,
    steps: SeedMetrics,
    *,
    target: float,
    metric: str,
    chance: Guessing | None,
    edges: Mapping[str, str | None],
) -> str:
    """One batch size in a few sentences.

    Args:
        rows: of one batch size.
        found: who leads among them.
        steps: to the target, of each of their runs that reached it.
        target: of the validation metric.
        metric: its name; `accuracy` is told in percent.
        chance: what guessing gets, where it is known.
        edges: the end of the learning rates tried at which a normaliser's best one lies, if at any.
    """
    alive = [row for row in rows if row.test is not None]
    if found.highest is None:
        return "Every run diverged: try smaller learning rates."
    best = next(row for row in alive if row.norm == found.highest)
    sentences = [
        *_opening(best, found, alive, metric, chance),
        *_unfinished(best, found, alive, metric),
        _speed(alive, steps, target, metric),
        *_diverged(rows),
        *_edges(alive, edges),
    ]
    return " ".join(sentences)


def _opening(best: Row, found: Lead, alive: Sequence[Row], metric: str, chance: Guessing | None) -> list[str]:
    """Who wins; or why nobody does, and who is the highest."""
    name = NAMES[best.norm]
    reached = f"test {metric} {_shown(mean_test(best), metric)} at learning rate {best.lr:g}"
    against = _against_none(best, alive, metric)
    highest = f"The highest was {name}: {reached}{against}"
    if found.doubt == CHANCE and chance is not None:
        luck = f"{_shown(chance.share, metric)}, by luck up to {_shown(chance.most, metric)}"
        return [
            "No winner: the best is within chance.",
            f"{highest}; guessing gets {luck}, on these {chance.samples:,} test samples.",
        ]
    if found.doubt == ALONE:
        return [f"No winner: only {name} was compared.", f"It got {reached}."]
    if found.doubt == SEEDS:
        return [_too_few(best), f"{highest}."]
    if found.doubt == LEVEL:
        level = _list([NAMES[norm] for norm in found.level])
        lower = [NAMES[row.norm] for row in alive if row is not best and row.norm not in found.level]
        though = f", though they do from {_list(lower)}" if lower else ""
        return [
            f"No winner: {finished(best)} seeds cannot tell {name}, the highest, from {level}{though}.",
            f"It got {reached}{against}.",
        ]
    return [f"{_capital(name)} does best: {reached}{against}."]


def _too_few(best: Row) -> str:
    if best.seeds >= LEAST_SEEDS:
        counted = f"{finished(best)} of {best.seeds} seeds"
        return f"No winner: only {counted} of the highest finished, too few to tell."
    if best.seeds == 1:
        return "One seed: no interval, so no winner is named; take three seeds or more."
    return "Two seeds: an interval too wide to name a winner by; take three seeds or more."


def _unfinished(best: Row, found: Lead, alive: Sequence[Row], metric: str) -> list[str]:
    """What diverged at its best rate, where that bears on who leads."""
    said = []
    if finished(best) < best.seeds and found.doubt != SEEDS:
        said.append(f"Only {finished(best)} of its {best.seeds} seeds finished; the others diverged.")
    for row in alive:
        if mean_test(row) > mean_test(best):
            got = f"{_capital(NAMES[row.norm])} got more, {_shown(mean_test(row), metric)}"
            said.append(f"{got}, but only {finished(row)} of its {row.seeds} seeds finished.")
    return said


def _against_none(best: Row, alive: Sequence[Row], metric: str) -> str:
    none = next((row for row in alive if row.norm == "none"), None)
    if none is None or best.norm == "none":
        return ""
    return f", against {_shown(mean_test(none), metric)} without a normaliser"


def _speed(alive: Sequence[Row], steps: SeedMetrics, target: float, metric: str) -> str:
    goal = f"{_shown(target, metric)} on the validation split"
    there = [row for row in alive if row.steps is not None]
    if not there:
        return f"None reached {goal} with every seed."
    fastest = min(there, key=_mean_steps)
    name, count = _capital(NAMES[fastest.norm]), f"{_mean_steps(fastest):,.0f}"
    if fastest.seeds < LEAST_SEEDS:
        by = "one seed" if fastest.seeds == 1 else "two seeds"
        return f"{name} took the fewest steps to {goal}, {count}, by {by}{_steps_of_none(fastest, alive)}."
    level = [row.norm for row in there if row is not fastest and not _is_slower(row, fastest, steps)]
    if level:
        others = _list([NAMES[norm] for norm in level])
        beyond = "" if "none" in level else _steps_of_none(fastest, alive)
        doubt = f"but {fastest.seeds} seeds cannot tell that from {others}{beyond}"
        return f"{name} took the fewest steps to {goal}, {count}, {doubt}."
    return f"{name} reached {goal} soonest, in {count} steps{_steps_of_none(fastest, alive)}."


def _mean_steps(row: Row) -> float:
    assert row.steps is not None
    return row.steps.mean


def _is_slower(row: Row, fastest: Row, steps: SeedMetrics) -> bool:
    own, least = steps[row.norm], steps[fastest.norm]
    ratio = ratio_interval([own[seed] for seed in least], list(least.values()))
    return ratio is not None and ratio.low is not None and ratio.low > 1


def _steps_of_none(fastest: Row, alive: Sequence[Row]) -> str:
    """The clause on the network without a normaliser."""
    none = next((row for row in alive if row.norm == "none"), None)
    if none is None or fastest.norm == "none":
        return ""
    if fastest.ratio is None:
        return f"; without a normaliser {none.reached} of {none.seeds} seeds got there"
    if fastest.seeds < LEAST_SEEDS:
        return f", against {_mean_steps(none):,.0f} without a normaliser"
    return f", {fastest.ratio.mean:.2g} times fewer than without a normaliser"


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
