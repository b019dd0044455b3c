"""Hears of every call of a layer or activation function while a network runs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from normwright.doctor.training.activity import CALLS, function_of
from normwright.doctor.training.beneath import beneath
from normwright.doctor.training.layers import features_last, layers_of
from normwright.network.calling import tensors_of
from normwright.network.walk import is_normaliser
from normwright.nn.bookkeeping import is_recomputation


@dataclass(frozen=True)
class LayerCall:
    """What is called.

    Args:
        layer: qualified name of the module, or "module: function", or "module: function#2" of the second such
            in one call of the module.
        kind: the class's or function's name.
        of_normaliser: it normalises.
        function: the activation function that it is or ends in, or "".
        features_last: as `layers.features_last`.
    """

    layer: str
    kind: str
    of_normaliser: bool
    function: str
    features_last: bool | None


class Listener(Protocol):
    """Is told of calls; those of a recomputation (activation checkpointing) are left out."""

    def called(self, call: LayerCall, given: Tensor | None) -> None:
        """Before a call: `given` is its first floating-point tensor."""

    def returned(self, call: LayerCall, y: Tensor) -> None:
        """After it: `y` is the first floating-point tensor that it gives."""

    def ended(self, outputs: list[Tensor]) -> None:
        """The network has returned these tensors."""


def always() -> bool:
    """Every call counts."""
    return True


@contextlib.contextmanager
def calls_heard(
    network: nn.Module, listener: Listener, counts: Callable[[], bool] = always
) -> Iterator[None]:
    """Inside, the listener is told of every call that counts by what `counts` says then."""
    ears = _Ears(network, listener, counts)
    handles: list[Any] = []
    try:
        for name, module in network.named_modules():
            handles += ears.hooks(name, module)
        with beneath(ears):
            yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Frame:
    """A module whose forward is running."""

    name: str
    module: nn.Module
    functions: Counter[str] = field(default_factory=Counter)
    last: Tensor | None = None


class _Ears(TorchFunctionMode):
    def __init__(self, network: nn.Module, listener: Listener, counts: Callable[[], bool]) -> None:
        super().__init__()
        self._network = network
        self._counts = counts
        self._listener = listener
        self._layers = layers_of(network)
        self._frames: list[_Frame] = []

    def hooks(self, name: str, module: nn.Module) -> list[Any]:
        """Puts hooks on a module, and returns their handles."""
        call = None
        if name in self._layers:
            call = LayerCall(
                name, type(module).__name__, is_normaliser(module), function_of(module), features_last(module)
            )

        # A copy of the network that is made inside has copies of the hooks, and stays unheard.
        def entering(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._is_deaf() or called is not module:
                return
            self._frames.append(_Frame(name, module))
            if call is not None:
                with torch.no_grad(), torch._C.DisableTorchFunction():
                    self._listener.called(call, _first([args, kwargs]))

        def leaving(called: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._is_deaf() or called is not module:
                return
            frame = self._frames.pop()
            with torch.no_grad(), torch._C.DisableTorchFunction():
                y = _first(output)
                # A module that does no more than call a function is told of once, as the function.
                if call is not None and y is not None and y is not frame.last:
                    self._listener.returned(call, y)
                if module is self._network:
                    self._listener.ended(tensors_of(output))

        return [
            module.register_forward_pre_hook(entering, with_kwargs=True),
            # after an exception too, for its caller may go on
            module.register_forward_hook(leaving, always_call=True),
        ]

    def _is_deaf(self) -> bool:
        # Asked before all else: torch.compile compiles what is done here with the network.
        if torch.compiler.is_compiling():
            return not self._counts()
        # Inside a call that counts every call does: reentrant checkpointing switches gradients off there.
        return is_recomputation() or not (self._frames or self._counts())

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        function = CALLS.get(func)
        if function is None or not self._frames or _of_torch(self._frames[-1].module) or self._is_deaf():
            return func(*args, **kwargs)
        frame = self._frames[-1]
        frame.functions[function] += 1
        number = frame.functions[function]
        place = f"{frame.name}: {function}" + (f"#{number}" if number > 1 else "")
        call = LayerCall(place, function, function.endswith("_norm"), function, features_last(function))
        with torch.no_grad():
            self._listener.called(call, _first([args, kwargs]))
        y = func(*args, **kwargs)
        frame.last = y
        with torch.no_grad():
            self._listener.returned(call, y)
        return y


def _first(value: Any) -> Tensor | None:
    return next((tensor for tensor in tensors_of(value) if tensor.is_floating_point()), None)


def _of_torch(module: nn.Module) -> bool:
    """Whether a module's own calls of functions are how it does its work, and no layers of their own."""
    return type(module).__module__.startswith(("torch.nn.modules.", "normwright.nn."))
