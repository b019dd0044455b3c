"""Batch normalisation of padded sequences, as a module. See `functional.masked_batch_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.errors import OptionError, ShapeError
from normwright.functional import batch_norm, masked_batch_norm
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.batch_norm import running_statistics
from normwright.nn.parameters import weight_and_bias
from normwright.nn.signature import full_signature


@full_signature
class MaskedBatchNorm1d(torch.nn.BatchNorm1d):
    """Batch normalisation of padded sequences (N, C, L), in which padding counts for nothing.

    It computes what batch norm of the joined unpadded sequences does, and 0 at padding. Without a mask it is
    `BatchNorm1d`, with whose checkpoints its own are exchangeable.

    The constructor is `torch.nn.BatchNorm1d`'s, with `activation=` (keyword only) added.

    Example:
        >>> norm = MaskedBatchNorm1d(3)
        >>> norm(torch.randn(2, 3, 5), lengths=torch.tensor([5, 2]))[1, :, 2:].abs().max()
        tensor(0., grad_fn=<MaxBackward1>)
    """

    activation: str | None = None

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = known_activation(activation)

    def forward(
        self,
        input: Tensor,
        mask: Tensor | None = None,
        residual: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Returns y of input's shape.

        Args:
            input: (N, C, L); (N, C) too, without a mask.
            mask: (N, L), boolean; True where an element counts.
            residual: input's shape, added before the activation.
            lengths: (N,), integers, how long each sequence is, instead of a mask.
        Raises:
            ShapeError: a mask or lengths of another shape, or nothing that counts.
            OptionError: mask and lengths.
        """
        if mask is not None and lengths is not None:
            raise OptionError("lengths= and mask= say the same: pass one of them")
        self._check_input_dim(input)
        if lengths is not None:
            mask = mask_of(input, lengths)
        running_mean, running_var, num_batches_tracked = running_statistics(self)
        call: tuple[Any, ...] = (
            running_mean,
            running_var,
            *weight_and_bias(self),
            self.training or running_mean is None,
            self.momentum,
            self.eps,
        )
        options: dict[str, Any] = {
            "residual": residual,
            "activation": self.activation,
            "num_batches_tracked": num_batches_tracked,
        }
        if mask is None:
            return batch_norm(input, *call, **options)
        return masked_batch_norm(input, mask, *call, **options)

    def extra_repr(self) -> str:
        """`torch.nn`'s, with the activation where there is one."""
        return with_activation(super().extra_repr(), self.activation)


def mask_of(x: Tensor, lengths: Tensor) -> Tensor:
    """(N, L), true at the first `lengths` positions of each sequence of x (N, C, L).

    Raises:
        ShapeError: lengths that are not (N,) integers, or reach beyond L.
    """
    lengths = torch.as_tensor(lengths, device=x.device)
    if lengths.shape != x.shape[:1] or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ShapeError(
            f"lengths must be ({x.shape[0]},), an integer for each sequence, but is {lengths.dtype} of shape "
            f"{list(lengths.shape)}"
        )
    longest = x.shape[-1]
    if not torch.compiler.is_compiling() and len(lengths):
        least, most = int(lengths.min()), int(lengths.max())
        if least < 0 or most > longest:
            raise ShapeError(
                f"lengths must lie between 0 and {longest}, how long the batch is, but reach from {least} to "
                f"{most}"
            )
    return torch.arange(longest, device=x.device) < lengths.unsqueeze(1)
