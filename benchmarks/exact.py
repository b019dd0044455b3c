"""What a case should give: the reference's float64 computation on the very same inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.cases import EPS, Case
from benchmarks.inputs import Inputs
from normwright.reference import activate, fused, fused_backward, inference_map
from normwright.reference.arrays import Array


def exact(case: Case, inputs: Inputs) -> dict[str, Array]:
    """y, and in a step the gradients, by name, as `contenders.results` names them."""
    x, residual, weight, bias, mean, variance, dy = (_float64(tensor) for tensor in inputs)
    assert x is not None
    if case.mode == "inference" and mean is not None and variance is not None:
        scale, shift = inference_map(mean, variance, weight, bias, EPS)
        parameter = case.axes.parameter_shape
        z = x * scale.reshape(parameter) + shift.reshape(parameter)
        return {"y": activate(z if residual is None else z + residual, case.activation)}
    options: dict[str, Any] = {"eps": EPS, "center": case.center, "activation": case.activation}
    found = {"y": fused(x, case.axes, weight, bias, residual, **options).y}
    if case.mode == "step":
        assert dy is not None
        gradients = fused_backward(dy, x, case.axes, weight, bias, residual, **options)._asdict()
        found |= {name: gradients[name] for name in inputs.leaves}
    return found


def _float64(tensor: Tensor | None) -> Array | None:
    if tensor is None:
        return None
    values: Array = np.asarray(tensor.detach().double().contiguous().numpy())
    return values
