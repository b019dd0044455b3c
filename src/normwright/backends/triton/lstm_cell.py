"""The cell of an LSTM. See `schema.py` and, for the kernels, `kernels/lstm_cell.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from normwright.backends.triton.kernels.lstm_cell import step, step_backward
from normwright.backends.triton.launch import cdiv, compute_type, launch, on_device_of

# A step is a few ten thousand elements: programs that are small reach more of the GPU. Not measured.
_BLOCK, _WARPS = 256, 2


def lstm_cell(z: Tensor, before: Tensor, gates: Tensor, cell: Tensor) -> None:
    """See `schema.py`."""
    written = _dense(gates, cell)
    with on_device_of(before):
        launch(step, _grid(before))(*_dense(z, before), *written, *_options(before), num_warps=_WARPS)
    _give_back([gates, cell], written)


def lstm_cell_backward(
    dh: Tensor, squashed: Tensor, through: Tensor, gates: Tensor, before: Tensor, dcell: Tensor, dz: Tensor
) -> None:
    """See `schema.py`."""
    read, written = _dense(dh, squashed, through, gates, before), _dense(dcell, dz)
    with on_device_of(before):
        launch(step_backward, _grid(before))(*read, *written, *_options(before), num_warps=_WARPS)
    _give_back([dcell, dz], written)


def _grid(before: Tensor) -> tuple[int]:
    return (cdiv(before.numel(), _BLOCK),)


def _options(before: Tensor) -> tuple[Any, ...]:
    """elements to BLOCK of a kernel."""
    return before.numel(), before.shape[1], compute_type(before), _BLOCK


def _dense(*tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def _give_back(given: Sequence[Tensor], written: Sequence[Tensor]) -> None:
    """Copies what was written to a copy of what is not dense."""
    for tensor, result in zip(given, written, strict=True):
        if result is not tensor:
            tensor.copy_(result)
