"""Batch normalisation of padded sequences as a function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.errors import ShapeError
from normwright.functional.arguments import check_epilogue
from normwright.functional.batch_norm import batch_norm
from normwright.functional.joining import Join, Spread

# Elements of a sequence from which copying it run by run is faster than gathering it element by element.
_WORTH_A_COPY = 2048


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
    hold anything, NaN included: y is 0 there, and it has no gradient.

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
    check_epilogue(input, residual, activation)
    call = (running_mean, running_var, weight, bias, training, momentum, eps)
    settings: dict[str, Any] = {"activation": activation, "num_batches_tracked": num_batches_tracked}
    lengths = _lengths_of(input, mask)
    if lengths is not None:
        if residual is not None:
            settings["residual"] = Join.apply(residual, lengths).unsqueeze(0)
        y = batch_norm(Join.apply(input, lengths).unsqueeze(0), *call, **settings)
        whole: Tensor = Spread.apply(y.squeeze(0), lengths, input.shape[2])
        return whole
    batch, channels, length = input.shape
    places = mask.flatten().nonzero().flatten()
    if residual is not None:
        settings["residual"] = _rows(residual).index_select(0, places)
    y = batch_norm(_rows(input).index_select(0, places), *call, **settings)
    rows = y.new_zeros(batch * length, channels).index_copy(0, places, y)
    return rows.view(batch, length, channels).transpose(1, 2)


def _lengths_of(x: Tensor, mask: Tensor) -> list[int] | None:
    """How long each sequence is, where padding lies at the ends alone and sequences are worth a copy each."""
    if torch.compiler.is_compiling() or x.is_cuda or not len(x) or x.numel() < _WORTH_A_COPY * len(x):
        return None
    lengths = mask.sum(1)
    ends = torch.arange(mask.shape[1], device=mask.device) < lengths.unsqueeze(1)
    return lengths.tolist() if torch.equal(mask, ends) else None


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
    if not torch.compiler.is_compiling() and mask.numel() and not bool(mask.any()):
        raise ShapeError(
            "some element must count, but the mask is False everywhere: True is for what counts, False for "
            "padding (mask=~mask turns one around)"
        )


def _rows(x: Tensor) -> Tensor:
    """(N·L, C)."""
    return x.transpose(1, 2).reshape(-1, x.shape[1])
