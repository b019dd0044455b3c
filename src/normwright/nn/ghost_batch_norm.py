"""Ghost batch normalisation as modules. See `functional.ghost_batch_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.functional import ghost_batch_norm
from normwright.functional.arguments import whole
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.batch_norm import running_statistics
from normwright.nn.parameters import weight_and_bias
from normwright.nn.signature import full_signature


@full_signature
class _GhostBatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """What the three have in common: all but the number of axes of their input."""

    def __init__(
        self,
        *args: Any,
        ghost_size: int,
        ragged: bool = False,
        activation: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.ghost_size, self.ragged = whole("ghost_size", ghost_size, 1), ragged
        self.activation = known_activation(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        self._check_input_dim(input)
        running_mean, running_var, num_batches_tracked = running_statistics(self)
        return ghost_batch_norm(
            input,
            running_mean,
            running_var,
            *weight_and_bias(self),
            self.training or running_mean is None,
            self.momentum,
            self.eps,
            ghost_size=self.ghost_size,
            ragged=self.ragged,
            residual=residual,
            activation=self.activation,
            num_batches_tracked=num_batches_tracked,
        )

    def extra_repr(self) -> str:
        """Batch norm's, with the virtual batches."""
        ragged = ", ragged=True" if self.ragged else ""
        return with_activation(
            f"{super().extra_repr()}, ghost_size={self.ghost_size}{ragged}", self.activation
        )


class GhostBatchNorm1d(_GhostBatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) in training within virtual batches of `ghost_size` samples.

    A large batch then has the noise, and the generalisation, of small ones. Inference is batch norm's.

    State: as `BatchNorm1d`'s, with whose checkpoints its own are exchangeable: weight, bias, running_mean,
    running_var (C,), and num_batches_tracked, which counts virtual batches. The running statistics move once
    for each of them, in order; running_var takes the *unbiased* variance of a virtual batch.

    Args:
        args: those of `torch.nn.BatchNorm1d`.
        ghost_size: samples in a virtual batch, which must divide every batch in training; the paper's is 128.
        ragged: let what is left over at the end of a batch be one smaller virtual batch.
        activation: what follows, computed in the same operator.
    Raises:
        OptionError: a ghost_size below 1, or an unknown activation.
    References:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741.
    Example:
        >>> GhostBatchNorm1d(3, ghost_size=2)(torch.randn(4, 3)).shape
        torch.Size([4, 3])
    """

    _check_input_dim = torch.nn.BatchNorm1d._check_input_dim


class GhostBatchNorm2d(_GhostBatchNorm):
    """Ghost batch normalisation of (N, C, H, W). See `GhostBatchNorm1d`."""

    _check_input_dim = torch.nn.BatchNorm2d._check_input_dim


class GhostBatchNorm3d(_GhostBatchNorm):
    """Ghost batch normalisation of (N, C, D, H, W). See `GhostBatchNorm1d`."""

    _check_input_dim = torch.nn.BatchNorm3d._check_input_dim
