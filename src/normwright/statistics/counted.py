"""What of a normaliser's input its moments are of."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from normwright.nn.masked_batch_norm import MaskedBatchNorm1d, mask_of


def counted(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """The elements of a call that count: all of its input, or (M, C) of those that a mask leaves.

    Args:
        module: a normaliser, or any other.
        args, named: of the call.
    Returns:
        The first tensor, or what a `MaskedBatchNorm1d` takes of it; None where there is none.
    """
    x = next((value for value in (*args, *named.values()) if isinstance(value, Tensor)), None)
    if x is None or not isinstance(module, MaskedBatchNorm1d):
        return x
    mask = args[1] if len(args) > 1 else named.get("mask")
    if named.get("lengths") is not None:
        mask = mask_of(x, named["lengths"])
    return x if mask is None else x.transpose(1, 2)[mask]
