"""Has a module become another kind of normaliser, and takes it back.

The module object stays: it changes its class, as an accelerated one does. So every name, reference and hook
that leads to it goes on leading to it, and a module that is shared stays shared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from normwright.network.acceleration.route import own_class
from normwright.network.conversion.kinds import SETTINGS
from normwright.network.conversion.memory import Former, Memory, Values, memory_of, remember, tensor_of
from normwright.network.writing import write

_INTERNAL = frozenset(nn.Module().__dict__)


@dataclass(frozen=True)
class Target:
    """What one module is to become.

    Args:
        kind: one of `KINDS`.
        cls: its class.
        settings: its attributes.
        parameters: its `nn.Parameter` objects, or None.
        values: what these shall hold.
        buffers: its buffers.
        training: its mode.
    """

    kind: str
    cls: type[nn.Module]
    settings: dict[str, Any]
    parameters: dict[str, Parameter | None]
    values: Values
    buffers: Values
    training: bool


@dataclass(frozen=True)
class Undo:
    """A module as it was.

    Args:
        module: the one that was changed.
        cls: its class then.
        attributes: its `__dict__` then, with the dicts of parameters and buffers copied.
        values: what each `nn.Parameter` that was written to held.
    """

    module: nn.Module
    cls: type[nn.Module]
    attributes: dict[str, Any]
    values: tuple[tuple[Parameter, Tensor], ...]


def former_of(module: nn.Module, given: Values) -> Former:
    """A module as it stands, to be remembered by what it becomes."""
    before = {
        name: None if (held := tensor_of(module, name)) is None else held.detach().clone()
        for name in ("weight", "bias")
    }
    parameters: Values = {name: value for name, value in module._parameters.items() if value is not None}
    settings = {name: value for name, value in vars(module).items() if name in SETTINGS}
    buffers = {name: value for name, value in module._buffers.items() if name not in before}
    return Former(own_class(type(module)), settings, parameters, buffers, before, _copies(given))


def undo_of(module: nn.Module, written: Iterable[Parameter] = ()) -> Undo:
    """A module as it is, and the parameters that shall be written to."""
    values = tuple((parameter, parameter.detach().clone()) for parameter in written)
    return Undo(module, type(module), _attributes(module), values)


def become(module: nn.Module, source: str, target: Target) -> Undo:
    """Changes a module into its target, in place; its memory gains what it was.

    Args:
        module: a normaliser of the kind `source`.
        source: as `species_of` has it.
        target: from `plan`.
    Returns:
        How to take it back.
    """
    undo = undo_of(module, [p for p in target.parameters.values() if p is not None])
    try:
        _take(module, target, _memory_after(module, source, target))
    except BaseException:
        take_back([undo])
        raise
    return undo


def set_values(module: nn.Module, values: Values, statistics: Values) -> Undo:
    """Writes weight and bias into a converted module's parameters, as what it was given to begin with.

    What the module was keeps counting as untrained if it did so before. Statistics are put in the place of
    those that it has.
    """
    held: list[tuple[Parameter, Tensor]] = [
        (parameter, value)
        for name, value in values.items()
        if value is not None and (parameter := module._parameters[name]) is not None
    ]
    undo = undo_of(module, [parameter for parameter, _ in held])
    memory = memory_of(module)
    fresh = {kind: former for kind, former in memory.formers.items() if former.is_untrained(module)}
    for parameter, value in held:
        write(parameter, value)
    for name, statistic in statistics.items():
        old = module._buffers[name]
        module._buffers[name] = statistic if statistic is None or old is None else statistic.to(old)
    given = {name: tensor_of(module, name) for name in ("weight", "bias")}
    for kind, former in fresh.items():
        memory.formers[kind] = _with_given(former, given)
    return undo


def _memory_after(module: nn.Module, source: str, target: Target) -> Memory:
    """What the module will know: all that it was; nothing where it is again what it was first."""
    memory = memory_of(module)
    first = memory.first or source
    if target.kind == first:
        return Memory()
    # What nobody has trained since is as good as it was, whichever kind holds it by then.
    formers = {
        kind: _with_given(former, target.values) if former.is_untrained(module) else former
        for kind, former in memory.formers.items()
        if kind != target.kind
    }
    if source != target.kind:
        formers[source] = former_of(module, target.values)
    return Memory(target.kind, first, formers)


def take_back(undone: Iterable[Undo]) -> None:
    """Takes changes back, the last first."""
    for undo in reversed(list(undone)):
        object.__setattr__(undo.module, "__class__", undo.cls)
        undo.module.__dict__.clear()
        undo.module.__dict__.update(undo.attributes)
        for parameter, value in undo.values:
            if parameter.dtype != value.dtype or parameter.device != value.device:
                parameter.data = value
            else:
                write(parameter.data, value)


def _take(module: nn.Module, target: Target, memory: Memory) -> None:
    """Class, attributes, parameters and buffers of the target; hooks and the user's attributes stay."""
    kept = {name: value for name, value in vars(module).items() if name not in SETTINGS}
    object.__setattr__(module, "__class__", target.cls)
    attributes = module.__dict__
    attributes.clear()
    attributes.update(kept)
    attributes.update(target.settings)
    remember(attributes, memory)
    for name, parameter in target.parameters.items():
        if parameter is not None:
            _write(parameter, target.values[name])
    attributes["_parameters"] = dict(target.parameters)
    attributes["_buffers"] = dict(target.buffers)
    attributes["training"] = target.training


def _write(parameter: Parameter, value: Tensor | None) -> None:
    """Gives a parameter its value without touching one that has it."""
    if value is None or value is parameter:
        return
    if parameter.dtype != value.dtype or parameter.device != value.device:
        parameter.data = value.detach().clone()
    elif not parameter.is_meta and not torch.equal(parameter, value):
        write(parameter, value)


def _attributes(module: nn.Module) -> dict[str, Any]:
    copied = dict(vars(module))
    for name in ("_parameters", "_buffers"):
        copied[name] = dict(copied[name])
    copied["_non_persistent_buffers_set"] = set(copied["_non_persistent_buffers_set"])
    memory = memory_of(module)
    if memory.formers:
        remember(copied, Memory(memory.kind, memory.first, dict(memory.formers)))
    return copied


def _with_given(former: Former, given: Values) -> Former:
    return Former(
        former.cls, former.settings, former.parameters, former.buffers, former.before, _copies(given)
    )


def _copies(values: Values) -> Values:
    return {name: None if value is None else value.detach().clone() for name, value in values.items()}
