"""Autograd for the operators.

A first derivative is one backward operator. Where a derivative is itself to be differentiated
(`create_graph=True`, `torch.func`), the backward runs in PyTorch's differentiable operations instead,
with the moments written as functions of x; derivatives of every order are then right.

A family (`_Rows`, …) says which operators it has and how its backward is called. Of each, two
`torch.autograd.Function`s are made: one that the transforms of `torch.func` and the compiler understand, and
one that costs a third of it, for every other call.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends import eager
from normwright.backends.gradients import DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.layout import Layout, channels_layout, groups_layout, rows_layout
from normwright.backends.masks import MASKED
from normwright.backends.moments import textbook_moments
from normwright.backends.normalised import is_batched
from normwright.backends.parts import parts_backward, parts_moments
from normwright.functional.pipelined import differentiate_if_pipelined, knows

# What a backward needs besides the inputs: the tensors that its operator takes after these, the settings that
# it takes then (the activation last, but for `wanted`), and eps, for the moments as functions of x.
Kept = tuple[tuple[Tensor | None, ...], tuple[Any, ...], float]


def _moments_of(x: Tensor, layout: Layout, eps: float, shape: torch.Size, *, center: bool = True) -> Tensor:
    """The moments as a differentiable function of x, in the shape that the operator gives them."""
    mean, _, rstd = textbook_moments(x.view(layout.view), layout.moment_axes, eps, center=center)
    return torch.stack([rstd] if mean is None else [mean, rstd]).view(shape)


class _Rows:
    """Moments over the trailing axes. Settings: axes, center, eps, activation."""

    forward = torch.ops.normwright.rows_forward.default
    forward_masked = torch.ops.normwright.rows_forward_masked.default
    backward = torch.ops.normwright.rows_backward.default
    masked = MASKED
    settings = 4

    @staticmethod
    def kept(settings: tuple[Any, ...], output: tuple[Tensor, ...], mask: Tensor | None) -> Kept:
        axes, center, eps, activation = settings
        return (mask, output[1]), (axes, center, activation), eps

    @staticmethod
    def backward_of_x(eps: float, dy: Tensor, x: Tensor, *call: Any) -> Any:
        residual, weight, bias, mask, moments, axes, center, activation, wanted = call
        moments = _moments_of(x, rows_layout(x, axes), eps, moments.shape, center=center)
        inputs = (x, residual, weight, bias, mask, moments)
        return eager.rows_backward(dy, *inputs, axes, center, activation, wanted)


class _Groups:
    """Moments over a group of channels and space. Settings: groups, center, eps, activation."""

    forward = torch.ops.normwright.groups_forward.default
    forward_masked = torch.ops.normwright.groups_forward_masked.default
    backward = torch.ops.normwright.groups_backward.default
    masked = MASKED
    settings = 4

    @staticmethod
    def kept(settings: tuple[Any, ...], output: tuple[Tensor, ...], mask: Tensor | None) -> Kept:
        groups, center, eps, activation = settings
        return (mask, output[1]), (groups, center, activation), eps

    @staticmethod
    def backward_of_x(eps: float, dy: Tensor, x: Tensor, *call: Any) -> Any:
        residual, weight, bias, mask, moments, groups, center, activation, wanted = call
        moments = _moments_of(x, groups_layout(x, groups), eps, moments.shape, center=center)
        inputs = (x, residual, weight, bias, mask, moments)
        return eager.groups_backward(dy, *inputs, groups, center, activation, wanted)


class _Channels:
    """Moments over all but the channel axis. Settings: what is moved, momentum, eps, activation."""

    forward = torch.ops.normwright.channels_forward.default
    forward_masked = torch.ops.normwright.channels_forward_masked.default
    backward = torch.ops.normwright.channels_backward.default
    masked = MASKED
    settings = 6

    @staticmethod
    def kept(settings: tuple[Any, ...], output: tuple[Tensor, ...], mask: Tensor | None) -> Kept:
        return (mask, output[1]), settings[-1:], settings[-2]

    @staticmethod
    def backward_of_x(eps: float, dy: Tensor, x: Tensor, *call: Any) -> Any:
        residual, weight, bias, mask, moments, activation, wanted = call
        moments = _moments_of(x, channels_layout(x), eps, moments.shape)
        return eager.channels_backward(dy, x, residual, weight, bias, mask, moments, activation, wanted)


class _Affine:
    """Known moments. Settings: mean, variance, eps, activation."""

    forward = torch.ops.normwright.channel_affine.default
    forward_masked = forward
    backward = torch.ops.normwright.channel_affine_backward.default
    masked = ()
    settings = 4

    @staticmethod
    def kept(settings: tuple[Any, ...], output: Tensor, mask: None) -> Kept:
        return settings[:2], settings[2:], settings[2]

    @staticmethod
    def backward_of_x(eps: float, *call: Any) -> Any:
        return eager.channel_affine_backward(*call)


class _Parts:
    """Moments over parts of the positions. Settings: spans, parts, eps, activation."""

    forward = torch.ops.normwright.parts_forward.default
    forward_masked = forward
    backward = torch.ops.normwright.parts_backward.default
    masked = ()
    settings = 4

    @staticmethod
    def kept(settings: tuple[Any, ...], output: tuple[Tensor, ...], mask: None) -> Kept:
        spans, parts, eps, activation = settings
        return (output[1], spans), (parts, activation), eps

    @staticmethod
    def backward_of_x(eps: float, dy: Tensor, x: Tensor, *call: Any) -> Any:
        residual, weight, bias, _, spans, parts, activation, wanted = call
        inputs = (x, residual, weight, bias, parts_moments(x, spans, parts, eps))
        return parts_backward(dy, *inputs, spans, parts, activation, wanted)


def _is_masked(family: Any, residual: Tensor | None, activation: str | None) -> bool:
    """Whether one bit per element undoes the activation, where otherwise the residual would be kept.

    Not in a graph: the bits lie in the order that x has in memory, and who compiles may give the backward x
    in another. Inductor takes a graph that it has compiled, and kept, for one that differs in that alone.
    """
    return residual is not None and activation in family.masked and not torch.compiler.is_compiling()


def _keep(
    ctx: Any,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    kept: Kept,
    masked: bool,
) -> None:
    """Keeps what the backward needs; the residual only where an activation is undone without a mask."""
    tensors, settings, eps = kept
    ctx.kept = settings, eps, None if residual is None else residual.dtype
    if masked or settings[-1] is None:
        residual = None
    ctx.save_for_backward(x, residual, weight, bias, *tensors)
    ctx.set_materialize_grads(False)


def _gradients(family: Any, operator: Any, ctx: Any, dy: Tensor | None) -> Any:
    """The four gradients of a call: without an activation the residual's is dy itself."""
    if dy is None:  # nothing depends on y
        return None, None, None, None
    to_x, to_residual, to_weight, to_bias = ctx.needs_input_grad[:4]
    settings, eps, residual_dtype = ctx.kept
    activated = settings[-1] is not None
    wanted = DX * to_x + DWEIGHT * to_weight + DBIAS * to_bias + DRESIDUAL * (to_residual and activated)
    if not torch.compiler.is_compiling() and (torch.is_grad_enabled() or is_batched(dy)):
        gradients = family.backward_of_x(eps, dy, *ctx.saved_tensors, *settings, wanted)
    else:
        gradients = operator(dy, *ctx.saved_tensors, *settings, wanted)
    if not to_residual:
        return gradients
    dx, dresidual, dweight, dbias = gradients
    return dx, (dresidual if activated else dy).to(residual_dtype), dweight, dbias


def _transformable(family: Any) -> Any:
    """Takes and returns everything flat, as the transforms of `torch.func` want it."""
    # Held by themselves: the compiler of PyTorch 2.10 calls no operator that is an attribute of a class.
    forward, forward_masked, backward_operator = family.forward, family.forward_masked, family.backward

    class Transformable(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*call: Any) -> Any:
            return (forward_masked if _is_masked(family, call[1], call[-1]) else forward)(*call)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                ctx.mark_non_differentiable(*output[1:])
            masked = _is_masked(family, inputs[1], inputs[-1])
            x, residual, weight, bias, *settings = inputs
            kept = family.kept(tuple(settings), output, output[2] if masked else None)
            _keep(ctx, x, residual, weight, bias, kept, masked)

        @staticmethod
        def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
            return *_gradients(family, backward_operator, ctx, dy), *[None] * family.settings

    return Transformable


def _plain(family: Any) -> Any:
    """Returns y alone and takes what is not differentiated as one argument: each costs."""
    # Without an overload's own call in Python. The compiler, which asks for the overload, does not come here.
    forward, forward_masked = family.forward._op, family.forward_masked._op
    backward_operator = family.backward._op

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,
            x: Tensor,
            residual: Tensor | None,
            weight: Tensor | None,
            bias: Tensor | None,
            settings: tuple[Any, ...],
        ) -> Any:
            masked = residual is not None and _is_masked(family, residual, settings[-1])
            output = (forward_masked if masked else forward)(x, residual, weight, bias, *settings)
            kept = family.kept(settings, output, output[2] if masked else None)
            _keep(ctx, x, residual, weight, bias, kept, masked)
            return output if isinstance(output, Tensor) else output[0]

        @staticmethod
        def backward(ctx: Any, dy: Tensor | None) -> Any:
            return *_gradients(family, backward_operator, ctx, dy), None

    # `Plain.apply` would ask again, in Python, what `Differentiable.apply` has asked.
    return super(torch.autograd.Function, Plain).apply


class Differentiable(NamedTuple):
    """The two functions of a family."""

    transformable: Any
    plain: Any

    def apply(
        self,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        settings: tuple[Any, ...],
    ) -> Tensor:
        """y; settings are what the forward operator takes besides."""
        y: Tensor
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
                differentiate_if_pipelined()
            output = self.transformable.apply(x, residual, weight, bias, *settings)
            y = output if isinstance(output, Tensor) else output[0]
        else:
            y = self.plain(x, residual, weight, bias, settings)
        return y


ROWS, GROUPS, CHANNELS, AFFINE, PARTS = (
    Differentiable(_transformable(family), _plain(family))
    for family in (_Rows, _Groups, _Channels, _Affine, _Parts)
)

for _family, _functions in (
    (_Rows, ROWS),
    (_Groups, GROUPS),
    (_Channels, CHANNELS),
    (_Affine, AFFINE),
    (_Parts, PARTS),
):
    for _operator in {_family.forward, _family.forward_masked}:
        knows(_operator, _functions.transformable)
