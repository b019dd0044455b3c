"""Normalised LSTMs, and the reference run over all their layers and directions."""

from __future__ import annotations

import numpy as np
import torch

from normwright import nn
from normwright.reference import LSTMWeights, normalised_lstm

KINDS = {"BatchNormLSTM": "batch", "LayerNormLSTM": "layer"}
EPS = 0.5  # with gains below 1/2 a step magnifies an error little: see tolerances.recurrent
INPUTS, UNITS = 3, 5


def lstm_of(
    name: str, dtype: torch.dtype = torch.float64, seed: int = 0, **options: object
) -> nn.LayerNormLSTM:
    """With weights of its own in every place."""
    if name == "BatchNormLSTM":
        options.setdefault("max_length", 6)
    module = getattr(nn, name)(INPUTS, UNITS, eps=EPS, dtype=dtype, **options)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in module.named_parameters():
            values = torch.rand(tensor.shape, generator=draw, dtype=torch.float64)
            tensor.copy_(0.25 + values / 4 if key.endswith(".weight") else (2 * values - 1) * UNITS**-0.5)
    return module


def sequences(
    steps: int = 6, batch: int = 4, dtype: torch.dtype = torch.float64, seed: int = 1
) -> torch.Tensor:
    """(T, N, I)."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.rand(steps, batch, INPUTS, generator=draw, dtype=torch.float64) * 4 - 2).to(dtype)


def reference_of(module, x, lengths, hx=None):
    """Output (T, N, D·H), h and c (layers·D, N, H), and by suffix the moments that batch norm took."""
    kind = KINDS[type(module).__name__]
    given, states, moments = x.detach().double().numpy(), ([], []), {}
    directions = ("", "_reverse") if module.bidirectional else ("",)
    for layer in range(module.num_layers):
        ways = []
        for direction in directions:
            suffix = f"l{layer}{direction}"
            first = [None, None] if hx is None else [s[len(states[0])].detach().double().numpy() for s in hx]
            data = flipped(given, lengths) if direction else given
            done = normalised_lstm(data, lengths, weights_of(module, suffix), kind, EPS, *first)
            ways.append(flipped(done.output, lengths) if direction else done.output)
            states[0].append(done.hidden)
            states[1].append(done.cell)
            moments[suffix] = done.moments
        given = np.concatenate(ways, -1)
    return given, *(np.stack(state) for state in states), moments


def weights_of(module, suffix):
    take = {key: tensor.detach().double().numpy() for key, tensor in module.named_parameters()}
    bias = take[f"bias_ih_{suffix}"] + take[f"bias_hh_{suffix}"] if module.bias else np.zeros(4 * UNITS)
    gains = (take[f"norm_{name}_{suffix}.weight"] for name in ("ih", "hh", "c"))
    paths = (take[f"weight_ih_{suffix}"], take[f"weight_hh_{suffix}"])
    return LSTMWeights(*paths, bias, *gains, take[f"norm_c_{suffix}.bias"])


def flipped(x, lengths):
    """Each sequence from its end to its beginning, the padding where it was."""
    y = np.zeros_like(x)
    for row, length in enumerate(lengths):
        y[:length, row] = x[:length, row][::-1]
    return y
