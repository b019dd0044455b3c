"""A faster way through a module's forward, beside its own, taken while all that it relies on holds.

The module gets a subclass of its class, of the same name, whose forward asks every route whether it can
serve this call and runs the module's own forward where none can: after a hook was added, a submodule
replaced, an attribute changed, with other arguments. So a route never changes what a module means.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from normwright.network.acceleration.drop_in import is_fused
from normwright.network.acceleration.fused_call import Watcher
from normwright.network.frozen_class import unfrozen_class

_MISSING = object()


class Condition(NamedTuple):
    """What must hold of one module for a route to stand for its block's own forward.

    Args:
        path: of the module within the block.
        kind: its class, frozen or not, or None for any.
        bypassed: the route does not call it as a module, so that it must have no hooks.
        children: names of its submodules, those that are None marked, or None for any.
        attributes: names and values of what the forward read.
        same_as: path under which the block has this very module too, or None.
        tensors: names of its parameters and buffers, those that are None marked, or None for any.
        dtypes: names and dtypes of those for whose dtype the forward asked.
    """

    path: tuple[str, ...]
    kind: type[nn.Module] | None = None
    bypassed: bool = False
    children: tuple[tuple[str, bool], ...] | None = None
    attributes: tuple[tuple[str, Any], ...] = ()
    same_as: tuple[str, ...] | None = None
    tensors: tuple[tuple[str, bool], ...] | None = None
    dtypes: tuple[tuple[str, torch.dtype], ...] = ()

    def holds(self, block: nn.Module) -> bool:
        """Whether it does, now."""
        module: Any = _module_at(block, self.path)
        if module is None:
            return False
        if self.same_as is not None and _module_at(block, self.same_as) is not module:
            return False
        for name, expected in self.attributes:  # first, for the mode tells most routes that do not serve
            value = getattr(module, name, _MISSING)
            if type(value) is not type(expected) or value != expected:
                return False
        for name, dtype in self.dtypes:
            if getattr(getattr(module, name, None), "dtype", None) is not dtype:
                return False
        if self.kind is not None and unfrozen_class(own_class(type(module))) is not self.kind:
            return False
        if self.bypassed and not _is_plain(module):
            return False
        if self.children is not None and children_of(module) != self.children:
            return False
        return self.tensors is None or tensors_of(module) == self.tensors


@dataclass(frozen=True)
class Route:
    """Straight-line code for a block, and the conditions under which it does what the block's forward does.

    Args:
        parameters: names of the forward's parameters that must be given, all of them tensors.
        defaults: names and values of the others, which must have their defaults.
        conditions: what must hold of the block.
        source: a function `forward(self, *parameters)`.
        names: the global names of the source: objects, and modules as ("module", name).
    """

    parameters: tuple[str, ...]
    defaults: tuple[tuple[str, Any], ...]
    conditions: tuple[Condition, ...]
    source: str
    names: tuple[tuple[str, Any], ...]

    def function(self) -> Callable[..., Any]:
        """The source, compiled."""
        # As torch.fx has them in every graph's code.
        scope: dict[str, Any] = {"inf": math.inf, "nan": math.nan, "NoneType": type(None)}
        for name, value in self.names:
            is_module = isinstance(value, tuple) and value[0] == "module"
            scope[name] = importlib.import_module(value[1]) if is_module else value
        exec(compile(self.source, "<normwright route>", "exec"), scope)  # noqa: S102  # torch.fx's code
        function: Callable[..., Any] = scope["forward"]
        return function

    def arguments(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...] | None:
        """The tensors of a call, or None where it gives something else."""
        given = len(args)
        if given == len(self.parameters) and not named:  # by far the most frequent
            return args if all(isinstance(value, Tensor) for value in args) else None
        if given + len(named) > len(self.parameters) + len(self.defaults):
            return None
        tensors = list(args[: len(self.parameters)])
        used = 0
        for name in self.parameters[given:]:
            if name not in named:
                return None
            tensors.append(named[name])
            used += 1
        for place, (name, default) in enumerate(self.defaults, len(self.parameters)):
            value = default
            if place < given:
                value = args[place]
            elif name in named:
                value = named[name]
                used += 1
            if value is not default:
                return None
        if used != len(named) or not all(isinstance(value, Tensor) for value in tensors):
            return None
        return tuple(tensors)

    def holds(self, block: nn.Module) -> bool:
        """Whether every condition does, now."""
        return all(condition.holds(block) for condition in self.conditions)


def own_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a module had before it got routes."""
    own: type[nn.Module] = kind.__dict__.get("_normwright_own", kind)
    return own


def children_of(module: nn.Module) -> tuple[tuple[str, bool], ...]:
    """Names of the submodules, and whether there is one."""
    return tuple([(name, child is not None) for name, child in module._modules.items()])


def tensors_of(module: nn.Module) -> tuple[tuple[str, bool], ...]:
    """Names of the parameters and buffers, and whether there is one."""
    held = (*module._parameters.items(), *module._buffers.items())
    return tuple([(name, tensor is not None) for name, tensor in held])


def routed_class(own: Any, routes: tuple[Route, ...]) -> type[nn.Module]:
    """A subclass of `own` that takes the first route that serves a call; blocks alike share it."""
    return _routed_class(own, routes)


@functools.lru_cache(maxsize=1024)
def _routed_class(own: Any, routes: tuple[Route, ...]) -> type[nn.Module]:
    own_forward: Callable[..., Any] = own.forward
    ways = [(route, route.function()) for route in routes]

    @functools.wraps(own_forward)
    def forward(self: nn.Module, *args: Any, **named: Any) -> Any:
        # In a symbolic trace the arguments are no tensors: it sees the network's own operations.
        if own.forward is own_forward and not _has_any_global_hook():
            for route, run in ways:
                tensors = route.arguments(args, named)
                if tensors is not None and route.holds(self):
                    return run(self, *tensors)
        return own.forward(self, *args, **named)

    def reduce(self: nn.Module, protocol: Any) -> Any:
        made: Any = object.__reduce_ex__(self, 4)
        return (_restore, (own, routes), *made[2:])

    members = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": own.__module__,
        "__qualname__": own.__qualname__,
        "__doc__": own.__doc__,
        "_normwright_own": own,
    }
    kind: type[nn.Module] = type(own.__name__, (own,), members)
    return kind


def _restore(own: type[nn.Module], routes: tuple[Route, ...]) -> nn.Module:
    kind = routed_class(own, routes)
    return kind.__new__(kind)


def _module_at(block: nn.Module, path: tuple[str, ...]) -> nn.Module | None:
    module: nn.Module | None = block
    for key in path:
        module = None if module is None else module._modules.get(key)
    return module


def _is_plain(module: nn.Module) -> bool:
    """Whether calling the module is calling its class's forward; a fused call serves watchers itself."""
    hooks = module._forward_hooks
    return (
        "forward" not in module.__dict__
        and not module._forward_pre_hooks
        and not module._backward_pre_hooks
        and not module._backward_hooks
        and (not hooks or (is_fused(module) and all(type(hook) is Watcher for hook in hooks.values())))
    )
