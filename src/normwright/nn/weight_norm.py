"""Weight normalisation and weight standardisation as parametrisations of a layer's weight."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize

from normwright.errors import DataError, OptionError
from normwright.functional.weight_norm import check_eps, length, other_axes, standardise_weight
from normwright.functional.weight_norm import weight_norm as _normed

Module = TypeVar("Module", bound=nn.Module)


class WeightNorm(nn.Module):
    """w = g·v/‖v‖ as a parametrisation. See `weight_norm`.

    Example:
        >>> WeightNorm()(torch.ones(1, 1), torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """w, of v's shape."""
        return _normed(v, g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(g, v) that give a weight: its length and itself."""
        return length(weight, self.dim).to(weight.dtype), weight

    def extra_repr(self) -> str:
        """The axis of the outputs."""
        return f"dim={self.dim}"


class WeightStandardization(nn.Module):
    """w = (v - mean)/√(variance + eps) over the inputs of each output, as a parametrisation.

    See `weight_standardization`.

    Args:
        eps: added to the variance.
        dim: the axis of the outputs.
    Raises:
        OptionError: eps not above 0.
    References:
        Qiao et al. 2019, arXiv:1903.10520.
    Example:
        >>> WeightStandardization(eps=1e-12)(torch.tensor([[1.0, 3.0]]))
        tensor([[-1.,  1.]])
    """

    def __init__(self, eps: float = 1e-5, *, dim: int = 0) -> None:
        super().__init__()
        check_eps(eps)
        self.eps, self.dim = eps, dim

    def forward(self, weight: Tensor) -> Tensor:
        """The standardised weight, of weight's shape."""
        return standardise_weight(weight, self.eps, dim=self.dim)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What a weight that is assigned becomes: the one that is standardised."""
        return weight

    def extra_repr(self) -> str:
        """The options."""
        return f"eps={self.eps}, dim={self.dim}"


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Trains the length and the direction of a weight in place of the weight.

        w = g·v/‖v‖

    Called, removed and kept in a `state_dict` as `torch.nn.utils.parametrizations.weight_norm`: g and v are
    `module.parametrizations.weight.original0` and `original1`, checkpoints with weight_g and weight_v are
    read too, and `torch.nn.utils.parametrize.remove_parametrizations(module, "weight")` leaves w. Half types
    work. What the module computes stays the same, until `init_weight_norm_` starts it from data.

    Args:
        module: changed in place.
        name: of the weight.
        dim: the axis of the outputs: 0 in a linear layer or a convolution, 1 in a transposed convolution;
            None for one length in all.
    Returns:
        The module.
    Raises:
        OptionError: the module has no parameter of that name, or the weight no such axis.
    References:
        Salimans & Kingma 2016, arXiv:1602.07868.
    Example:
        >>> layer = weight_norm(nn.Linear(4, 3))
        >>> layer.parametrizations.weight.original0.shape
        torch.Size([3, 1])
    """
    other_axes(_parameter_of(module, name), dim)
    parametrize.register_parametrization(module, name, WeightNorm(dim), unsafe=True)
    # No function of this one's own, which stays when the parametrisation is removed, and keeps from pickling.
    module._register_load_state_dict_pre_hook(partial(_read_old_names, name))
    return module


def _read_old_names(name: str, state: dict[str, Any], prefix: str, *_: Any) -> None:
    g, v = f"{prefix}{name}_g", f"{prefix}{name}_v"
    if g in state and v in state:
        state[f"{prefix}parametrizations.{name}.original0"] = state.pop(g)
        state[f"{prefix}parametrizations.{name}.original1"] = state.pop(v)


def weight_standardization(module: Module, name: str = "weight", eps: float = 1e-5) -> Module:
    """Standardises a weight over the inputs of each output, whenever it is used.

        w = (v - mean(v))/√(variance(v) + eps)

    What the module computes changes: put a normaliser, such as group norm, after it. v is
    `module.parametrizations.weight.original`, and
    `torch.nn.utils.parametrize.remove_parametrizations(module, "weight")` leaves w.

    Args:
        module: a linear or convolution layer, transposed ones too; changed in place.
        name: of the weight.
        eps: added to the variance.
    Returns:
        The module.
    Raises:
        OptionError: the module has no parameter of that name, or eps is not above 0.
        ShapeError: an output with a single input.
    References:
        Qiao et al. 2019, arXiv:1903.10520.
    Example:
        >>> layer = weight_standardization(nn.Conv2d(3, 8, 3))
        >>> float(layer.weight.detach().mean().abs()) < 1e-6
        True
    """
    weight = _parameter_of(module, name)
    dim = 1 if isinstance(module, _ConvTransposeNd) else 0
    standardise_weight(weight.detach(), eps, dim=dim)
    parametrize.register_parametrization(module, name, WeightStandardization(eps, dim=dim), unsafe=True)
    return module


@torch.no_grad()
def init_weight_norm_(network: nn.Module, *batch: Any, **named: Any) -> None:
    """Starts every weight-normed linear or convolution layer so that its outputs on a batch are standardised.

        g ← g/σ,    b ← -μ/σ,    μ and σ of the outputs without bias, for each output channel

    layer by layer in one forward pass, each seeing what the layers before it give once they are started, as
    the paper starts a network. A channel that is constant over the batch keeps its g.

    Args:
        network: called as network(*batch, **named), in the mode that it is in.
        batch: a batch of training data.
        named: keyword arguments.
    Raises:
        OptionError: no layer of the network is weight-normed with a length for each output.
        DataError: a layer gives nothing for the batch, or what is not finite.
        Whatever the network raises; its weights are then as they were.
    References:
        Salimans & Kingma 2016, arXiv:1602.07868, section 3.
    Example:
        >>> layer = weight_norm(nn.Linear(4, 3))
        >>> x = torch.randn(64, 4) * 5 + 2
        >>> init_weight_norm_(layer, x)
        >>> torch.allclose(layer(x).std(0, correction=0), torch.ones(3))
        True
    """
    layers = [layer for layer in network.modules() if _length_of(layer) is not None]
    if not layers:
        raise OptionError(
            "the network must hold linear or convolution layers under weight_norm with a length for each "
            "output, but holds none: call weight_norm on its layers first"
        )
    before = {layer: [parameter.clone() for parameter in layer.parameters()] for layer in layers}
    started: set[nn.Module] = set()

    def start(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        if layer in started:  # used again: once is enough
            return output
        started.add(layer)
        return _started(layer, output)

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_hook(start).remove)
        try:
            network(*batch, **named)
        except BaseException:
            for layer, values in before.items():
                for parameter, value in zip(layer.parameters(), values, strict=True):
                    parameter.copy_(value)
            raise


def _started(layer: Any, output: Tensor) -> Tensor:
    axis = 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1
    if isinstance(layer, nn.modules.conv._ConvNd) and output.dim() == layer.weight.dim() - 1:
        axis = 0  # a single sample
    channels = output.movedim(axis, -1).flatten(0, -2).float()
    if not len(channels) or not bool(channels.isfinite().all()):
        came = "values that are not finite" if len(channels) else "no value"
        raise DataError(
            f"every layer must give finite values for the batch that it is started from, but one with a "
            f"weight {list(layer.weight.shape)} gives {came}: look at the batch"
        )
    bias = 0 if layer.bias is None else layer.bias.float()
    variance, mean = torch.var_mean(channels - bias, 0, correction=0)
    deviation = torch.where(variance > 0, variance.sqrt(), 1.0)
    g = _length_of(layer)
    assert g is not None
    g.copy_((g.float() / deviation.view(g.shape)).to(g.dtype))
    started = (channels - bias) / deviation
    if layer.bias is not None:
        layer.bias.copy_(-mean / deviation)
        started = started - mean / deviation
    shape = output.movedim(axis, -1).shape
    return started.view(shape).movedim(-1, axis).to(output.dtype)


def _length_of(layer: nn.Module) -> Tensor | None:
    """g of a layer under weight norm, with one length for each output."""
    if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) or not parametrize.is_parametrized(
        layer, "weight"
    ):
        return None
    parametrized: Any = layer.parametrizations["weight"]  # type: ignore[index]
    kind = parametrized[0]
    outputs = 1 if isinstance(layer, _ConvTransposeNd) else 0
    if len(parametrized) != 1 or not isinstance(kind, WeightNorm) or kind.dim != outputs:
        return None
    g: Tensor = parametrized.original0
    return g


def _parameter_of(module: nn.Module, name: str) -> Tensor:
    """The parameter of a module, once it is known to be one."""
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor) or (
        name not in module._parameters and not parametrize.is_parametrized(module, name)
    ):
        offered = ", ".join(name for name, _ in module.named_parameters(recurse=False)) or "none"
        raise OptionError(
            f"{type(module).__name__} must have a parameter {name!r} to be normalised, but has {offered}"
        )
    return weight
