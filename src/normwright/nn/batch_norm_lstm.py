"""An LSTM that batch norm normalises, with statistics per time step."""

from __future__ import annotations

from typing import Any

import torch

from normwright.functional.lstm.batch_steps import BatchSteps
from normwright.functional.lstm.step_norm import StepNorm
from normwright.nn.bookkeeping import is_recomputation
from normwright.nn.normalised_lstm import NormalisedLSTM, check_eps
from normwright.nn.recurrent_batch_norm import RecurrentBatchNorm


class BatchNormLSTM(NormalisedLSTM):
    """`torch.nn.LSTM` with batch norm of the input path, the hidden path and the cell.

        gates = BN(W_hh·h)·gain_hh + BN(W_ih·x)·gain_ih + bias,    i, f, o = σ(…),  g = tanh(…)
        c ← f·c + i·g,    h ← o·tanh(BN(c)·gain_c + bias_c)

    where BN takes the moments of each time step by itself, over the sequences that have it: padding counts
    for nothing. The way back of a bidirectional layer counts its steps from each sequence's end. A step that
    a single sequence of the batch has left is normalised by running statistics in training too.

    Called as `torch.nn.LSTM`, with `lengths=` or `mask=` beside it for padded batches; weights have its names
    and shapes, so that `load_state_dict(…, strict=False)` takes those of its checkpoints. The normalisers are
    `RecurrentBatchNorm` modules norm_ih_l0, norm_hh_l0, norm_c_l0, …, whose forward is not called: hooks on
    them do not run.

    `torch.compile` breaks its graph here (Dynamo does not trace subclasses of `torch.nn.LSTM`: not with
    fullgraph=True) and may take minutes over it for nothing; `torch.export` takes its inference, of any
    number of sequences and of as many steps as it is shown.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: `torch.nn.LSTM`'s.
        max_length: how many time steps have statistics of their own; the last step's serve all later ones.
            Inference on longer sequences than training has seen is an error before the cap. It costs state:
            for each layer and direction max_length rows of 9·hidden_size running means and as many variances.
        eps: added to the variance.
        momentum: share of a batch in the running statistics; None takes the cumulative mean.
        gain: where the gains start.
    Raises:
        OptionError: max_length below 1, eps below 0, momentum outside [0, 1], or a proj_size.
    References:
        Cooijmans et al. 2017, arXiv:1603.09025; Hochreiter & Schmidhuber 1997, Neural Computation 9(8).
    Example:
        >>> lstm = BatchNormLSTM(3, 5, max_length=7)
        >>> output, (h, c) = lstm(torch.randn(7, 2, 3), lengths=torch.tensor([7, 4]))
        >>> output.shape, h.shape
        (torch.Size([7, 2, 5]), torch.Size([1, 2, 5]))
    """

    def __init__(
        self,
        *args: Any,
        max_length: int = 256,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        gain: float = 0.1,
        **kwargs: Any,
    ) -> None:
        check_eps(eps)
        self._settings: dict[str, Any] = {
            "max_length": max_length,
            "eps": eps,
            "momentum": momentum,
            "gain": gain,
        }
        super().__init__(*args, **kwargs)
        self.max_length = max_length

    def _new_norms(self, **made: Any) -> dict[str, torch.nn.Module]:
        units = self.hidden_size
        return {
            "norm_ih": RecurrentBatchNorm(4 * units, bias=False, **self._settings, **made),
            "norm_hh": RecurrentBatchNorm(4 * units, bias=False, **self._settings, **made),
            "norm_c": RecurrentBatchNorm(units, **self._settings, **made),
        }

    def _step_norm(self, norm: RecurrentBatchNorm, sequences: int) -> StepNorm:
        # A batch without a sequence has no moments: it moves nothing.
        training = norm.training and sequences > 0
        return BatchSteps(norm.statistics, training, norm.eps, moving=not is_recomputation())

    def _check_steps(self, steps: int) -> None:
        for norm in self.children():
            assert isinstance(norm, RecurrentBatchNorm)
            norm.check_seen(steps)

    def extra_repr(self) -> str:
        """`torch.nn.LSTM`'s, with the cap."""
        return f"{super().extra_repr()}, max_length={self.max_length}"
