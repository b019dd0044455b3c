"""Batch normalisation of padded sequences as a function."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.errors import ShapeError
from normwright.functional import operators
from normwright.functional.batch_norm import (
    batch_norm,
    check_call,
    check_momentum,
    check_running,
    one_value_per_channel,
)
from normwright.functional.moving import move_towards


def masked_batch_norm(
    input: Tensor,
    mask: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    """Normalises each channel by its moments over the elements that count; padding counts for nothing.

    It is `batch_norm` of the elements that count joined to (M, C), each put back in its place. Padding may
    hold anything, NaN included: y is 0 there, and it has no gradient. Under `torch.func` running statistics
    move as `batch_norm`'s.

    How many elements count depends on the mask's values. `torch.compile` takes that into its graph in
    inference, with `fullgraph=True`; in training the graph breaks here, and `fullgraph=True` is refused.

    Args:
        input: (N, C, L), floating point.
        mask: (N, L), boolean; True where an element counts.
        running_mean, running_var, weight, bias, training, momentum, eps: as `batch_norm`'s.
        residual, activation, num_batches_tracked: as `batch_norm`'s.
    Returns:
        (N, C, L), in input's dtype.
    Raises:
        ShapeError: a mask that is not boolean or (N, L), or that is False everywhere, or one element that
            counts in training.
        OptionError, DtypeError: as `batch_norm`.
    Example:
        >>> x, mask = torch.tensor([[[1.0, 3.0, 99.0]]]), torch.tensor([[True, True, False]])
        >>> masked_batch_norm(x, mask, None, None, training=True).round()
        tensor([[[-1.,  1.,  0.]]])
    """
    if input.dim() != 3:
        raise ShapeError(f"expected 3D input (got {input.dim()}D input): padded sequences are (N, C, L)")
    check_mask(mask, (input.shape[0], input.shape[2]), "batch by length")
    vectors = (running_mean, running_var, weight, bias)
    check_call("batch_norm", input, residual, vectors, activation, eps, training=training)
    check_momentum(momentum)
    if not training:
        return _in_inference(input, residual, mask, vectors, eps, activation)
    check_running(running_mean, running_var, momentum, num_batches_tracked)
    spans = _spans_of(mask.cpu())
    count = int(spans[:, 2].sum())
    if count == 1 and input.shape[1]:
        raise one_value_per_channel(f"one element that counts out of input size {input.shape}")
    if residual is not None:
        residual = residual.masked_fill(~mask.unsqueeze(1), 0)
    y, moments = operators.parts(input, residual, weight, bias, spans, 1, eps, activation)
    mean, _, variance = moments[:, 0]
    running = (running_mean, running_var, num_batches_tracked)
    move_towards(input, mean, variance, count, running, momentum)
    return y


def _in_inference(
    x: Tensor,
    residual: Tensor | None,
    mask: Tensor,
    vectors: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    eps: float,
    activation: str | None,
) -> Tensor:
    """By batch norm of what counts alone, so that whoever looks at its call sees nothing else."""
    batch, channels, length = x.shape
    places = mask.flatten().nonzero().flatten()
    counting, beside = (
        None if part is None else part.transpose(1, 2).reshape(-1, channels).index_select(0, places)
        for part in (x, residual)
    )
    assert counting is not None
    y = batch_norm(counting, *vectors, eps=eps, residual=beside, activation=activation)
    rows = y.new_zeros(batch * length, channels).index_copy(0, places, y)
    return rows.view(batch, length, channels).transpose(1, 2)


def _spans_of(mask: Tensor) -> Tensor:
    """Of what counts in the whole batch, which is one part."""
    ends = mask.new_zeros(1)
    flat = torch.cat([ends, mask.flatten(), ends])
    first, after = (flat[1:] != flat[:-1]).nonzero().view(-1, 2).unbind(1)
    return torch.stack([torch.zeros_like(first), first, after - first], 1)


def check_mask(mask: Tensor, shape: tuple[int, ...], axes: str) -> None:
    """A mask is boolean and has the batch's shape, and some of it counts.

    Raises:
        ShapeError: it does not.
    """
    if mask.shape != shape or mask.dtype != torch.bool:
        raise ShapeError(
            f"mask must be boolean and {shape}, {axes}, True where an element counts, but is {mask.dtype} of "
            f"shape {list(mask.shape)}"
        )
    if torch.compiler.is_compiling() or mask.is_meta:
        return
    if mask.numel() and not bool(mask.any()):
        raise ShapeError(
            "some element must count, but the mask is False everywhere: True is for what counts, False for "
            "padding (mask=~mask turns one around)"
        )
