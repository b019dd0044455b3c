"""Ghost batch normalisation as a function."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.activation import ACTIVATIONS
from normwright.errors import OptionError, ShapeError
from normwright.functional import operators
from normwright.functional.batch_norm import batch_norm, check_call, check_running, one_value_per_channel
from normwright.functional.batch_parts import PartsOfBatch, takes_parts
from normwright.functional.instances import Mapped, batch_norms_map, normalise_instances

# Elements of a virtual batch from which calls for each are worth it.
_WORTH_A_CALL = 1 << 13

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
    running = (running_mean, running_var, num_batches_tracked)
    whole = input.shape[0] - input.shape[0] % ghost_size
    x = input if whole == input.shape[0] else input[:whole]
    one_by_one = (x, ghost_size, weight, bias, eps)
    if not whole:
        parts = []
    elif x.movedim(1, -1).is_contiguous():
        parts = [_by_groups(*one_by_one, running, momentum)]
    elif takes_parts(x) and x[0].numel() * ghost_size >= _WORTH_A_CALL:
        y, mean, variance = PartsOfBatch.apply(x, weight, bias, [ghost_size] * (whole // ghost_size), eps)
        _move(running, momentum, mean, variance, x.numel() // x.shape[1] * ghost_size // whole)
        parts = [y]
    else:
        parts = [_by_instances(*one_by_one, running, momentum)]
    if whole < input.shape[0] or not parts:
        rest = input[whole:]
        mean, variance, counted = running if rest.numel() else (None, None, None)
        moved = (mean, variance, weight, bias, True, momentum, eps)
        parts.append(batch_norm(rest, *moved, num_batches_tracked=counted))
    y = parts[0] if len(parts) == 1 else torch.cat(parts)
    if residual is not None:
        y = y + residual.to(y.dtype)
    return ACTIVATIONS[activation].value(y) if activation else y


def _by_groups(
    x: Tensor,
    ghost_size: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    running: Running,
    momentum: float | None,
) -> Tensor:
    """Of an input whose channels lie innermost: a virtual batch is one sample of an instance norm."""
    last = x.movedim(1, -1)
    channels = last.shape[-1]
    seen = last.reshape(-1, x.numel() // channels * ghost_size // x.shape[0], 1, channels).permute(0, 3, 1, 2)
    call = (seen, None, weight, bias, channels, eps, None)
    if running[0] is None:
        y = operators.groups(*call)
    else:
        y, moments = operators.groups_with_moments(*call)
        mean, rstd = moments
        _move(running, momentum, mean, (rstd.square().reciprocal() - eps).clamp_min(0), seen.shape[2])
    return y.permute(0, 2, 3, 1).reshape(last.shape).movedim(-1, 1)


def _by_instances(
    x: Tensor,
    ghost_size: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    running: Running,
    momentum: float | None,
) -> Tensor:
    """Of any other: the moments of a virtual batch are those of its instances, merged by Chan's formula."""
    batches = (-1, ghost_size, x.shape[1])

    def algebra(means: Tensor, variances: Tensor, weight: Tensor | None, bias: Tensor | None) -> Mapped:
        shape = means.shape
        means, variances = means.view(batches), variances.view(batches)
        mean = means.mean(1, keepdim=True)
        variance = variances.mean(1, keepdim=True) + (means - mean).square().mean(1, keepdim=True)
        parts = batch_norms_map(mean, variance, weight, bias, eps)
        wide = [part.expand(batches[0], ghost_size, -1).reshape(shape) for part in parts]
        return Mapped(wide[0], wide[1], wide[2], (mean.squeeze(1), variance.squeeze(1)))

    spaced = x if x.dim() > 2 else x.unsqueeze(2)
    y, (mean, variance) = normalise_instances(spaced, algebra, (weight, bias))
    _move(running, momentum, mean, variance, x.numel() * ghost_size // (x.shape[0] * x.shape[1]))
    return y.view(x.shape) if x.dim() == 2 else y


@torch.no_grad()
def _move(running: Running, momentum: float | None, mean: Tensor, variance: Tensor, count: int) -> None:
    """Moves the running statistics by one virtual batch after the other; mean and variance are (G, C).

    running = (1 - momentum)^G·running + Σ momentum·(1 - momentum)^(G - 1 - k)·moment_k
    """
    running_mean, running_var, num_batches_tracked = running
    batches = mean.shape[0]
    if num_batches_tracked is not None:
        num_batches_tracked.add_(batches)
    if running_mean is None or running_var is None:
        return
    unbiased = variance * (count / max(count - 1, 1))
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
