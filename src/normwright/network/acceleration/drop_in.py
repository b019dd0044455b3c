"""Which module of `normwright.nn` a normaliser becomes, and why one does not."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

import normwright.nn
from normwright.network.frozen_class import derives_from_frozen, frozen_class, unfrozen_class
from normwright.network.spread import is_fully_sharded
from normwright.network.walk import find_normalisers, is_normaliser

# A drop-in derives from the class that it replaces and adds no state, so that a module becomes one by
# taking its class: parameters, buffers, hooks, modes and every reference to it stay as they are.
DROP_INS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(torch.nn, name, getattr(normwright.nn, name)): getattr(normwright.nn, name)
    for name in normwright.nn.__all__
    if name != "LocalResponseNorm"  # for which there is no kernel
    # All others of normwright's own have a forward that does more than call an operator.
    and (hasattr(torch.nn, name) or name.startswith("FrozenBatchNorm"))
}

_SUBCLASS = "a subclass may normalise in its own way"
_CLASS_OF_ITS_OWN = "a class of its own, which may be no normaliser of those known here"


def is_fused(module: nn.Module) -> bool:
    """Whether a module is a drop-in, of exactly that class, frozen or not."""
    return unfrozen_class(type(module)) in DROP_INS.values()


def drop_in_for(module: nn.Module) -> type[nn.Module] | str:
    """The class that a normaliser shall have, which may be its own, or why it is left alone.

    Example:
        >>> drop_in_for(nn.LayerNorm(4)).__module__
        'normwright.nn.layer_norm'
        >>> drop_in_for(nn.LocalResponseNorm(5))
        'there is no fused kernel for LocalResponseNorm'
    """
    kind = type(module)
    if "forward" in module.__dict__:
        return "its forward was replaced on this one module"
    if is_fused(module):
        return kind
    own = unfrozen_class(kind)
    if own in DROP_INS:
        return DROP_INS[own] if own is kind else frozen_class(DROP_INS[own])
    if kind.__module__.startswith("normwright.nn.") and not hasattr(torch.nn, kind.__name__):
        return f"{kind.__name__} is normwright's own, and does more than call an operator"
    if isinstance(module, torch.jit.ScriptModule):
        return "it is compiled by torch.jit"
    if is_fully_sharded(module):
        return "fully_shard was called on it itself: accelerate the network first, and shard it then"
    if parametrize.is_parametrized(module):
        return "its parameters are parametrized, which gives it a class of its own"
    if isinstance(module, LazyModuleMixin):
        return "it is lazy: accelerate the network after its first batch"
    if kind in (nn.LocalResponseNorm, normwright.nn.LocalResponseNorm):
        return "there is no fused kernel for LocalResponseNorm"
    if is_normaliser(module):
        bases = [base.__module__ for base in kind.__mro__ if base is not nn.Module]
        known = any(base.startswith(("torch.nn.", "normwright.nn.")) for base in bases)
        return _SUBCLASS if known else "a batch norm of fixed statistics"
    return _CLASS_OF_ITS_OWN


def may_call_a_function(module: nn.Module) -> bool:
    """Whether a normaliser that has no drop-in may call PyTorch's function, of which a trace tells."""
    return drop_in_for(module) in (_SUBCLASS, _CLASS_OF_ITS_OWN) and not derives_from_frozen(type(module))


def normalisers_by_name(network: nn.Module) -> dict[str, nn.Module]:
    """`find_normalisers`, with what is one by its class's name alone (such as LlamaRMSNorm)."""
    found = find_normalisers(network)
    return {name: module for name, module in network.named_modules() if name in found or _is_named_so(module)}


def _is_named_so(module: nn.Module) -> bool:
    """Whether a module without submodules has "norm" in its class's name; torch's own were found already."""
    compiled = isinstance(module, torch.jit.ScriptModule)
    name = str(module.original_name) if compiled else type(module).__name__
    own = compiled or not type(module).__module__.startswith("torch.")
    return own and "norm" in name.lower() and not any(True for _ in module.children())
