"""The cell of an LSTM. See `schema.py` and, for the kernels, `kernels/lstm_cell.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from normwright.backends.lstm_cell import check_cell
from normwright.backends.triton.kernels.lstm_cell import step, step_backward
from normwright.backends.triton.launch import cdiv, compute_type, launch, on_device_of

# A step is a few ten thousand elements: programs that are small reach more of the GPU. Not measured.
_BLOCK, _WARPS = 256, 2


def lstm_cell(z: Tensor, before: Tensor, gates: Tensor, cell: Tensor) -> None:
    """See `schema.py`."""
    check_cell([before, cell], [z, gates])
    _launch(step, [z, before], [gates, cell], before)


def lstm_cell_backward(
    dh: Tensor, squashed: Tensor, through: Tensor, gates: Tensor, before: Tensor, dcell: Tensor, dz: Tensor
) -> None:
    """See `schema.py`."""
    check_cell([before, dh, squashed, through, dcell], [gates, dz])
    _launch(step_backward, [dh, squashed, through, gates, before], [dcell, dz], before)


def _launch(kernel: Any, read: Sequence[Tensor], written: Sequence[Tensor], before: Tensor) -> None:
    """One launch over the elements of a step; what is not dense is copied, and copied back where written."""
    dense = [tensor.contiguous() for tensor in written]
    tensors = (*(tensor.contiguous() for tensor in read), *dense)
    elements, units = before.numel(), before.shape[1]
    with on_device_of(before):
        launch(kernel, (cdiv(elements, _BLOCK),))(
            *tensors, elements, units, compute_type(before), _BLOCK, num_warps=_WARPS
        )
    for tensor, result in zip(written, dense, strict=True):
        if result is not tensor:
            tensor.copy_(result)
