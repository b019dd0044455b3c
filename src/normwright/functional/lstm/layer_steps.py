"""Layer norm at the time steps of an LSTM layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype
from normwright.functional.lstm.step_norm import Gradients, affine

_rows_forward = torch.ops.normwright.rows_forward.default
_rows_backward = torch.ops.normwright.rows_backward.default


class LayerSteps:
    """Layer norm over the features, at each time step.

    Args:
        eps: added to the variance.
    """

    def __init__(self, eps: float) -> None:
        self._eps = eps
        self._moments: dict[int, Tensor] = {}

    def forward(
        self,
        step: int,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Tensor:
        """See `StepNorm`."""
        call = (x, residual, weight, bias, 1, True, self._eps, activation)
        y: Tensor
        y, self._moments[step] = _rows_forward(*call)
        return y

    def backward(
        self,
        step: int,
        dy: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Gradients:
        """See `StepNorm`."""
        wanted = DX | DWEIGHT | DBIAS
        call: tuple[Any, ...] = (dy, x, None, weight, bias, None, self._moments[step], 1, True, activation)
        dx, _, dweight, dbias = _rows_backward(*call, wanted)
        return dx, dweight, dbias

    def forward_all(
        self, sizes: Sequence[int], x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """See `StepNorm`. To layer norm all steps are one."""
        return self.forward(0, x, None, weight, bias, None)

    def backward_all(
        self, sizes: Sequence[int], dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Gradients:
        """See `StepNorm`."""
        return self.backward(0, dy, x, weight, bias, None)

    def plain(self, step: int, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """See `StepNorm`."""
        wide = x.to(compute_dtype(x))
        centred = wide - wide.mean(1, keepdim=True)
        normalised = centred * (centred.square().mean(1, keepdim=True) + self._eps).rsqrt()
        return affine(normalised, weight, bias).to(x.dtype)

    def close(self) -> None:
        """Nothing runs along."""
