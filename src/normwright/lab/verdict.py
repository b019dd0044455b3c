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
    UNFINISHED,
    Guessing,
    SeedMetrics,
    finished,
    has_lost,
    is_above,
    is_equal,
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
        *_unkept(found),
        *_unfinished(best, found, alive, metric),
        _speed(alive, steps, target, metric),
        *_diverged(rows),
        *_edges(alive, edges),
    ]
    return " ".join(sentences)


def _opening(best: Row, found: Lead, alive: Sequence[Row], metric: str, chance: Guessing | None) -> list[str]:
    """Who wins; or why nobody does, and who is the highest."""
    name = _named(best.norm)
    reached = f"test {metric} {_shown(mean_test(best), metric)} at learning rate {best.lr:g}"
    got = f"{reached}{_against_none(best, alive, metric)}"
    highest = f"{_highest(best, alive)}: {got}"
    if found.doubt == CHANCE and chance is not None:
        luck = f"{_shown(chance.share, metric)}, by luck up to {_shown(chance.most, metric)}"
        subject = "the best" if _tops(best, alive) else _named(best.norm)
        return [
            f"No winner: {subject} is within chance.",
            f"{highest}; guessing gets {luck}, on these {chance.samples:,} test samples.",
        ]
    if found.doubt == ALONE:
        return [f"No winner: only {name} was compared.", f"It got {reached}."]
    if found.doubt == SEEDS:
        return [_too_few(best), f"{highest}."]
    if found.doubt == UNFINISHED:
        return [_lacking(best, found, alive, metric), f"{_capital(name)} got {got}."]
    if found.doubt == LEVEL:
        enough = _enough(best, found, alive, chance)
        return [_untold(best, found, alive), f"{_capital(name)} got {got}.", enough]
    return [f"{_capital(name)} does best: {got}."]


def _enough(best: Row, found: Lead, alive: Sequence[Row], chance: Guessing | None) -> str:
    """What would tell those that are level apart, and which of seeds and test samples is the limit."""
    seeds, samples = found.enough_seeds, found.enough_samples
    # No number is enough for a lead of nothing, which is no sign that there will be none.
    is_tied = any(is_equal(row, best) for row in alive if row.norm in found.level)
    leads = "lead stays as it is" if len(found.level) == 1 else "leads stay as they are"
    if chance is None:
        if seeds and not is_tied:
            return f"About {_round(seeds)} seeds could, if the {leads}."
        return "More seeds could tell."
    if found.by_totals or is_tied:
        return "More seeds, or more test samples, could tell."
    more_seeds = f"about {_round(seeds)} seeds" if seeds else ""
    more_samples = f"about {_round(samples)} test samples in place of {chance.samples:,}" if samples else ""
    if seeds and samples:
        return f"{_capital(more_seeds)} could, or {more_samples}, if the {leads}."
    if seeds:
        could = f"{more_seeds} could tell, if the {leads}"
        return f"The seeds are the limit: {could}; a larger test set alone could not."
    if samples:
        could = f"{more_samples} could tell, if the {leads}"
        return f"The test set is the limit: {could}; more seeds alone could not."
    return "Only with both more seeds and more test samples could they be told apart."


def _round(count: int) -> str:
    """Two digits of a number that is no surer than that, rounded up.

    Example:
        >>> _round(8), _round(1234)
        ('8', '1,300')
    """
    unit = 10 ** max(len(str(count)) - 2, 0)
    return f"{-(-count // unit) * unit:,}"


def _unkept(found: Lead) -> list[str]:
    """Said where it bears on who wins."""
    if not found.by_totals or found.doubt not in ("", LEVEL):
        return []
    names = _list([_named(norm) for norm in found.by_totals])
    return [
        f"Compared with {names} by accuracy alone, for which test samples each run gets right is not kept: "
        "luck of the test set is counted too low."
    ]


def _highest(best: Row, alive: Sequence[Row]) -> str:
    if not _tops(best, alive):
        return f"Most seeds finished of {_named(best.norm)}"
    name = _named(best.norm)
    equal = [_named(row.norm) for row in alive if row is not best and is_equal(row, best)]
    return f"The highest was {name}, equal to {_list(equal)}" if equal else f"The highest was {name}"


def _tops(best: Row, alive: Sequence[Row]) -> bool:
    """Whether none that finished in fewer seeds has more."""
    return not any(is_above(row, best) for row in alive)


def _untold(best: Row, found: Lead, alive: Sequence[Row]) -> str:
    name = _named(best.norm)
    level = [row for row in alive if row.norm in found.level]
    all_have = all(finished(row) == finished(best) for row in level)
    seeds = f"{finished(best)} seeds" if all_have else "these seeds"
    equal = [_named(row.norm) for row in level if is_equal(row, best)]
    near = [_named(row.norm) for row in level if not is_equal(row, best)]
    others = [row for row in alive if row is not best and row.norm not in found.level]
    lower = [_named(row.norm) for row in others if not has_lost(row, best)]
    though = f", though they do from {_list(lower)}" if lower else ""
    if not equal:
        return f"No winner: {seeds} cannot tell {name}, the highest, from {_list(near)}{though}."
    alike = f"No winner: {_list([name, *equal])} are equal, the highest"
    return f"{alike}; {seeds} cannot tell {name} from {_list(near)} either{though}." if near else f"{alike}."


def _lacking(best: Row, found: Lead, alive: Sequence[Row], metric: str) -> str:
    """Who got more in fewer seeds, and who has too few seeds in common with the best."""
    clauses = [f"{_named(best.norm)} finished in {finished(best)} of {best.seeds} seeds"]
    for row in alive:
        if row.norm not in found.unfinished:
            continue
        if is_above(row, best):
            got = f"{_named(row.norm)} got more, {_shown(mean_test(row), metric)}"
            clauses.append(f"{got}, but diverged in {row.seeds - finished(row)} of {row.seeds}")
        else:
            counted = f"{_named(row.norm)} in {finished(row)} of {row.seeds}"
            clauses.append(f"{counted}, too few of them in common to tell the two apart")
    return f"No winner: {'; '.join(clauses)}."


def _named(norm: str) -> str:
    """A name that is not read as "none of them" where it is that of the network without a normaliser."""
    return "the network without a normaliser" if norm == "none" else NAMES[norm]


def _too_few(best: Row) -> str:
    if best.seeds >= LEAST_SEEDS:
        counted = f"{finished(best)} of {best.seeds} seeds"
        return f"No winner: at most {counted} of each normaliser finished, too few to tell."
    if best.seeds == 1:
        return "One seed: no interval, so no winner is named; take three seeds or more."
    return "Two seeds: an interval too wide to name a winner by; take three seeds or more."


def _unfinished(best: Row, found: Lead, alive: Sequence[Row], metric: str) -> list[str]:
    """What diverged at its best rate, where that bears on who leads and is not said yet."""
    said = []
    if finished(best) < best.seeds and found.doubt not in (SEEDS, UNFINISHED):
        said.append(f"Only {finished(best)} of its {best.seeds} seeds finished; the others diverged.")
    told = found.unfinished if found.doubt == UNFINISHED else ()
    for row in alive:
        if is_above(row, best) and row.norm not in told:
            got = f"{_capital(_named(row.norm))} got more, {_shown(mean_test(row), metric)}"
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
        return f"Not one of them reached {goal} with every seed."
    fastest = min(there, key=_mean_steps)
    name, count = _capital(_named(fastest.norm)), f"{_mean_steps(fastest):,.0f}"
    if fastest.seeds < LEAST_SEEDS:
        by = "one seed" if fastest.seeds == 1 else "two seeds"
        return f"{name} took the fewest steps to {goal}, {count}, by {by}{_steps_of_none(fastest, alive)}."
    level = [row.norm for row in there if row is not fastest and not _is_slower(row, fastest, steps)]
    if level:
        others = _list([_named(norm) for norm in level])
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
    some = [f"{_named(row.norm)} ({row.diverged:.0%} of its runs)" for row in rows if row.diverged > 0]
    return [f"Diverged at some learning rates: {_list(some)}."] if some else []


def _edges(alive: Sequence[Row], edges: Mapping[str, str | None]) -> list[str]:
    """Whose best rate might lie outside those tried."""
    there = {
        end: [_named(row.norm) for row in alive if edges.get(row.norm) == end]
        for end in ("largest", "smallest")
    }
    said = [f"the {end} for {_list(names)}" for end, names in there.items() if names]
    if not said:
        return []
    return [f"The best learning rate tried is {' and '.join(said)}: rates beyond may do better still."]


def _shown(value: float, metric: str) -> str:
    # The table shows three decimals: a percentage of any others may round a tie the other way.
    return f"{100 * round(value, 3):.1f} %" if metric == "accuracy" else f"{value:.4g}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
