"""A race to an accuracy: in how many steps two sides get there, each at the rate that is fastest for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normwright.errors import RunError
from normwright.lab.book.bench import Bench, vary
from normwright.lab.book.bounds import Reading, ratio_of
from normwright.lab.book.choice import Choice, Score
from normwright.lab.book.entrant import Entrant
from normwright.lab.recipe import Recipe
from normwright.lab.run import RunResult


@dataclass(frozen=True)
class Heat:
    """What pilot runs say of one target: the ratio of steps, each side at its fastest rate."""

    target: float
    ratio: float


def plan(
    bench: Bench, slow: Entrant, fast: Entrant, targets: Sequence[float], *, within: float = 1.0
) -> list[Heat]:
    """The targets that both sides reach in some pilot run.

    Args:
        bench: trains the pilot runs.
        slow, fast: the sides.
        targets: of the validation metric, rising.
        within: share of its steps in which a pilot run must get there. Less than all of them leaves room for
            a judged seed that is slower.
    Raises:
        NeedsRunsError: some pilot runs are not done yet.
        RunError: there is no target that both reach.
    """
    results = iter(bench.train(*slow.pilots().values(), *fast.pilots().values()))
    of_slow, of_fast = ({rate: next(results) for rate in side.pilots()} for side in (slow, fast))
    found = heats(of_slow, of_fast, targets, within)
    if not found:
        raise RunError(
            f"both sides must reach one of the targets {list(targets)} in a pilot run, but none was reached "
            "by both: give them more steps"
        )
    return found


def steps_held(result: RunResult, target: float) -> int | None:
    """Training steps until two evaluations in a row reached the target; None if they never did.

    Two, because one may be luck, and the side that is evaluated more often would be lucky more often.
    """
    if result.diverged:
        return None
    reached = result.validation >= target
    held = reached[1:] & reached[:-1]
    return int(result.evaluation_steps[1:][held][0]) if held.any() else None


def at_fastest(bench: Bench, side: Entrant, target: float) -> Recipe:
    """The side at the rate that gets it to the target first in its pilot runs.

    Raises:
        NeedsRunsError: some pilot runs are not done yet.
        RunError: no pilot run reaches the target.
    """
    pilots = side.pilots()
    results = dict(zip(pilots, bench.train(*pilots.values()), strict=True))
    first = _first(results, target)
    if first is None:
        raise RunError(
            f"a side must reach the target {target:g} in a pilot run, but did at none of the rates "
            f"{list(side.rates)}: give it more steps"
        )
    recipe = vary(side.recipe, lr=first[1])
    scores = {rate: _score(result, target) for rate, result in results.items()}
    bench.choices.append(Choice(recipe, scores, f"to {target:.0%}"))
    return recipe


def steps_ratio(slow: RunResult, fast: RunResult, target: float) -> tuple[float, str]:
    """Steps of one side over those of the other, and what kind of bound this is.

    A side that does not get there counts with the steps that it was given, of which it needs more. NaN where
    neither gets there.
    """
    return ratio_of(*(steps_read(steps_held(result, target), result) for result in (slow, fast)))


def steps_read(reached: int | None, result: RunResult) -> Reading:
    """The steps that a run took to a target; those that it was given, where it did not reach it."""
    return Reading(len(result.loss), ended=True) if reached is None else Reading(reached)


def heats(
    slow: Mapping[float, RunResult],
    fast: Mapping[float, RunResult],
    targets: Sequence[float],
    within: float = 1.0,
) -> list[Heat]:
    """The heats of `plan`, from pilot results by their learning rate."""
    found = []
    for target in targets:
        slowest, fastest = _first(slow, target, within), _first(fast, target, within)
        if slowest is not None and fastest is not None:
            found.append(Heat(target, slowest[0] / fastest[0]))
    return found


def _first(
    results: Mapping[float, RunResult], target: float, within: float = 1.0
) -> tuple[int, float] | None:
    held = [
        (steps, rate)
        for rate, result in results.items()
        if (steps := steps_held(result, target)) and steps <= within * len(result.loss)
    ]
    return min(held, default=None)


def _score(result: RunResult, target: float) -> Score:
    """The fewer steps the better; a run that does not get there is as one that diverged."""
    steps = steps_held(result, target)
    return (0, -math.inf) if steps is None else (1, -float(steps))
