"""Autograd for dynamic tanh, as `autograd.py` has it for the normalisers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.backends.channel_tanh import channel_tanh_backward
from normwright.backends.gradients import DALPHA, DBIAS, DWEIGHT, DX
from normwright.backends.normalised import is_batched
from normwright.functional.pipelined import differentiate_if_pipelined, knows

_forward = torch.ops.normwright.channel_tanh.default
_backward = torch.ops.normwright.channel_tanh_backward.default


def differentiable_tanh(
    x: Tensor, alpha: Tensor, weight: Tensor | None, bias: Tensor | None, axis: int
) -> Tensor:
    """`channel_tanh`'s y, with its gradients."""
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
        differentiate_if_pipelined()
    y: Tensor = (_Transformable if transformed else _Plain).apply(x, alpha, weight, bias, axis)
    return y


def _gradients(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:  # nothing depends on y
        return (None,) * 5
    bits = zip((DX, DALPHA, DWEIGHT, DBIAS), ctx.needs_input_grad, strict=False)
    wanted = sum(bit for bit, needed in bits if needed)
    again = not torch.compiler.is_compiling() and (torch.is_grad_enabled() or is_batched(dy))
    operator: Any = channel_tanh_backward if again else _backward
    return *operator(dy, *ctx.saved_tensors, ctx.axis, wanted), None


class _Transformable(torch.autograd.Function):
    """Of which the transforms of `torch.func` and the compiler make what they need."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> Any:
        return _forward(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.axis = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> Any:
        return _gradients(ctx, dy)


class _Plain(torch.autograd.Function):
    """The same at a third of the cost of a call."""

    @staticmethod
    def forward(ctx: Any, *call: Any) -> Any:
        *tensors, ctx.axis = call
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return _forward(*call)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> Any:
        return _gradients(ctx, dy)


knows(_forward, _Transformable)
