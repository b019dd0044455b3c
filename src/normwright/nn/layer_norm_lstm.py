"""An LSTM that layer norm normalises."""

from __future__ import annotations

from typing import Any

import torch

from normwright.functional.lstm.layer_steps import LayerSteps
from normwright.functional.lstm.step_norm import StepNorm
from normwright.nn.layer_norm import LayerNorm
from normwright.nn.normalised_lstm import NormalisedLSTM, check_eps


class LayerNormLSTM(NormalisedLSTM):
    """`torch.nn.LSTM` with layer norm of the input path, the hidden path and the cell.

        gates = LN(W_hh·h)·gain_hh + LN(W_ih·x)·gain_ih + bias,    i, f, o = σ(…),  g = tanh(…)
        c ← f·c + i·g,    h ← o·tanh(LN(c)·gain_c + bias_c)

    where LN takes the moments of each sequence by itself, over all four gates or all units. It computes the
    same in training and in inference, and any batch and length will do.

    Called as `torch.nn.LSTM`, with `lengths=` or `mask=` beside it for padded batches; weights have its names
    and shapes, so that `load_state_dict(…, strict=False)` takes those of its checkpoints. The normalisers are
    `LayerNorm` modules norm_ih_l0, norm_hh_l0, norm_c_l0, …, whose forward is not called: hooks on them do
    not run.

    `torch.compile` breaks its graph here (Dynamo does not trace subclasses of `torch.nn.LSTM`: not with
    fullgraph=True) and may take minutes over it for nothing; `torch.export` takes its inference, of any
    number of sequences and of as many steps as it is shown.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: `torch.nn.LSTM`'s.
        eps: added to the variance.
    Raises:
        OptionError: eps below 0, or a proj_size.
    References:
        Ba, Kiros & Hinton 2016, arXiv:1607.06450, supplementary equations 20 to 22; its biases of the two
        paths are one with the LSTM's.
    Example:
        >>> output, (h, c) = LayerNormLSTM(3, 5, batch_first=True)(torch.randn(2, 7, 3))
        >>> output.shape, h.shape
        (torch.Size([2, 7, 5]), torch.Size([1, 2, 5]))
    """

    def __init__(self, *args: Any, eps: float = 1e-5, **kwargs: Any) -> None:
        check_eps(eps)
        self.eps = eps
        super().__init__(*args, **kwargs)

    def _new_norms(self, **made: Any) -> dict[str, torch.nn.Module]:
        units = self.hidden_size
        return {
            "norm_ih": LayerNorm(4 * units, eps=self.eps, bias=False, **made),
            "norm_hh": LayerNorm(4 * units, eps=self.eps, bias=False, **made),
            "norm_c": LayerNorm(units, eps=self.eps, **made),
        }

    def _step_norm(self, norm: LayerNorm, sequences: int) -> StepNorm:
        return LayerSteps(norm.eps)

    def extra_repr(self) -> str:
        """`torch.nn.LSTM`'s, with eps."""
        return f"{super().extra_repr()}, eps={self.eps}"
