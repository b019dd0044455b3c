"""One layer of a normalised LSTM in one direction, over packed sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normwright.functional.forward_mode import needs_plain_operations
from normwright.functional.lstm.fused import FusedLayer, run_forward
from normwright.functional.lstm.inputs import LstmInputs, LstmNorms
from normwright.functional.lstm.plain import plain_layer


def lstm_layer(inputs: LstmInputs, sizes: Sequence[int], norms: LstmNorms) -> tuple[Tensor, Tensor, Tensor]:
    """Runs a normalised LSTM over the time steps.

        gates = N(W_hh·h)·gain_hh + N(W_ih·x)·gain_ih + bias,   i, f, o = σ(…),  g = tanh(…)
        c ← f·c + i·g,    h ← o·tanh(N(c)·gain_c + bias_c)

    Args:
        inputs: x, the hidden state and the weights.
        sizes: how many sequences have each step; the longest sequences stand first.
        norms: of the layer, new for each pass.
    Returns:
        h of every step (S, H), and h and c of each sequence's last step (N, H).
    References:
        Cooijmans et al. 2017, arXiv:1603.09025; Ba, Kiros & Hinton 2016, arXiv:1607.06450.
    """
    if needs_plain_operations(*inputs):
        results = plain_layer(inputs, sizes, norms)
    elif torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        results = FusedLayer.apply(*inputs, tuple(sizes), norms)
    else:
        results = run_forward(inputs, sizes, norms).results
    norms.close()
    return results
