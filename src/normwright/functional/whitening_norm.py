"""Whitening as a function."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from normwright.backends.activation import ACTIVATIONS
from normwright.backends.moments import share_of_batch
from normwright.errors import OptionError, ShapeError, unknown_name
from normwright.functional.arguments import check_running_dtype, whole
from normwright.functional.autocasting import without_autocast
from normwright.functional.batch_norm import check_call, check_momentum
from normwright.functional.moving import Running, move_under_transforms
from normwright.functional.sharded import check_not_sharded
from normwright.functional.whitening.autograd import Rule, project, whiten
from normwright.functional.whitening.inference import projection_by

METHODS = ("zca", "iterative")


def whitening_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_covariance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    group_size: int,
    method: str = "zca",
    iterations: int = 5,
    residual: Tensor | None = None,
    activation: str | None = None,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    """Centres each group of channels and multiplies it by the inverse root of its covariance.

        y = activation(P·(x - mean)·weight + bias + residual),    P = (Σ + eps·I)^(-1/2)

    In training, mean and Σ are those of this batch over its m = N·space positions, Σ *biased*, the mean of
    products over m; the running mean and the running covariance move in place towards its mean and its
    *unbiased* covariance, m/(m - 1)·Σ, as batch norm's running variance does: running =
    (1 - momentum)·running + momentum·batch. In inference they are the running ones. "zca" is the exact root,
    by eigenvalues; "iterative" comes near it by Newton's and Schulz's iteration, in the directions of small
    variance last. Groups are of neighbouring channels; groups of one are batch norm's.

    Covariances are summed in float32 (float64 where the input is) within a piece of the batch, and over the
    pieces in float64, as are all operations on them. Under `torch.func` running statistics move as
    `batch_norm`'s.

    Args:
        input: (N, C) or (N, C, *space), floating point, any memory format.
        running_mean: (C,), or None; needed in inference. Moved in place in training.
        running_covariance: (C/group_size, group_size, group_size), or None; with running_mean. Keep it in
            float32 or wider: half precision's rounding is more than the variance of many a direction.
        weight: (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        training: whiten by this batch's moments.
        momentum: share of this batch in the running statistics; None takes 1/num_batches_tracked, the
            cumulative mean over all batches.
        eps: added to the variances; same unit as input². It decides how far a direction of no variance (a
            constant channel, two that are alike) is scaled up: by 1/√eps.
        group_size: channels in a group; divides C, and is less than m in training.
        method: "zca" or "iterative".
        iterations: of the latter, at least 1.
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
        num_batches_tracked: integer scalar, raised by one in training; needed where momentum is None.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: a group that does not divide the channels, or of as many channels as there are positions
            or more, or a vector or covariance of another shape.
        OptionError: running statistics that are half given or missing, another method, or eps below 0, or 0
            in training.
        DtypeError: an input that is not floating point, or parameters of another dtype.
    References:
        Huang et al. 2018, "Decorrelated batch normalization", arXiv:1804.08450.
        Huang et al. 2019, "Iterative normalization", arXiv:1904.03441.
    Example:
        >>> x = torch.tensor([[3.0, 3.0], [1.0, -1.0], [-1.0, 1.0], [-3.0, -3.0]])
        >>> y = whitening_norm(x, None, None, training=True, eps=1e-12, group_size=2)
        >>> (y.T @ y / 4).round(decimals=4).abs()
        tensor([[1., 0.],
                [0., 1.]])
    """
    if type(input) is not Tensor:
        check_not_sharded("whitening", input)
    check_call(
        "whitening_norm", input, residual, (running_mean, None, weight, bias), activation, eps,
        training=training,
    )  # fmt: skip
    check_momentum(momentum)
    group_size, iterations = known_sizes(input.shape[1], group_size, method, iterations)
    _check_running(input, running_mean, running_covariance, group_size)
    # A tensor that is written later would change what is kept of it.
    rule = Rule(group_size, float(eps), method, iterations)
    with without_autocast(input.device):  # covariances would be rounded to half precision
        if not training:
            if running_mean is None or running_covariance is None:
                raise OptionError(
                    "running_mean and running_covariance must be defined in evaluation mode, but are None: "
                    "pass them, or training=True to use this batch's"
                )
            y = whiten_by(input, running_mean, running_covariance, weight, bias, rule)
        else:
            y = _trained(
                input, running_mean, running_covariance, weight, bias, momentum, rule, num_batches_tracked
            )
        if residual is not None:
            y = (y + residual).to(y.dtype)
        return y if activation is None else ACTIVATIONS[activation].value(y)


def whiten_by(
    x: Tensor,
    mean: Tensor,
    covariance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    rule: Rule,
) -> Tensor:
    """Inference: a call that what watches PyTorch's functions (`torch.overrides`) is told of."""
    if has_torch_function_unary(x):
        call = (x, mean, covariance, weight, bias, rule)
        watched: Tensor = handle_torch_function(whiten_by, (x,), *call)
        return watched
    if not x.numel():
        return torch.empty_like(x)
    return project(x, mean, projection_by(covariance, rule), weight, bias)


def _trained(
    x: Tensor,
    running_mean: Tensor | None,
    running_covariance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float | None,
    rule: Rule,
    num_batches_tracked: Tensor | None,
) -> Tensor:
    if momentum is None and running_mean is not None and num_batches_tracked is None:
        raise OptionError(
            "momentum=None takes the mean over all batches and needs num_batches_tracked, which is None"
        )
    positions = x.numel() // max(x.shape[1], 1)
    if x.numel() and positions <= rule.group_size:
        raise ShapeError(
            f"Expected more than {rule.group_size} values per channel when training, as many as a group of "
            f"{rule.group_size} channels has and one more, got input size {x.shape}: the covariance of fewer "
            "has directions of no variance. Use larger batches (drop a ragged last one), smaller groups by "
            "group_size=, or eval() for the running statistics"
        )
    running = (running_mean, running_covariance, num_batches_tracked)
    move = partial(_move, running, momentum, positions)
    if not x.numel():
        move_under_transforms(move, running)
        return project(x, x.new_zeros(x.shape[1]), _identities(x, rule.group_size), weight, bias)
    whitened = whiten(x, weight, bias, rule)
    move_under_transforms(move, running, whitened.mean, whitened.covariance)
    return whitened.y


@torch.no_grad()
def _move(running: Running, momentum: float | None, positions: int, *moments: Tensor) -> None:
    """Towards a batch's mean and biased covariance; an empty one, which has none, is counted."""
    running_mean, running_covariance, num_batches_tracked = running
    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
    if not moments or running_mean is None or running_covariance is None:
        return
    mean, covariance = moments
    share = share_of_batch(momentum, num_batches_tracked, mean.dtype)
    unbiased = covariance * (positions / (positions - 1))
    for statistic, batch in ((running_mean, mean), (running_covariance, unbiased)):
        statistic.copy_(batch * share + statistic.to(batch.dtype) * (1 - share))


def _identities(x: Tensor, group_size: int) -> Tensor:
    return torch.eye(group_size, device=x.device).repeat(x.shape[1] // group_size, 1, 1)


def known_sizes(channels: int, group_size: int, method: str, iterations: int) -> tuple[int, int]:
    """group_size and iterations as ints, once groups divide the channels, and the method is offered."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    group_size, iterations = whole("group_size", group_size, 1), whole("iterations", iterations, 1)
    if channels % group_size:
        divisors = ", ".join(str(d) for d in range(1, channels + 1) if channels % d == 0)
        raise ShapeError(
            f"group_size must divide the {channels} channels, but is {group_size}: take one of {divisors}"
        )
    return group_size, iterations


def _check_running(
    x: Tensor, running_mean: Tensor | None, running_covariance: Tensor | None, group_size: int
) -> None:
    if (running_mean is None) != (running_covariance is None):
        raise OptionError("running_mean and running_covariance must either both be None or neither be None")
    if running_covariance is None:
        return
    expected = (x.shape[1] // group_size, group_size, group_size)
    if running_covariance.shape != expected:
        raise ShapeError(
            f"running_covariance must have shape {list(expected)}, a square matrix for each group of "
            f"{group_size} channels, but has shape {list(running_covariance.shape)}"
        )
    check_running_dtype("running_covariance", running_covariance)
