"""The kinds of normaliser that become one another, and which of them a module is."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

import normwright.nn as ours
from normwright.network.acceleration.route import own_class
from normwright.network.conversion.foreign import axes_of_foreign
from normwright.network.conversion.memory import memory_of
from normwright.network.frozen_class import unfrozen_class
from normwright.network.spread import is_fully_sharded

#: Moments over batch and space in training; one multiply-add per channel in inference.
BATCH_KINDS = ("batch", "synchronised", "frozen", "renormalised", "ghost", "split")
#: Weight and bias per channel.
CHANNEL_KINDS = (*BATCH_KINDS, "group", "instance")
#: Weight and bias per element of a sample.
ELEMENT_KINDS = ("layer", "rms")
KINDS = (*CHANNEL_KINDS, *ELEMENT_KINDS)

#: Attributes that are a normaliser's own settings; every other attribute is the user's and stays.
SETTINGS = frozenset(
    {
        *("num_features", "eps", "momentum", "affine", "track_running_stats", "process_group"),
        *("num_groups", "num_channels", "normalized_shape", "elementwise_affine", "activation"),
        *("r_max", "d_max", "r_max_steps", "d_max_steps"),
        *("ghost_size", "ragged", "domains", "domain"),
    }
)


class Species(NamedTuple):
    """What a class is.

    Args:
        kind: one of `KINDS`.
        axes: how many axes of space its input has (one may also be none), or None for any.
        is_ours: of normwright.nn, with an `activation`.
    """

    kind: str
    axes: int | None
    is_ours: bool


def _known_classes() -> dict[type[nn.Module], Species]:
    known: dict[type[nn.Module], Species] = {}
    for is_ours, library in ((False, torch.nn), (True, ours)):
        named: Any = vars(library)
        for kind, stem in _BY_AXES.items():
            for axes in (1, 2, 3):
                if f"{stem}{axes}d" in named:
                    known[named[f"{stem}{axes}d"]] = Species(kind, axes, is_ours)
        for kind, name in _OF_ANY_AXES.items():
            if name in named:
                known[named[name]] = Species(kind, None, is_ours)
    return known


_BY_AXES = {
    "batch": "BatchNorm",
    "frozen": "FrozenBatchNorm",
    "renormalised": "BatchRenorm",
    "ghost": "GhostBatchNorm",
    "split": "SplitBatchNorm",
    "instance": "InstanceNorm",
}
_OF_ANY_AXES = {
    "synchronised": "SyncBatchNorm",
    "group": "GroupNorm",
    "layer": "LayerNorm",
    "rms": "RMSNorm",
}
CLASSES = _known_classes()

#: What a normaliser of normwright's own does that no kind here does, and why it becomes none: by the class's
#: name without its axes.
NOT_CONVERTED = {
    "whitening": ("WhiteningNorm", "it decorrelates the channels of a group, which no other kind does"),
    "recurrent": ("RecurrentBatchNorm", "it keeps statistics for each time step, and others one for all"),
    "filter_response": ("FilterResponseNorm", "it leaves the mean, and ends in a threshold of its own"),
    "dynamic_tanh": ("DynamicTanh", "it takes no moments, and bends what comes in"),
    "masked": ("MaskedBatchNorm1d", "it leaves padding out of its moments, which others would count"),
}

# What a class statement leaves behind without saying anything about behaviour.
_SILENT = frozenset(
    {
        *("__module__", "__qualname__", "__doc__", "__init__", "__annotations__", "__parameters__"),
        *("__static_attributes__", "__firstlineno__", "__orig_bases__", "__annotate_func__"),
        *("__annotations_cache__", "__slotnames__", "extra_repr", "__repr__"),
    }
)
_TENSORS = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})


def class_of(kind: str, axes: int | None, *, is_ours: bool) -> type[nn.Module]:
    """The class of a kind; normwright's own where PyTorch has none, or one that needs a GPU.

    Example:
        >>> class_of("instance", 3, is_ours=False)
        <class 'torch.nn.modules.instancenorm.InstanceNorm3d'>
    """
    wanted = Species(kind, axes if kind in _BY_AXES else None, is_ours or kind == "synchronised")
    found = {species: known for known, species in CLASSES.items()}
    return found.get(wanted) or found[wanted._replace(is_ours=True)]


def known_base(cls: type) -> type[nn.Module] | None:
    """The nearest class whose formula is known."""
    return next((known for known in cls.__mro__ if known in CLASSES), None)


def species_of(module: nn.Module) -> Species | str:
    """What a normaliser is, by what it does and not by its name; or why that cannot be known.

    A subclass that defines nothing but a constructor is what it derives from.

    Example:
        >>> species_of(nn.BatchNorm2d(4))
        Species(kind='batch', axes=2, is_ours=False)
        >>> class Clipped(nn.BatchNorm2d):
        ...     def forward(self, x):
        ...         return super().forward(x).clamp(-1, 1)
        >>> species_of(Clipped(4))
        'its class Clipped has a forward of its own, which another normaliser would not do'
    """
    base = known_base(type(module))
    axes = axes_of_foreign(module) if base is None else None
    if axes is not None:
        return Species("frozen", axes, False)
    known = next((why for stem, why in NOT_CONVERTED.values() if type(module).__name__.startswith(stem)), "")
    if known and type(module).__module__.startswith("normwright.nn."):
        return known
    if base is None:
        return f"its class {type(module).__name__} is not one whose formula is known here"
    if getattr(module, "domains", 1) != 1:
        return f"it keeps statistics of {module.domains} domains, and others of one"
    why_not = _behaviour_of_its_own(module, base)
    if why_not:
        return why_not
    species = CLASSES[base]
    # One group is layer norm over channels and space; a conversion remembers which of them was meant.
    if species.kind == "group" and memory_of(module).kind == "layer" and module.num_groups == 1:
        return species._replace(kind="layer")
    return species


def _behaviour_of_its_own(module: nn.Module, base: type[nn.Module]) -> str:
    """What a module does beyond its known class, or ""."""
    if isinstance(module, torch.jit.ScriptModule):
        return "it is compiled by torch.jit"
    if is_fully_sharded(module):
        return "fully_shard was called on it itself: convert the network first, and shard it then"
    kind = own_class(type(module))
    if unfrozen_class(kind) is not kind:
        return "it is frozen by nw.freeze: call nw.unfreeze first"
    if hasattr(module, "parametrizations"):
        return (
            "its parameters are parametrized: call torch.nn.utils.parametrize.remove_parametrizations first"
        )
    below = kind.__mro__[: kind.__mro__.index(base)]
    own = sorted({name for between in below for name in vars(between)} - _SILENT)
    if own:
        return f"its class {kind.__name__} has a {own[0]} of its own, which another normaliser would not do"
    if "forward" in module.__dict__:
        return "its forward was replaced on this one module, which another normaliser would not do"
    held = {*module._parameters, *module._buffers}
    extra = sorted({*held - _TENSORS, *module._modules})
    if extra:
        return f"it holds {extra[0]}, which another normaliser would not use"
    lacking = [name for name in ("weight", "bias") if name not in held and hasattr(module, name)]
    if lacking and getattr(module, lacking[0]) is not None:
        return (
            f"its {lacking[0]} is computed from another tensor (pruned, or normed): make that permanent first"
        )
    return ""
