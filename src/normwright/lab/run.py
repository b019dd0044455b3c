"""What one run leaves behind: plain arrays, before anything is averaged over seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What was recorded of the layers, every so many steps.

    Args:
        steps: (R,), the training steps at which was recorded, counted from 0.
        places: L names of normalisers (or of the places that hold none), input side first.
        input, output: (R, L, 3), the 15th, 50th and 85th percentile of each place's input and output.
        layers: W names of the modules that own a weight, input side first.
        gradient: (R, W), Euclidean norm of the weight's gradient.
        update: (R, W), norm of the weight's change in that step over the norm of the weight.
    """

    steps: Ints
    places: tuple[str, ...]
    input: Floats
    output: Floats
    layers: tuple[str, ...]
    gradient: Floats
    update: Floats


@dataclass(frozen=True, eq=False)
class RunResult:
    """The outcome of one run.

    Args:
        diverged: the loss, or an output at an evaluation, was not finite; the run ended there.
        loss: (S,), training loss of every step done.
        evaluation_steps: (E,), number of training steps done before each evaluation.
        validation: (E,), the metric on the validation split at those steps.
        milliseconds: median time of a training step, without recording and evaluation, by `clock_of`.
        peak_bytes: most memory that tensors held at once in a training step.
        places: places of a normaliser in the network; left_out: those where this one is undefined.
        trace: what was recorded of the layers.
        clock: which of `machine.CLOCKS` took the time; those from before it was noted did so by the second.
    """

    diverged: bool
    loss: Floats
    evaluation_steps: Ints
    validation: Floats
    milliseconds: float
    peak_bytes: int
    places: int
    left_out: int
    trace: LayerTrace
    clock: str = "passed"
