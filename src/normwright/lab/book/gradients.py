"""What the recorded gradients of a run say of its layers."""

from __future__ import annotations

import numpy as np

from normwright.lab.run import Floats, RunResult

# Below every norm that float32 gives for a weight's gradient but zero.
_TINY = float(np.finfo(np.float32).tiny)


def mean_gradients(result: RunResult, steps: int) -> Floats:
    """The geometric mean of each layer's gradient norm over what was recorded in the first steps.

    Args:
        result: of a run with records.
        steps: how many training steps from the start count.
    Returns:
        (W,), input side first, as `LayerTrace.layers`.
    """
    recorded = result.trace.gradient[result.trace.steps < steps].astype(np.float64)
    means: Floats = np.exp(np.log(np.maximum(recorded, _TINY)).mean(axis=0))
    return means


def top_over_bottom(gradients: Floats) -> float:
    """The gradient of the last hidden layer over that of the second: layers of one size, near loss and input.

    The first layer and the output have weights of other sizes.

    Args:
        gradients: (W,), of an MLP with at least three hidden layers.
    """
    return float(gradients[-2] / gradients[1])
