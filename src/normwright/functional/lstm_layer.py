"""One layer of a normalised LSTM in one direction, over packed sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from normwright.functional.lstm_fused import FusedLayer, run_forward
from normwright.functional.lstm_plain import plain_layer
from normwright.functional.step_norms import StepNorm


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """What a layer learns, H units and I inputs; the gates stand in PyTorch's order i, f, g, o.

    Args:
        weight_ih: (4H, I).
        weight_hh: (4H, H).
        bias: (4H,), or None for 0.
        gain_ih, gain_hh: (4H,), the gains of the two paths' normalisers; None for 1.
        gain_c, bias_c: (H,), those of the cell's.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias: Tensor | None
    gain_ih: Tensor | None
    gain_hh: Tensor | None
    gain_c: Tensor | None
    bias_c: Tensor | None

    @property
    def all(self) -> tuple[Tensor | None, ...]:
        """In the order of the fields."""
        paths = (self.weight_ih, self.weight_hh, self.bias, self.gain_ih, self.gain_hh)
        return (*paths, self.gain_c, self.bias_c)


@dataclass(frozen=True, eq=False)
class LayerNorms:
    """The three normalisers of a layer, for one pass over the time steps."""

    of_input: StepNorm
    of_hidden: StepNorm
    of_cell: StepNorm

    def close(self) -> None:
        """Ends a forward pass."""
        for norm in (self.of_input, self.of_hidden, self.of_cell):
            norm.close()


def lstm_layer(
    x: Tensor,
    sizes: Sequence[int],
    hidden: Tensor,
    cell: Tensor,
    weights: LayerWeights,
    norms: LayerNorms,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs a normalised LSTM over the time steps.

        gates = N(W_hh·h)·gain_hh + N(W_ih·x)·gain_ih + bias,   i, f, o = σ(…), g = tanh(…)
        c ← f·c + i·g,    h ← o·tanh(N(c)·gain_c + bias_c)

    Args:
        x: (S, I), the steps one after the other; S = Σ sizes.
        sizes: how many sequences have each step; the longest sequences stand first.
        hidden, cell: (N, H), before the first step; N = sizes[0].
        weights, norms: of the layer.
    Returns:
        h of every step (S, H), and h and c of each sequence's last step (N, H).
    """
    call = (x, hidden, cell, *weights.all)
    plain = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if plain or (forward_ad._current_level >= 0 and _has_tangent(call)):
        result = plain_layer(*call, sizes, norms)
    elif torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in call):
        result = FusedLayer.apply(*call, tuple(sizes), norms)
    else:
        result = run_forward(*call, sizes, norms).results
    norms.close()
    return result


def _has_tangent(call: Sequence[Tensor | None]) -> bool:
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in call)
