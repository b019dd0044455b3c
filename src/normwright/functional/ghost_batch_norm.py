"""Ghost batch normalisation as a function."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.errors import OptionError, ShapeError
from normwright.functional import operators
from normwright.functional.batch_norm import batch_norm, check_call, check_running, one_value_per_channel

# running_mean, running_var and num_batches_tracked.
Running = tuple[Tensor | None, Tensor | None, Tensor | None]


def ghost_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    ghost_size: int,
    ragged: bool = False,
    residual: Tensor | None = None,
    activation: str | None = None,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    """Normalises each channel by its moments within virtual batches of `ghost_size` samples.

        y = batch_norm(x of each virtual batch),    the first ghost_size samples, the next, …

    in training; inference is that of `batch_norm`. The running statistics move once for every virtual batch,
    in order, as if each had been a batch of its own; so `num_batches_tracked` counts virtual batches.

    Args:
        input: (N, C) or (N, C, *space), floating point, any memory format.
        running_mean: (C,), or None; needed in inference. Moved in place in training.
        running_var: (C,), or None; with running_mean. Takes the *unbiased* variance of a virtual batch.
        weight: (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        training: normalise by the moments of virtual batches.
        momentum: share of one virtual batch in the running statistics; None takes 1/num_batches_tracked, the
            cumulative mean over all virtual batches.
        eps: added to the variance; same unit as input².
        ghost_size: samples in a virtual batch; divides N.
        ragged: let what is left over at the end of a batch be one smaller virtual batch.
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
        num_batches_tracked: integer scalar, raised in training; needed where momentum is None.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: ghost_size does not divide N in training (unless `ragged`), one value per channel in a
            virtual batch, or a vector that is not (C,).
        OptionError: a ghost_size below 1; running statistics that are half given or missing; or eps below 0,
            or 0 in training.
        DtypeError: an input that is not floating point, or parameters of another dtype.
    References:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, algorithm 1.
    Example:
        >>> x = torch.tensor([[1.0], [3.0], [10.0], [30.0]])
        >>> ghost_batch_norm(x, None, None, training=True, eps=1e-12, ghost_size=2).flatten()
        tensor([-1.,  1., -1.,  1.])
    """
    check_ghost_size(ghost_size)
    affine = (weight, bias)
    if not training:
        fused = {"residual": residual, "activation": activation}
        return batch_norm(input, running_mean, running_var, *affine, eps=eps, **fused)  # type: ignore[arg-type]
    vectors = (running_mean, running_var, *affine)
    check_call("batch_norm", input, residual, vectors, activation, eps, training=True)
    check_running(running_mean, running_var, momentum, num_batches_tracked)
    _check_virtual_batches(input, ghost_size, ragged)
    spans = _virtual_batches(input, ghost_size)
    inputs = (input, residual, *affine)
    y, moments, variance = operators.parts(*inputs, spans, len(spans), eps, activation)
    if input.numel():
        running = (running_mean, running_var, num_batches_tracked)
        _move(running, momentum, moments[0], variance, spans[:, 2].to(variance))
    return y


def _virtual_batches(x: Tensor, ghost_size: int) -> Tensor:
    """Their spans; an empty batch is a virtual one."""
    samples, size = x.shape[0], x.shape[2:].numel()
    first = torch.arange(0, max(samples, 1), ghost_size)
    return torch.stack([first // ghost_size, first * size, (samples - first).clamp_max(ghost_size) * size], 1)


@torch.no_grad()
def _move(running: Running, momentum: float | None, mean: Tensor, variance: Tensor, counts: Tensor) -> None:
    """Moves the running statistics by one virtual batch after the other; mean and variance are (G, C).

    running = (1 - momentum)^G·running + Σ momentum·(1 - momentum)^(G - 1 - k)·moment_k
    """
    running_mean, running_var, num_batches_tracked = running
    batches = mean.shape[0]
    if num_batches_tracked is not None:
        num_batches_tracked.add_(batches)
    if running_mean is None or running_var is None:
        return
    unbiased = variance * (counts / (counts - 1).clamp_min(1)).unsqueeze(1)
    for statistic, moments in ((running_mean, mean), (running_var, unbiased)):
        if momentum is None:
            assert num_batches_tracked is not None
            counted = num_batches_tracked.to(moments.dtype)
            moved = moments.sum(0) / counted + statistic.to(moments.dtype) * (1 - batches / counted)
        else:
            ages = torch.arange(batches - 1, -1, -1, dtype=moments.dtype, device=moments.device)
            shares = momentum * (1 - momentum) ** ages
            moved = shares @ moments + statistic.to(moments.dtype) * (1 - momentum) ** batches
        statistic.copy_(moved)


def check_ghost_size(ghost_size: int) -> None:
    """A virtual batch is a whole number of samples."""
    if isinstance(ghost_size, bool) or not isinstance(ghost_size, int) or ghost_size < 1:
        raise OptionError(f"ghost_size must be at least 1 and a whole number, but is {ghost_size!r}")


def _check_virtual_batches(x: Tensor, ghost_size: int, ragged: bool) -> None:
    samples, left_over = x.shape[0], x.shape[0] % ghost_size
    if left_over and not ragged:
        raise ShapeError(
            f"ghost_size must divide the batch in training, but {samples} samples are "
            f"{samples // ghost_size} virtual batches of {ghost_size} and {left_over} left over: take "
            "another ghost_size or batch size, drop a last batch that is smaller (drop_last=True of a "
            "DataLoader), or let the rest be a smaller virtual batch with ragged=True"
        )
    if x.shape[1] and x.numel() == samples * x.shape[1] and 1 in (ghost_size, left_over):
        raise one_value_per_channel(f"a virtual batch of one sample out of input size {x.shape}")
