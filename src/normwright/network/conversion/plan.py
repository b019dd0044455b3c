"""What one normaliser becomes: its class, settings, parameters and statistics; or why it may not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from normwright.errors import ConversionError, ShapeError
from normwright.network.conversion.become import Target
from normwright.network.conversion.carry import STATISTICS, Carried
from normwright.network.conversion.foreign import eps_of
from normwright.network.conversion.groups import MOST_GROUPS, fitting_groups
from normwright.network.conversion.kinds import (
    BATCH_KINDS,
    CLASSES,
    ELEMENT_KINDS,
    SETTINGS,
    Species,
    class_of,
    known_base,
)
from normwright.network.conversion.memory import Former, memory_of
from normwright.network.conversion.observe import Calls
from normwright.network.conversion.options import Options

#: Samples in a virtual batch where none are said.
GHOST_SIZE = 32


@dataclass
class Plan:
    """One normaliser's conversion.

    Args:
        source: the kind that it is.
        before: what it is, in words.
        target: what it becomes.
        lost: what is given up, by the caller's leave.
        notes: what the user should know.
    """

    source: str
    before: str
    target: Target
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Planner:
    """Plans one normaliser.

    Args:
        module: a normaliser of a known class.
        species: as `species_of` has it.
        calls: how it is called, or None where no batch or example was given.
        options: the caller's.
    """

    def __init__(self, module: Any, species: Species, calls: Calls | None, options: Options) -> None:
        self.module, self.species, self.calls, self.options = module, species, calls, options
        self.is_per_element = hasattr(module, "normalized_shape")
        self.formers = memory_of(module).formers
        self.former: Former | None = self.formers.get(options.to)
        self.is_ours = self._library(memory_of(module).first)
        self.carried = Carried(
            module, species.kind, self._channels(), options, None if calls is None else calls.like
        )

    def plan(self) -> Plan:
        """The plan.

        Raises:
            ConversionError: something would be lost, or is not known.
            ShapeError: a group, a position or a sample would be a single element.
        """
        to = self.options.to
        self._check_calls()
        if self.former is not None and known_base(self.former.cls) is None:
            return self._plan(self._foreign_target(self.former))
        prototype, shape = self._prototype()
        cls: type[nn.Module] = type(prototype)
        settings = {name: value for name, value in vars(prototype).items() if name in SETTINGS}
        if self.former is not None and known_base(self.former.cls) is cls:
            cls, old = self.former.cls, self.former.settings
            settings |= {name: value for name, value in old.items() if name not in _RECOMPUTED}
        settings |= self._settings(settings)
        values = {name: self.carried.value(name, shape) for name in ("weight", "bias")}
        if "bias" not in prototype._parameters:
            self.carried.drop_bias(values.pop("bias"))
        for name in ("affine", "elementwise_affine"):
            if name in settings:
                settings[name] = values["weight"] is not None
        buffers = self.carried.statistics([*prototype._buffers]) if to in BATCH_KINDS else {}
        if to == "instance":
            buffers = {name: self._instance_buffer(name) for name in STATISTICS}
        parameters = {name: self.carried.parameter(name, value) for name, value in values.items()}
        target = Target(to, cls, settings, parameters, values, buffers, self._mode())
        return self._plan(target)

    def _plan(self, target: Target) -> Plan:
        carried = self.carried
        return Plan(self.species.kind, describe(self.module), target, carried.lost, carried.notes)

    def _foreign_target(self, former: Former) -> Target:
        """The frozen batch norm of another library that it was, with weight and bias among its buffers."""
        shape = (self._channels(),)
        values = {name: self.carried.value(name, shape) for name in ("weight", "bias")}
        statistics = self.carried.statistics([*former.buffers])
        return Target(self.options.to, former.cls, former.settings, {}, {}, values | statistics, False)

    def _mode(self) -> bool:
        """Its own; a frozen norm is always in inference, and takes the network's when it is one no more."""
        if "frozen" in (self.species.kind, self.options.to):
            return self.options.training and self.options.to != "frozen"
        return bool(self.module.training)

    def _instance_buffer(self, name: str) -> Tensor | None:
        """Instance norm has statistics where it had them before."""
        return None if self.former is None else self.former.buffer(name, self.carried.like())

    def _library(self, first: str) -> bool:
        """Whether it belongs to normwright's modules, as what it was first did."""
        if first not in self.formers:
            return self.species.is_ours
        base = known_base(self.formers[first].cls)
        return base is not None and CLASSES[base].is_ours

    # What it is called with.

    def _check_calls(self) -> None:
        """The input is (N, C, *space), where the weights of one side or the other are per channel."""
        source, to = self.species.kind, self.options.to
        if source in ELEMENT_KINDS and to in ELEMENT_KINDS:
            return
        if self.is_per_element:
            shape = tuple(self.module.normalized_shape)
            if self.calls is None and not self._was_per_channel():
                raise ConversionError(
                    f"the axis of its channels must be known, but of {source} norm over {shape} it is not: "
                    "pass example="
                )
            if self.calls is not None and any(met[1:] != shape for met in self.calls.shapes):
                raise ConversionError(
                    f"it normalises the last axes {shape} of inputs {self._met()}, which are not "
                    "(N, C, *space) with moments over C and space: there is no such norm per channel"
                )
        axes = self.species.axes or 0
        if source == "instance" and self.calls and any(len(s) != axes + 2 for s in self.calls.shapes):
            raise ConversionError(
                f"its inputs must be (N, C, *space), but are {self._met()}, without N: give it a batch"
            )

    def _was_per_channel(self) -> bool:
        return any(kind not in ELEMENT_KINDS for kind in self.formers)

    def _met(self) -> str:
        return ", ".join(map(str, self.calls.shapes)) if self.calls else ""

    def _channels(self) -> int:
        if self.is_per_element:
            return int(self.module.normalized_shape[0])
        for name in ("num_channels", "num_features"):
            if hasattr(self.module, name):
                return int(getattr(self.module, name))
        return len(self.module.weight)  # a frozen batch norm of another library

    def _axes(self) -> int | None:
        """How many axes of space, 1 for one or none; None where nothing tells."""
        if self.species.axes is not None:
            return self.species.axes
        bases = [known_base(former.cls) for former in self.formers.values()]
        known = [CLASSES[base].axes for base in bases if base is not None]
        axes = next((axes for axes in known if axes is not None), None)
        if axes is None and self.calls is not None:
            axes = max(1, *(len(shape) - 2 for shape in self.calls.shapes))
        return axes

    # What it becomes.

    def _prototype(self) -> tuple[nn.Module, tuple[int, ...]]:
        """An instance of the new class, without weights, and the shape of its weight."""
        to, channels = self.options.to, self._channels()
        eps = self._eps()
        if to in ELEMENT_KINDS:
            return self._element_prototype(eps)
        axes = self._axes()
        if to == "group":
            return self._class(None)(self._groups(axes), channels, eps, affine=False), (channels,)
        if to != "synchronised" and (axes is None or axes > 3):
            raise ConversionError(
                f"{to} norm must know how many axes of space its input has, 1 to 3, but here this is "
                f"{'not known: pass example=' if axes is None else axes}"
            )
        cls = self._class(axes)
        if to == "instance":
            self._check_space(axes)
            return cls(channels, eps, affine=False, track_running_stats=False), (channels,)
        tracked = not self.carried.is_untracked() or to in ("frozen", "renormalised")
        options: dict[str, Any] = {"affine": False, "track_running_stats": tracked, "device": "meta"}
        if to == "ghost":
            options |= {"ghost_size": self.options.ghost_size or GHOST_SIZE, "ragged": True}
        if to == "split":
            options["domains"] = 1
        return cls(channels, eps, **options), (channels,)

    def _element_prototype(self, eps: float) -> tuple[nn.Module, tuple[int, ...]]:
        to, shape = self.options.to, self._sample_shape()
        if shape is not None and math.prod(shape) == 1:
            raise ShapeError(
                "a sample must have several elements, but has one, which becomes 0: leave it out"
            )
        if shape is not None:
            return self._class(None)(shape, eps, elementwise_affine=False), shape
        if to == "rms":
            met = f"it is not one ({self._met()}): leave it out" if self.calls else "none is: pass example="
            raise ConversionError(f"RMS norm must know the one shape of a sample, but {met}")
        channels = self._channels()
        self.carried.notes.append(
            "layer norm over (C, *space) of any size, as one group; weight and bias per channel"
        )
        cls: Any = class_of("group", None, is_ours=self.is_ours)
        return cls(1, channels, eps, affine=False), (channels,)

    def _sample_shape(self) -> tuple[int, ...] | None:
        """(C, *space) of layer and RMS norm."""
        if self.is_per_element:
            return tuple(self.module.normalized_shape)
        if self.calls is not None:
            return self.calls.sample_shape()
        if self.former is not None and "normalized_shape" in self.former.settings:
            return tuple(self.former.settings["normalized_shape"])
        return None

    def _class(self, axes: int | None) -> Any:
        """The class of before, else the new kind's in the library that the module is of."""
        base = None if self.former is None else known_base(self.former.cls)
        if base is not None and CLASSES[base].kind == self.options.to:
            return base
        return class_of(self.options.to, axes, is_ours=self.is_ours)

    def _groups(self, axes: int | None) -> int:
        channels, most = self._channels(), self.options.groups
        if most is None and self.former is not None:
            return int(self.former.settings["num_groups"])
        space = self.calls.space() if self.calls else (1 if axes in (1, None) else None)
        return fitting_groups(channels, MOST_GROUPS if most is None else most, space)

    def _check_space(self, axes: int | None) -> None:
        """Instance norm's moments have more than one element."""
        if self.calls is None:
            if axes == 1 and self.species.kind != "instance" and "instance" not in self.formers:
                raise ConversionError(
                    "instance norm must know whether its input has space, which (N, C) has not: pass example="
                )
        elif self.calls.space() == 1 or any(len(shape) < 3 for shape in self.calls.shapes):
            raise ShapeError(
                f"instance norm needs several positions per channel, but the inputs are {self._met()}: "
                "a single element becomes 0. Take group or layer norm, or leave it out with names="
            )

    # Its settings.

    def _eps(self) -> float:
        eps = eps_of(self.module)
        return torch.finfo(self.carried.like().dtype).eps if eps is None else eps

    def _settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        carried: dict[str, Any] = {"eps": self._eps()}
        had_default = self.former is not None and self.former.settings["eps"] is None
        if had_default and self._eps() == torch.finfo(self.carried.like().dtype).eps:
            carried["eps"] = None
        if "momentum" in settings and self.options.to in BATCH_KINDS:
            carried["momentum"] = self._momentum(settings["momentum"])
        if "ghost_size" in settings and self.options.ghost_size is not None:
            carried["ghost_size"] = self.options.ghost_size
        if "activation" in settings:
            carried["activation"] = getattr(self.module, "activation", None)
        return carried

    def _momentum(self, default: float | None) -> float | None:
        holders = [vars(self.module)] if self.species.kind in BATCH_KINDS or self.carried.tracks() else []
        holders += [former.settings for kind, former in self.formers.items() if kind in BATCH_KINDS]
        return next((held["momentum"] for held in holders if "momentum" in held), default)


# Settings that are worked out anew, whatever they were before.
_RECOMPUTED = frozenset({"num_groups", "normalized_shape", "eps", "momentum", "activation", "affine"})


def describe(module: nn.Module | Target) -> str:
    """A normaliser in a few words: GroupNorm(8, 16).

    Example:
        >>> describe(nn.GroupNorm(2, 6)), describe(nn.BatchNorm2d(3))
        ('GroupNorm(2, 6)', 'BatchNorm2d(3)')
    """
    cls, settings = (
        (module.cls, module.settings) if isinstance(module, Target) else (type(module), vars(module))
    )
    names: Sequence[str] = ("num_groups", "num_channels", "num_features", "normalized_shape")
    said = [settings[name] for name in names if name in settings]
    return f"{cls.__name__}({', '.join(map(str, said))})"
