"""The cell of an LSTM in plain PyTorch. See `schema.py`.

Elements are computed in float32 or wider, and rounded where they are written. On a GPU each operation is a
launch, of which there are as few as this takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normwright.backends.moments import compute_dtype
from normwright.errors import ShapeError

_sigmoid_backward = torch.ops.aten.sigmoid_backward.default
_tanh_backward = torch.ops.aten.tanh_backward.default


def check_cell(of_units: Sequence[Tensor], of_gates: Sequence[Tensor]) -> None:
    """Raises ShapeError unless all are (N, H), and those of the gates (N, 4H), of one dtype."""
    first = of_units[0]
    of_gate = torch.Size((len(first), 4 * first.shape[-1]))
    parts = [(part, first.shape) for part in of_units] + [(part, of_gate) for part in of_gates]
    if first.dim() != 2 or any(part.shape != shape or part.dtype != first.dtype for part, shape in parts):
        raise ShapeError(
            "the tensors of an LSTM's cell must be (N, H), those of its gates (N, 4·H), of one dtype"
        )


def lstm_cell(z: Tensor, before: Tensor, gates: Tensor, cell: Tensor) -> None:
    """See `schema.py`."""
    check_cell([before, cell], [z, gates])
    wide = z.to(compute_dtype(z))
    activated = wide.sigmoid()
    i, f, g, _ = activated.chunk(4, 1)
    g.copy_(wide.chunk(4, 1)[2].tanh())
    cell.copy_(torch.addcmul(f * before, i, g))
    gates.copy_(activated)


def lstm_cell_backward(
    dh: Tensor, squashed: Tensor, through: Tensor, gates: Tensor, before: Tensor, dcell: Tensor, dz: Tensor
) -> None:
    """See `schema.py`."""
    check_cell([before, dh, squashed, through, dcell], [gates, dz])
    wide = gates.to(compute_dtype(gates))
    i, f, g, _ = wide.chunk(4, 1)
    dc = dcell.to(wide.dtype) + through
    dg = dc * i
    of_gates = torch.cat((dc * g, dc * before, dg, dh.to(wide.dtype) * squashed), 1)
    dz.copy_(_sigmoid_backward(of_gates, wide))
    dz.chunk(4, 1)[2].copy_(_tanh_backward(dg, g))
    dcell.copy_(dc * f)
