"""Takes weight normalisation off a module, and leaves the weight that it computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

import normwright.nn as ours
from normwright.errors import OptionError

_PARAMETRIZATIONS = (_WeightNorm, ours.WeightNorm, ours.WeightStandardization)


def weight_normed(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's weights that are weight-normed, by PyTorch's ways or ours, or standardised.

    Example:
        >>> weight_normed(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)))
        ('weight',)
    """
    hooked = [hook.name for hook in module._forward_pre_hooks.values() if isinstance(hook, WeightNorm)]
    return (*hooked, *_parametrized(module))


def remove_weight_norm(module: nn.Module) -> tuple[str, ...]:
    """Makes every weight-normed or standardised weight of a module a plain parameter, in place.

        weight = g·v/‖v‖, or (v − mean)/√(variance + eps)

    The values are those that the module computed with, to the bit, in their dtype; a weight requires a
    gradient if g or v did. The module has its own class again, and takes its place in `state_dict` as before.

    Args:
        module: itself, not what is inside it.
    Returns:
        Names of the weights; none where there was no weight norm.
    Raises:
        OptionError: a weight has other parametrizations beside; nothing was changed.
    References:
        Salimans & Kingma 2016, arXiv:1602.07868.
    Example:
        >>> linear = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
        >>> remove_weight_norm(linear), list(linear.state_dict())
        (('weight',), ['weight', 'bias'])
    """
    names = weight_normed(module)
    for name in _parametrized(module):
        chain = module.get_submodule(f"parametrizations.{name}")
        others = [type(part).__name__ for part in chain.children() if not isinstance(part, _PARAMETRIZATIONS)]
        if others:
            raise OptionError(
                f"{name} must have no parametrization but its weight norm, but has {', '.join(others)} too: "
                "remove that first, with torch.nn.utils.parametrize.remove_parametrizations"
            )
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm):
            with torch.no_grad():
                weight: Tensor = hook.compute_weight(module)
            del module._forward_pre_hooks[key]
            module.__dict__.pop(hook.name, None)
            parts = [module._parameters.pop(f"{hook.name}_{part}") for part in ("g", "v")]
            trained = any(part is not None and part.requires_grad for part in parts)
            setattr(module, hook.name, nn.Parameter(weight, requires_grad=trained))
    for name in _parametrized(module):
        chain = module.get_submodule(f"parametrizations.{name}")
        trained = any(original.requires_grad for original in chain.parameters())
        _unshare_class(module)
        parametrize.remove_parametrizations(module, name)
        value = getattr(module, name).detach().clone()
        delattr(module, name)
        setattr(module, name, nn.Parameter(value, requires_grad=trained))
    if names:
        _first(module, names)
    return names


def _unshare_class(module: nn.Module) -> None:
    """Gives a parametrized module a class of its own, which its deep copies would else lose the weight of."""
    kind = type(module)
    members = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    object.__setattr__(module, "__class__", type(kind.__name__, kind.__bases__, members))


def _parametrized(module: nn.Module) -> tuple[str, ...]:
    """Names of the weights with a weight norm among their parametrizations."""
    if not parametrize.is_parametrized(module):
        return ()
    chains: nn.ModuleDict = module.parametrizations  # type: ignore[assignment]
    return tuple(
        name
        for name, chain in chains.items()
        if any(isinstance(part, _PARAMETRIZATIONS) for part in chain)  # type: ignore[attr-defined]
    )


def _first(module: nn.Module, names: tuple[str, ...]) -> None:
    """Puts parameters before the others, where a layer has its weight."""
    own = module._parameters
    for name in [*names, *(name for name in list(own) if name not in names)]:
        own[name] = own.pop(name)
