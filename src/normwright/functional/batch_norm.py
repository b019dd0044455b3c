"""Batch normalisation as a function."""

from __future__ import annotations

import math

from torch import Tensor

from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.functional import operators
from normwright.functional.arguments import (
    check_channel_vectors,
    check_epilogue,
    check_eps,
    check_float,
    check_floating_point,
    check_parameter_dtypes,
    check_tensors,
    is_channel_vector,
    is_plain,
    is_statistic,
)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    num_batches_tracked: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Normalises each channel by its mean and variance over the batch and space.

        y = activation((x - mean)/√(variance + eps)·weight + bias + residual)

    In training, mean and variance are those of this batch, with the *biased* variance Σ(x - mean)²/m over
    the m = N·space elements of a channel, and the running statistics move towards it in place:
    running = (1 - momentum)·running + momentum·batch. The running variance takes the *unbiased* variance,
    m/(m - 1) times the biased one. In inference mean and variance are the running ones.

    Under the transforms of `torch.func` running statistics move as without them. Under `vmap`, per-sample
    gradients included, they move only where they are mapped over too, and else raise OptionError.

    Args:
        input: (N, C) or (N, C, *space), floating point, any memory format.
        running_mean: (C,), or None; needed in inference. Moved in place in training.
        running_var: (C,), or None; with running_mean.
        weight: (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        training: normalise by this batch's moments.
        momentum: share of this batch in the running statistics; None takes 1/num_batches_tracked, the
            cumulative mean over all batches.
        eps: added to the variance; same unit as input².
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
        num_batches_tracked: integer scalar, raised by one in training; needed where momentum is None.
        out: takes the result, in inference and without gradients; may be the input itself.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: one value per channel in training, or a vector that is not (C,).
        OptionError: running statistics that are half given or missing, or eps below 0, or 0 in training.
        DtypeError: an input that is not floating point, parameters of another dtype, or an eps or momentum
            that is no number.
    References:
        Ioffe & Szegedy 2015, arXiv:1502.03167.
    Example:
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> batch_norm(x, None, None, training=True, eps=1e-12)
        tensor([[-1.],
                [ 1.]])
    """
    plain = is_plain(input, residual, weight, bias, activation)
    if (
        not plain
        or type(eps) is not float
        or not 0 < eps < math.inf
        or not _has_channels(input, running_mean, running_var, weight, bias)
    ):
        vectors = (running_mean, running_var, weight, bias)
        check_call("batch_norm", input, residual, vectors, activation, eps, training=training)
    if not training:
        check_momentum(momentum)
        if running_mean is None or running_var is None:
            missing = "running_mean" if running_mean is None else "running_var"
            raise OptionError(
                f"{missing} must be defined in evaluation mode, but is None: pass the running statistics, "
                "or training=True to use this batch's"
            )
        return operators.affine(
            input, residual, weight, bias, running_mean, running_var, eps, activation, out
        )
    if out is not None:
        raise OptionError("out= must be None in training: the backward needs the input beside the output")
    check_running(running_mean, running_var, momentum, num_batches_tracked)
    if input.shape[1] and input.numel() == input.shape[1]:
        raise one_value_per_channel(f"input size {input.shape}")
    running = (running_mean, running_var, num_batches_tracked)
    return operators.channels(input, residual, weight, bias, *running, momentum, eps, activation)


def _has_channels(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> bool:
    """Whether `check_call` has nothing to say of their shapes."""
    shape = x.shape
    return (
        len(shape) > 1
        and is_statistic(running_mean, shape[1])
        and is_statistic(running_var, shape[1])
        and is_channel_vector(weight, shape[1])
        and is_channel_vector(bias, shape[1])
    )


def check_call(
    name: str,
    x: Tensor,
    residual: Tensor | None,
    vectors: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    activation: str | None,
    eps: float,
    *,
    training: bool,
) -> None:
    """What every call must satisfy; vectors are running_mean, running_var, weight and bias."""
    check_floating_point(name, x)
    running_mean, running_var, weight, bias = vectors
    check_tensors(name, x, 2, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    check_epilogue(x, residual, activation)
    check_eps(name, eps, training=training)
    if x.dim() < 2:
        raise ShapeError(
            "Dimension out of range (expected to be in range of [-1, 0], but got 1): batch norm takes "
            f"an input of shape (N, C, *space), but got {list(x.shape)}"
        )
    check_channel_vectors(x, *vectors)
    check_parameter_dtypes(x, weight, bias)


def check_running(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float | None,
    num_batches_tracked: Tensor | None,
) -> None:
    """The running statistics can be moved, or there are none."""
    check_momentum(momentum)
    if num_batches_tracked is not None and not isinstance(num_batches_tracked, Tensor):
        raise DtypeError(
            "num_batches_tracked must be an integer tensor, which is raised by one in place, but is "
            f"{num_batches_tracked!r}: use torch.tensor"
        )
    if (running_mean is None) != (running_var is None):
        raise OptionError("running_mean and running_var must either both be None or neither be None")
    if momentum is None and running_mean is not None and num_batches_tracked is None:
        raise OptionError(
            "momentum=None takes the mean over all batches and needs num_batches_tracked, which is None"
        )


def check_momentum(momentum: float | None) -> None:
    """It is a number, or None; a NaN would be all that is left of the running statistics."""
    if momentum is None or (type(momentum) is float and momentum == momentum):
        return
    check_float("batch_norm", "momentum", 7, momentum)
    if momentum != momentum:
        raise OptionError("batch_norm momentum must be a number or None, but got nan")


def one_value_per_channel(what_came: str) -> ShapeError:
    """The error for a batch of one element per channel."""
    return ShapeError(
        f"Expected more than 1 value per channel when training, got {what_came}: the variance "
        "of one value is unknown. Use a batch of two or more (drop a last batch of one), a normaliser "
        "that does not reduce over the batch (group or layer norm), or eval() for the running ones"
    )
