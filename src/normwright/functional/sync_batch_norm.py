"""Batch normalisation over the batches of several processes, as a function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.backends.merged import Merged, move_running
from normwright.errors import OptionError, ShapeError
from normwright.functional.batch_norm import batch_norm, check_call, check_running, one_value_per_channel
from normwright.functional.collectives import joined_moments, ranks_of
from normwright.functional.forward_mode import has_tangent
from normwright.functional.moving import Running, move_under_transforms, stands_for_several
from normwright.functional.pipelined import differentiate_if_pipelined
from normwright.functional.sharded import check_not_sharded
from normwright.functional.synchronised import Synchronised


def sync_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    process_group: Any | None = None,
    residual: Tensor | None = None,
    activation: str | None = None,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    """Normalises each channel by its mean and variance over the batches of all processes together.

        y = activation((x - mean)/√(variance + eps)·weight + bias + residual)

    It is `batch_norm` on the batches laid end to end, of which each process has its share: shares may be
    unequal, and empty. Count, mean and M2 of the shares are merged by Chan's formula in the order of the
    ranks, with the same bits on every process. One collective in the forward and, where a gradient of input
    is asked for, one in the backward; none in inference, nor where the group is this process alone. The
    gradients of weight and bias are those of this process's share, as DistributedDataParallel wants them.

    Every process of the group has to make the call, and its backward, in the same order. Where one does not,
    the others raise when the group's time limit is over, or at once if its connection breaks.

    Args:
        input: (N, C) or (N, C, *space), floating point, any memory format; N and space may differ between
            processes, C and the dtype may not.
        running_mean: (C,), or None; needed in inference. Moved in place in training.
        running_var: (C,), or None; with running_mean. Takes the *unbiased* variance.
        weight: (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        training: normalise by the moments of the processes' batches.
        momentum: share of this batch in the running statistics; None takes 1/num_batches_tracked.
        eps: added to the variance; same unit as input².
        process_group: of torch.distributed; None for all processes.
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
        num_batches_tracked: integer scalar, raised by one in training; needed where momentum is None.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: no channel, a vector that is not (C,), or one value per channel over all processes.
            The last is found on the CPU alone, and not under `torch.compile`, where asking would wait for
            the device; there such a batch gives bias (plus residual), and leaves the running statistics.
        OptionError: running statistics that are half given or missing, or eps below 0, or 0 in training;
            under `torch.vmap`, or where a forward-mode derivative is asked for.
        DtypeError: an input that is not floating point, or parameters of another dtype.
        RuntimeError: another process failed, or did not come within the group's time limit.
    References:
        Peng et al. 2018, arXiv:1711.07240; Ioffe & Szegedy 2015, arXiv:1502.03167.
    Example:
        >>> x = torch.tensor([[1.0], [3.0]])  # of one process, without a group
        >>> sync_batch_norm(x, None, None, training=True, eps=1e-12)
        tensor([[-1.],
                [ 1.]])
    """
    ranks = ranks_of(process_group) if training else None
    if ranks is None:
        call = (input, running_mean, running_var, weight, bias, training, momentum, eps)
        fused = {"residual": residual, "activation": activation, "num_batches_tracked": num_batches_tracked}
        return batch_norm(*call, **fused)  # type: ignore[arg-type]
    if type(input) is not Tensor:
        check_not_sharded("synchronised batch norm", input)
    _check_derivatives(input, residual, weight, bias)
    vectors = (running_mean, running_var, weight, bias)
    check_call("batch_norm", input, residual, vectors, activation, eps, training=True)
    check_running(running_mean, running_var, momentum, num_batches_tracked)
    if not input.shape[1]:
        raise ShapeError(
            "SyncBatchNorm number of input channels should be non-zero: the input has no channel"
        )
    if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
        differentiate_if_pipelined()
        batch = joined_moments(input, ranks)
    else:
        batch = joined_moments(input.detach(), ranks)
    _check_count(batch, input)
    _move(batch, (running_mean, running_var, num_batches_tracked), momentum)
    moments = (batch.mean, batch.variance, batch.count)
    y: Tensor = Synchronised.apply(input, residual, weight, bias, *moments, eps, activation, ranks)
    return y


def _move(batch: Merged, running: Running, momentum: float | None) -> None:
    """Moves the running statistics, under transforms too."""

    def move(count: Tensor, mean: Tensor, m2: Tensor) -> None:
        move_running(Merged(count, mean, m2), *running, momentum)

    move_under_transforms(move, running, batch.count, batch.mean, batch.m2)


def _check_derivatives(*tensors: Tensor | None) -> None:
    """Those that are asked for are known: collectives take neither a batch of `vmap` nor a tangent."""
    if stands_for_several(*tensors) or has_tangent(*tensors):
        raise OptionError(
            "synchronised batch norm must not be mapped over (torch.vmap), nor differentiated in forward "
            "mode (torch.func.jvp, torch.autograd.forward_ad), which no collective is: take gradients by "
            "backward() or torch.func.grad, or have each process normalise its own batch, by batch norm"
        )


def _check_count(batch: Merged, x: Tensor) -> None:
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return
    if float(batch.count) == 1:
        raise one_value_per_channel(f"input size {x.shape}, and 1 over all processes")
