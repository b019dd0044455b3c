"""From runs to rows: each normaliser at its own best learning rate, chosen on validation data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from normwright.lab.grid import Grid
from normwright.lab.intervals import mean_interval, ratio_interval
from normwright.lab.recipe import Recipe
from normwright.lab.records import Interval, RateMap, Row
from normwright.lab.run import RunResult

Results = Mapping[str, RunResult]
"""Results by the hash of their recipe."""


@dataclass(frozen=True)
class Choice:
    """A normaliser at a batch size, the learning rate that won, and its runs, one per seed.

    `lr` is None where every run at every rate diverged; `runs` are then those of the first rate.
    """

    norm: str
    batch_size: int
    lr: float | None
    runs: tuple[Recipe, ...]


def final_metric(result: RunResult) -> float | None:
    """The validation metric at the end of training; None for a run that diverged."""
    return None if result.diverged or not len(result.validation) else float(result.validation[-1])


def choose(grid: Grid, results: Results) -> list[Choice]:
    """The best learning rate of each normaliser and batch size.

    The rate whose seeds diverged least often wins; among equals, the one with the best mean of the final
    validation metric. The test set has no part in this.
    """
    choices = []
    for batch_size in grid.batch_sizes:
        for norm in grid.norms:
            scores = _scores(grid, norm, batch_size, results)
            best = max(grid.lrs, key=lambda lr: scores[lr])
            alive = math.isfinite(scores[best][1])
            runs = grid.seeds_of(norm, batch_size, best)
            choices.append(Choice(norm, batch_size, best if alive else None, tuple(runs)))
    return choices


def edge_of(grid: Grid, choice: Choice, results: Results) -> str | None:
    """`largest` or `smallest` where the best rate is that of those tried, and truly better than the rest."""
    scores = _scores(grid, choice.norm, choice.batch_size, results)
    tied = [lr for lr in grid.lrs if choice.lr is not None and scores[lr] == scores[choice.lr]]
    if len(grid.lrs) == 1 or len(tied) != 1:
        return None
    return {max(grid.lrs): "largest", min(grid.lrs): "smallest"}.get(tied[0])


def _scores(grid: Grid, norm: str, batch_size: int, results: Results) -> dict[float, tuple[int, float]]:
    """Seeds that lasted, and their mean, by learning rate in the grid's order; the greatest is the best."""
    return {lr: _score(grid.seeds_of(norm, batch_size, lr), results) for lr in grid.lrs}


def _score(runs: Sequence[Recipe], results: Results) -> tuple[int, float]:
    finals = [final for run in runs if (final := final_metric(results[run.hash])) is not None]
    return len(finals), statistics.fmean(finals) if finals else -math.inf


def steps_to(result: RunResult, target: float) -> int | None:
    """Training steps until an evaluation first reached the target; None if none did, or the run diverged."""
    reached = result.validation >= target
    return int(result.evaluation_steps[reached][0]) if reached.any() and not result.diverged else None


def steps_by_seed(choice: Choice, results: Results, target: float) -> dict[int, float]:
    """Training steps to the target of each seed of a choice that reached it."""
    steps = {run.training.seed: steps_to(results[run.hash], target) for run in choice.runs}
    return {seed: float(count) for seed, count in steps.items() if count is not None}


def make_row(
    grid: Grid,
    choice: Choice,
    baseline: Choice | None,
    results: Results,
    target: float,
    test_metric: Callable[[Recipe], float],
) -> Row:
    """The table's row of one choice.

    Args:
        baseline: the choice of no normaliser at the same batch size, if it was compared.
        target: of the validation metric.
        test_metric: the test metric of a run that did not diverge.
    """
    limits = {"least": 0.0, "most": 1.0} if grid.base.training.metric == "accuracy" else {}
    own = [results[run.hash] for run in choice.runs]
    every = [
        results[run.hash] for lr in grid.lrs for run in grid.seeds_of(choice.norm, choice.batch_size, lr)
    ]
    finished = [run for run in choice.runs if final_metric(results[run.hash]) is not None]
    steps = [steps_to(result, target) for result in own]
    base = [] if baseline is None else [steps_to(results[run.hash], target) for run in baseline.runs]
    times = [run.milliseconds for run in own if math.isfinite(run.milliseconds) and run.clock == grid.clock]
    finals = [final for result in own if (final := final_metric(result)) is not None]
    return Row(
        norm=choice.norm,
        batch_size=choice.batch_size,
        lr=choice.lr,
        test=mean_interval([test_metric(run) for run in finished], **limits),
        validation=mean_interval(finals, **limits),
        reached=sum(step is not None for step in steps),
        seeds=grid.seeds,
        steps=mean_interval([float(step) for step in steps if step], least=0.0) if all(steps) else None,
        ratio=_ratio(base, steps),
        diverged=statistics.fmean(result.diverged for result in every),
        milliseconds=statistics.median(times) if times else None,
        peak_bytes=own[0].peak_bytes,
        places=own[0].places,
        left_out=own[0].left_out,
    )


def _ratio(base: Sequence[int | None], steps: Sequence[int | None]) -> Interval | None:
    if not base or not all(base) or not all(steps):
        return None
    return ratio_interval([float(b) for b in base if b], [float(s) for s in steps if s])


def make_rate_map(grid: Grid, norm: str, results: Results) -> RateMap:
    """The validation metric of one normaliser over learning rates and batch sizes."""
    metric, diverged = [], []
    for batch_size in grid.batch_sizes:
        scores = _scores(grid, norm, batch_size, results).values()
        metric.append(tuple(mean if count else None for count, mean in scores))
        diverged.append(tuple(grid.seeds - count for count, _ in scores))
    return RateMap(norm, grid.lrs, grid.batch_sizes, tuple(metric), tuple(diverged))
