"""A normalised LSTM layer in differentiable operations: the definition that the fused one is tested against.

It serves where the fused one's hand-written backward does not reach: derivatives of derivatives, forward-mode
derivatives, the transforms of `torch.func`, and the compiler.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normwright.functional.lstm.inputs import LstmInputs, LstmNorms


def plain_layer(inputs: LstmInputs, sizes: Sequence[int], norms: LstmNorms) -> tuple[Tensor, Tensor, Tensor]:
    """See `lstm_layer`."""
    x, h, c, weight_ih, weight_hh, bias, gain_ih, gain_hh, gain_c, bias_c = inputs
    outputs: list[Tensor] = []
    ended: list[tuple[Tensor, Tensor]] = []
    for step, (size, row) in enumerate(zip(sizes, x.mm(weight_ih.t()).split(list(sizes)), strict=True)):
        if size < h.shape[0]:
            ended.append((h[size:], c[size:]))
            h, c = h[:size], c[:size]
        of_input = norms.of_input.plain(step, row, gain_ih, bias)
        gates = norms.of_hidden.plain(step, h.mm(weight_hh.t()), gain_hh, None) + of_input
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * norms.of_cell.plain(step, c, gain_c, bias_c).tanh()
        outputs.append(h)
    ended.append((h, c))
    last_h, last_c = (torch.cat(parts) for parts in zip(*reversed(ended), strict=True))
    return torch.cat(outputs), last_h, last_c
