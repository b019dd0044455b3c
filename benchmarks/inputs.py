"""Random inputs of a case."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.cases import Case


class Inputs(NamedTuple):
    """Everything that a call reads, and the gradient that comes back at y."""

    x: Tensor
    residual: Tensor | None
    weight: Tensor
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    dy: Tensor

    @property
    def leaves(self) -> dict[str, Tensor]:
        """What gradients are asked for, by the gradient's name."""
        tensors = {
            "dx": self.x,
            "dresidual": self.residual,
            "dweight": self.weight,
            "dbias": self.bias,
        }
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def random_inputs(
    case: Case,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    parameter_dtype: torch.dtype | None = None,
) -> Inputs:
    """Normal x, residual and dy in the case's layout; a weight around 1; everything in the case's dtype, but
    parameters and running statistics in `parameter_dtype` where it is given."""
    generator = torch.Generator(device).manual_seed(seed)
    parameter_dtype = parameter_dtype or case.torch_dtype

    def elements() -> Tensor:
        values = torch.randn(case.shape, generator=generator, device=device)
        return values.to(case.torch_dtype).contiguous(memory_format=case.memory_format)

    def parameter() -> Tensor:
        return torch.randn(case.axes.weight_shape, generator=generator, device=device)

    weight = (1.0 + 0.1 * parameter()).to(parameter_dtype)
    bias = (0.1 * parameter()).to(parameter_dtype) if case.center else None
    batch = case.operator == "batch_norm"
    inputs = Inputs(
        x=elements(),
        residual=elements() if case.residual else None,
        weight=weight,
        bias=bias,
        running_mean=(0.1 * parameter()).to(weight.dtype) if batch else None,
        running_var=torch.ones_like(weight) if batch else None,
        dy=elements(),
    )
    return with_x(case, inputs, inputs.x)


def with_x(case: Case, inputs: Inputs, x: Tensor) -> Inputs:
    """The inputs with another x, in the case's dtype and layout; gradients are asked for where they are."""
    x = x.detach().to(case.torch_dtype).contiguous(memory_format=case.memory_format)
    inputs = inputs._replace(x=x)
    for leaf in inputs.leaves.values():
        leaf.requires_grad_(case.mode != "inference")
    return inputs
