"""A bench whose results are written by hand, so that what an experiment must find in them is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np

from normwright.lab.book.bench import Bench
from normwright.lab.recipe import Recipe
from normwright.lab.run import LayerTrace, RunResult


class WrittenBench(Bench):
    """Answers every request at once.

    Args:
        result_of: the result of a recipe.
        test_of: its test accuracy, from 0 to 1; NaN where it diverged.
        quick: the reduced size.
    """

    def __init__(
        self,
        result_of: Callable[[Recipe], RunResult],
        test_of: Callable[[Recipe], float] = lambda recipe: 0.5,
        *,
        quick: bool = False,
    ) -> None:
        self.quick = quick
        self.used, self.choices = {}, []
        self._result_of, self._test_of = result_of, test_of

    def train(self, *recipes):
        self.used |= {recipe.hash: recipe for recipe in recipes}
        return tuple(self._result_of(recipe) for recipe in recipes)

    def test(self, recipe):
        return self._test_of(recipe)

    def data(self, recipe):
        return SimpleNamespace(classes=tuple("0123456789"))


def written(
    validation: Sequence[float] = (0.5,),
    *,
    every: int = 10,
    loss: Sequence[float] | None = None,
    diverged: bool = False,
    records: Sequence[int] = (0,),
    gradient: Sequence[Sequence[float]] = (),
    output: Sequence[Sequence[Sequence[float]]] = (),
) -> RunResult:
    """A result with the accuracies of its evaluations, one every so many steps, and what else is given."""
    evaluated = np.arange(1, len(validation) + 1) * every
    gradients = np.asarray(gradient, dtype=np.float32)
    outputs = np.asarray(output, dtype=np.float32)
    return RunResult(
        diverged=diverged,
        loss=np.ones(len(validation) * every, np.float32) if loss is None else np.asarray(loss, np.float32),
        evaluation_steps=evaluated,
        validation=np.asarray(validation, np.float64),
        milliseconds=1.0,
        peak_bytes=1,
        places=1,
        left_out=0,
        trace=LayerTrace(
            steps=np.asarray(records),
            places=(),
            input=outputs,
            output=outputs,
            layers=tuple(map(str, range(gradients.shape[1]))) if len(gradient) else (),
            gradient=gradients,
            update=gradients,
        ),
    )


def rising(steps: dict[float, int], *, length: int, every: int = 10) -> RunResult:
    """A result whose accuracy jumps to each target after so many steps, the targets rising."""
    evaluated = range(every, length + 1, every)
    return written(
        [max((target for target, at in steps.items() if at <= step), default=0.1) for step in evaluated],
        every=every,
    )
