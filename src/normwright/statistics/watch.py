"""Takes the place of a network's batch-norm and instance-norm calls while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from normwright.backends.devices import check_devices
from normwright.errors import OptionError, ShapeError
from normwright.functional.moving import stands_for_several
from normwright.functional.whitening.autograd import Rule
from normwright.functional.whitening_norm import whiten_by
from normwright.statistics.layers import Layer, Layers


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a normaliser, whoever wrote it.

    Args:
        x: (N, C, *space).
        running_mean, running_var: (C,), or None; of whitening, (G, d, d) covariances for the variances.
        per_sample: the call is instance norm's.
        whitening: how a covariance becomes the projection that it normalises by; None where it does not.
    """

    x: Tensor
    residual: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float
    activation: str | None = None
    per_sample: bool = False
    whitening: Rule | None = None


Normalise = Callable[[Layer, Call], Tensor]


class Watch(TorchFunctionMode):
    """Inside the context, every call with the statistics of a layer is answered by `normalise`.

    A call is known by the buffers that it uses, not by the module that makes it: subclasses, functional
    calls and fused normalisers come the same way, and the network is not changed for it.

    Args:
        layers: whose calls; others go their own way.
        normalise: the call's y.
    """

    def __init__(self, layers: Layers, normalise: Normalise) -> None:
        super().__init__()
        self._layers = layers
        self._normalise = normalise

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """PyTorch's way in: every function of it that is called inside the context."""
        read = _READERS.get(func)
        if read is not None:
            call = read(*args, **(kwargs or {}))
            layer = self._layers.of_call(call.running_mean, call.running_var, per_sample=call.per_sample)
            if layer is not None and call.x.is_floating_point():
                _check_one(layer, call)
                _check_channels(layer, call)
                check_devices((call.x, call.weight, call.bias, call.running_mean, call.running_var))
                return _answer(func, self._normalise(layer, call), args)
        return func(*args, **(kwargs or {}))


def _check_one(layer: Layer, call: Call) -> None:
    """Its moments are of one batch, whose values can be asked for."""
    if stands_for_several(call.x):
        raise OptionError(
            f"layer {layer.name!r} ({layer.kind}) must be given one batch, but is called under torch.vmap, "
            "which gives it several as one; no statistics were changed. Call the network without vmap by "
            "forward_fn="
        )


def _check_channels(layer: Layer, call: Call) -> None:
    """As PyTorch does where it normalises itself; a lone statistic would be spread over all channels."""
    channels = 0 if call.running_mean is None else call.running_mean.numel()
    if call.x.dim() < 2 or call.x.shape[1] != channels:
        raise ShapeError(
            f"layer {layer.name!r} ({layer.kind}) must be given (N, {channels}, ...), as many channels as it "
            f"keeps statistics of, but was given {tuple(call.x.shape)}; no statistics were changed. See "
            "whether the batches are of the kind that the network was trained on"
        )


def _batch_norm(
    input: Tensor,  # noqa: A002  # as PyTorch calls it
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Call:
    return Call(input, None, weight, bias, running_mean, running_var, eps)


def _instance_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Call:
    return Call(input, None, weight, bias, running_mean, running_var, eps, per_sample=True)


def _torch_batch_norm(
    input: Tensor,  # noqa: A002
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Call:
    return Call(input, None, weight, bias, running_mean, running_var, eps)


def _torch_instance_norm(
    input: Tensor,  # noqa: A002
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Call:
    return Call(input, None, weight, bias, running_mean, running_var, eps, per_sample=True)


def _channel_affine(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    activation: str | None,
    out: Tensor | None = None,
) -> Call:
    return Call(x, residual, weight, bias, mean, variance, eps, activation)


def _channels_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    momentum: float | None,
    eps: float,
    activation: str | None,
) -> Call:
    return Call(x, residual, weight, bias, running_mean, running_var, eps, activation)


def _whitening_norm(
    x: Tensor,
    mean: Tensor,
    covariance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    rule: Rule,
) -> Call:
    return Call(x, None, weight, bias, mean, covariance, rule.eps, whitening=rule)


_OURS = torch.ops.normwright

_READERS: dict[Any, Callable[..., Call]] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    torch.batch_norm: _torch_batch_norm,
    torch.instance_norm: _torch_instance_norm,
    # as the module of an exported program calls them
    torch.ops.aten.batch_norm.default: _torch_batch_norm,
    torch.ops.aten.instance_norm.default: _torch_instance_norm,
    _OURS.channel_affine.default: _channel_affine,
    _OURS.channel_affine_out.default: _channel_affine,
    _OURS.channels_forward.default: _channels_forward,
    whiten_by: _whitening_norm,
}


def _answer(func: Any, y: Tensor, args: tuple[Any, ...]) -> Any:
    """y in the form in which the function gives it."""
    if func is _OURS.channel_affine_out.default:
        args[-1].copy_(y)
        return None
    if func is _OURS.channels_forward.default:
        return y, y.new_empty((2, y.shape[1]), dtype=torch.float64)  # moments: only a backward reads them
    return y
