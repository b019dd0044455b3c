"""Ghost batch normalisation as a function."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from normwright.errors import ShapeError
from normwright.functional import operators
from normwright.functional.arguments import whole
from normwright.functional.batch_norm import batch_norm, check_call, check_running, one_value_per_channel
from normwright.functional.moving import Running, move_under_transforms


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
    in order, as if each had been a batch of its own; so `num_batches_tracked` counts virtual batches. Under
    `torch.func` they move as `batch_norm`'s.

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
    ghost_size = whole("ghost_size", ghost_size, 1)
    affine = (weight, bias)
    if not training:
        fused = {"residual": residual, "activation": activation}
        call = (input, running_mean, running_var, *affine, False, momentum, eps)
        return batch_norm(*call, **fused)  # type: ignore[arg-type]
    vectors = (running_mean, running_var, *affine)
    check_call("batch_norm", input, residual, vectors, activation, eps, training=True)
    check_running(running_mean, running_var, momentum, num_batches_tracked)
    _check_virtual_batches(input, ghost_size, ragged)
    sizes, space = _virtual_batches(input.shape[0], ghost_size), input.shape[2:].numel()
    spans = [(part, part * ghost_size * space, size * space) for part, size in enumerate(sizes)]
    inputs = (input, residual, *affine, torch.tensor(spans, device="cpu"))
    y, moments = operators.parts(*inputs, len(sizes), eps, activation)
    running = (running_mean, running_var, num_batches_tracked)
    move = partial(_move, running, momentum, [size * space for size in sizes])
    move_under_transforms(move, running, moments)
    return y


def _virtual_batches(samples: int, ghost_size: int) -> list[int]:
    """The samples of each; an empty batch is a virtual one."""
    return [min(ghost_size, samples - first) for first in range(0, max(samples, 1), ghost_size)]


@torch.no_grad()
def _move(running: Running, momentum: float | None, counts: list[int], moments: Tensor) -> None:
    """Moves the running statistics by one virtual batch of `counts` elements per channel after the other.

        running = (1 - momentum)^G·running + Σ momentum·(1 - momentum)^(G - 1 - k)·moment_k,

    or the cumulative mean, in which every batch has the same share. moments are (3, G, C). As
    in batch norm, an empty batch is counted, and moves nothing.
    """
    running_mean, running_var, num_batches_tracked = running
    batches = len(counts)
    if num_batches_tracked is not None:
        num_batches_tracked.add_(batches)
    if not counts[0] or running_mean is None or running_var is None:
        return
    share, keep = _shares(momentum, num_batches_tracked, batches, moments.dtype)
    decays = [1.0 if momentum is None else (1 - momentum) ** age for age in reversed(range(batches))]
    unbiased = [decay * count / max(count - 1, 1) for decay, count in zip(decays, counts, strict=True)]
    shares = moments.new_tensor([decays, unbiased]).unsqueeze(2) * share
    for statistic, moment in zip((running_mean, running_var), (shares * moments[::2]).sum(1), strict=True):
        statistic.copy_(moment + statistic.to(moment.dtype) * keep)


def _shares(
    momentum: float | None, num_batches_tracked: Tensor | None, batches: int, dtype: torch.dtype
) -> tuple[float | Tensor, float | Tensor]:
    """Of the last of so many batches, and of what was known before them."""
    if momentum is not None:
        return momentum, (1 - momentum) ** batches
    assert num_batches_tracked is not None
    share = num_batches_tracked.to(dtype).reciprocal()
    return share, 1 - batches * share


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
