"""Instance normalisation as a function."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from normwright.backends.moments import moved, unbiased
from normwright.errors import OptionError, ShapeError
from normwright.functional import operators
from normwright.functional.arguments import (
    check_epilogue,
    check_float,
    check_floating_point,
    check_parameter_dtypes,
    check_running_dtype,
    check_tensors,
    is_channel_vector,
    is_plain,
)
from normwright.functional.moving import move_under_transforms


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Normalises each channel of each sample by its mean and variance over space.

        y = activation((x - mean)/√(variance + eps)·weight + bias + residual)

    The variance is biased; the running variance, if there is one, takes the *unbiased* variance, averaged
    over the samples of the batch. Under `torch.func` they move as `batch_norm`'s.

    Args:
        input: (N, C, *space), floating point, any memory format.
        running_mean: (C,), or None; moved in place where use_input_stats is true, used where it is false.
        running_var: (C,), or None; with running_mean.
        weight: (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        use_input_stats: normalise by the input's own moments; false takes the running ones.
        momentum: share of this batch in the running statistics.
        eps: added to the variance; same unit as input².
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
        out: takes the result where no gradient is wanted; may be the input itself.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: one spatial element, or a vector that is not (C,).
        OptionError: running statistics that are half given or missing.
        DtypeError: an input that is not floating point, parameters of another dtype, or an eps or momentum
            that is no number.
    References:
        Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022.
    Example:
        >>> instance_norm(torch.tensor([[[1.0, 3.0], [2.0, 6.0]]]), eps=1e-12)
        tensor([[[-1.,  1.],
                 [-1.,  1.]]])
    """
    plain = use_input_stats and is_plain(input, residual, weight, bias, activation)
    numbers = type(eps) is float and type(momentum) is float
    if not plain or not numbers or not _has_space(input, running_mean, running_var, weight, bias):
        check_float("instance_norm", "momentum", 7, momentum)
        check_float("instance_norm", "eps", 8, eps)
        check_floating_point("batch_norm", input)
        given = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
        check_tensors("instance_norm", input, 2, **given)
        check_epilogue(input, residual, activation)
        _check_instance(input, use_input_stats, running_mean, running_var, weight=weight, bias=bias)
        check_parameter_dtypes(input, weight, bias)
    if not use_input_stats:
        assert running_mean is not None
        assert running_var is not None
        return operators.affine(
            input, residual, weight, bias, running_mean, running_var, eps, activation, out
        )
    call = (input, residual, weight, bias, input.shape[1], eps, activation)
    if running_mean is None or running_var is None:
        return operators.groups(*call, out)
    if out is not None:
        raise OptionError("out= must be None where running statistics are moved, as in training")
    y, moments = operators.groups_with_moments(*call)
    if input.numel():
        move = partial(_move_running, input, running_mean, running_var, momentum, eps)
        move_under_transforms(move, (running_mean, running_var), moments)
    return y


@torch.no_grad()
def _move_running(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    moments: Tensor,
) -> None:
    mean, rstd = moments
    variance = rstd.square().reciprocal() - float(eps)
    count = _elements(x)
    means = moved(running_mean, mean.to(running_mean.dtype), momentum)
    variances = moved(running_var, unbiased(x, variance, count, running_var.dtype), momentum)
    running_mean.copy_(means.mean(0))
    running_var.copy_(variances.mean(0))


def _elements(x: Tensor) -> int:
    """How many a moment is taken of; in a loop, for `torch.compile` need not know `math.prod`."""
    count = 1
    for size in x.shape[2:]:
        count *= size
    return count


def _has_space(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> bool:
    """Whether `_check_instance` has nothing to say of a call without running statistics."""
    shape = x.shape
    return (
        running_mean is None
        and running_var is None
        and len(shape) > 2
        and _elements(x) != 1
        and is_channel_vector(weight, shape[1])
        and is_channel_vector(bias, shape[1])
    )


def _check_instance(
    x: Tensor,
    use_input_stats: bool,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    **parameters: Tensor | None,
) -> None:
    if use_input_stats and (x.dim() < 3 or _elements(x) == 1):
        raise ShapeError(
            f"Expected more than 1 spatial element when training, got input size {x.shape}: instance norm "
            "reduces over space alone. Use group, layer or batch norm here"
        )
    if not use_input_stats and (running_mean is None or running_var is None):
        raise OptionError("Expected running_mean and running_var to be defined when use_input_stats is false")
    if (running_mean is None) != (running_var is None):
        raise OptionError("running_mean and running_var must either both be None or neither be None")
    n, c = x.shape[:2]
    vectors = {"running_mean": running_mean, "running_var": running_var, **parameters}
    for name, vector in vectors.items():
        if vector is not None and vector.shape != (c,):
            # PyTorch sees N·C channels here and says so; its words are kept, ours follow.
            raise ShapeError(
                f"{name} should contain {n * c} elements not {n * vector.numel()} "
                f"(counted over the {n} samples: {c} per sample, one per channel, along one axis; the shape "
                f"is {list(vector.shape)})"
            )
        if vector is not None and name.startswith("running"):
            check_running_dtype(name, vector)
