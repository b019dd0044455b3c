"""Sees every call of a normaliser in a network that runs: modules of any class, and functions."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from normwright.doctor.statistics.sight import (
    FUNCTIONS,
    Sight,
    calls_no_function,
    sight_of_function,
    sight_of_module,
)
from normwright.network.walk import SPLIT, is_normaliser
from normwright.nn.bookkeeping import is_recomputation
from normwright.statistics.counted import counted

See = Callable[[Sight], None]
Answered = Callable[[Sight, object], None]


class Listener(Protocol):
    """Is shown the calls of a trial."""

    def before(self, sight: Sight, step: int) -> None:
        """A call begins, in mini-batch `step`, counted from 0."""

    def after(self, sight: Sight) -> None:
        """It is over."""


class SightObserver:
    """Shows the calls of a trial to listeners; see `trial.Observer`."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def watching(self, network: nn.Module, step: int) -> contextlib.AbstractContextManager[object]:
        """Around the forward and backward of a mini-batch."""

        def before(sight: Sight) -> None:
            for listener in self._listeners:
                listener.before(sight, step)

        def after(sight: Sight, _: object) -> None:
            for listener in self._listeners:
                listener.after(sight)

        return sighted(network, before, after)

    def gradients_ready(self, network: nn.Module, step: int, loss: float) -> None:
        """Nothing to see."""

    def stepped(self, network: nn.Module, step: int) -> None:
        """Nothing to see."""


@contextlib.contextmanager
def sighted(network: nn.Module, see: See, answered: Answered | None = None) -> Iterator[None]:
    """Inside, each call of a normaliser is shown.

    Args:
        network: hooks are put on its modules, and taken away at the end.
        see: called before each call.
        answered: called after it, with what it gives; None after an exception.
    """
    lookout = _Lookout(see, answered)
    handles: list[Any] = []
    try:
        for name, module in network.named_modules():
            handles.append(module.register_forward_pre_hook(lookout.entering(name), with_kwargs=True))
            handles.append(module.register_forward_hook(lookout.leaving, always_call=True))
        with lookout:
            yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(eq=False)
class _Frame:
    """A module whose forward runs."""

    name: str
    module: nn.Module
    sight: Sight | None = None


class _Lookout(TorchFunctionMode):
    """Keeps the modules whose forwards run, and meets the functions that they call."""

    def __init__(self, see: See, answered: Answered | None) -> None:
        super().__init__()
        self._see, self._answered = see, answered
        self._frames: list[_Frame] = []
        self._bare: Counter[str] = Counter()

    def entering(self, name: str) -> Callable[..., None]:
        """A forward pre-hook of the module of that name."""

        def enter(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            if not self._frames:
                self._bare.clear()
            frame = _Frame(name, module)
            self._frames.append(frame)
            told = isinstance(module, SPLIT) and (len(args) > 2 or named.get("domains") is not None)
            x = None if told else counted(module, args, named)  # told: of which domain, or of several
            # what a backward runs again reaches no mode of PyTorch's
            if x is not None and (calls_no_function(module) or is_recomputation()):
                frame.sight = self._show(sight_of_module(name, module, x))

        return enter

    def leaving(self, module: nn.Module, _: Any, output: Any) -> None:
        """A forward hook of every module, called after an exception too."""
        frame = self._frames.pop()
        if frame.sight is not None and self._answered is not None:
            self._answered(frame.sight, output)

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """PyTorch's way in: every function of it that is called inside the context."""
        named = kwargs or {}
        frame = self._frames[-1] if self._frames else None
        if func not in FUNCTIONS or frame is None or frame.sight is not None:
            return func(*args, **named)
        bare = not is_normaliser(frame.module)
        name = self._name_of_bare(frame, func) if bare else frame.name
        sight = self._show(sight_of_function(func, args, named, name, frame.module, bare=bare))
        if not bare:
            frame.sight = sight
            return func(*args, **named)
        y = func(*args, **named)
        if sight is not None and self._answered is not None:
            self._answered(sight, y)
        return y

    def _name_of_bare(self, frame: _Frame, func: Any) -> str:
        name = f"{frame.name}: {func.__name__}"
        self._bare[name] += 1
        return name if self._bare[name] == 1 else f"{name}#{self._bare[name]}"

    def _show(self, sight: Sight | None) -> Sight | None:
        if sight is not None:
            with torch.no_grad():
                self._see(sight)
        return sight
