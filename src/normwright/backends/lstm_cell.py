"""The cell of an LSTM in plain PyTorch. See `schema.py`.

Elements are computed in float32 or wider, and rounded where they are written. On a GPU each operation is a
launch, of which there are as few as this takes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.moments import compute_dtype

_sigmoid_backward = torch.ops.aten.sigmoid_backward.default
_tanh_backward = torch.ops.aten.tanh_backward.default


def lstm_cell(z: Tensor, before: Tensor, gates: Tensor, cell: Tensor) -> None:
    """See `schema.py`."""
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
    wide = gates.to(compute_dtype(gates))
    i, f, g, _ = wide.chunk(4, 1)
    dc = dcell.to(wide.dtype) + through
    dg = dc * i
    of_gates = torch.cat((dc * g, dc * before, dg, dh.to(wide.dtype) * squashed), 1)
    of_z, moved = _sigmoid_backward(of_gates, wide), dc * f
    of_z.chunk(4, 1)[2].copy_(_tanh_backward(dg, g))
    dz.copy_(of_z)  # which may be the gates, that nothing reads any more
    dcell.copy_(moved)
