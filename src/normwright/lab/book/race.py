"""A race to an accuracy: in how many steps two sides get there, each at the rate that is fastest for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normwright.errors import RunError
from normwright.lab.book.bench import Bench
from normwright.lab.book.entrant import Entrant
from normwright.lab.run import RunResult


@dataclass(frozen=True)
class Heat:
    """What pilot runs say of one target: each side's fastest rate, and the ratio of their steps."""

    target: float
    slow_rate: float
    fast_rate: float
    ratio: float


def plan(
    bench: Bench, slow: Entrant, fast: Entrant, targets: Sequence[float], *, within: float = 1.0
) -> list[Heat]:
    """The targets that both sides reach in some pilot run, with the fastest rate of each side.

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


def steps_ratio(slow: RunResult, fast: RunResult, target: float) -> tuple[float, bool]:
    """Steps of one side over those of the other, and whether this is a bound.

    A side that does not get there counts with the steps that it was given; the true ratio lies beyond. NaN
    where neither gets there, and where the fast side was given fewer steps than the slow one took.
    """
    slow_steps, fast_steps = steps_held(slow, target), steps_held(fast, target)
    if fast_steps is not None:
        return (slow_steps or len(slow.loss)) / fast_steps, slow_steps is None
    if slow_steps is not None and len(fast.loss) >= slow_steps:
        return slow_steps / len(fast.loss), True
    return math.nan, False


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
            (slow_steps, slow_rate), (fast_steps, fast_rate) = slowest, fastest
            found.append(Heat(target, slow_rate, fast_rate, slow_steps / fast_steps))
    return found


def _first(results: Mapping[float, RunResult], target: float, within: float) -> tuple[int, float] | None:
    held = [
        (steps, rate)
        for rate, result in results.items()
        if (steps := steps_held(result, target)) and steps <= within * len(result.loss)
    ]
    return min(held, default=None)
