"""The cell of an LSTM in plain PyTorch. See `schema.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.moments import compute_dtype


def lstm_cell(z: Tensor, before: Tensor, gates: Tensor, cell: Tensor) -> None:
    """See `schema.py`."""
    i, f, g, o = z.to(compute_dtype(z)).chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    cell.copy_(f * before + i * g)
    gates.copy_(torch.cat((i, f, g, o), 1))


def lstm_cell_backward(
    dh: Tensor, squashed: Tensor, through: Tensor, gates: Tensor, before: Tensor, dcell: Tensor, dz: Tensor
) -> None:
    """See `schema.py`."""
    i, f, g, o = gates.to(compute_dtype(gates)).chunk(4, 1)
    dc = dcell.to(i.dtype) + through
    di, df, dg, do = dc * g, dc * before, dc * i, dh.to(i.dtype) * squashed
    dz.copy_(torch.cat((di * i * (1 - i), df * f * (1 - f), dg * (1 - g.square()), do * o * (1 - o)), 1))
    dcell.copy_(dc * f)
