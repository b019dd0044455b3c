"""What stands in for the tensors of a forward while it is traced: it does not say what it cannot know."""

from __future__ import annotations

import dis
import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.fx.proxy import Attribute

from normwright.network.acceleration.unpacked import unpacked

# What fx itself sets of a stand-in.
_PROXY_NAMES = frozenset({"tracer", "node", "root", "attr", "_node"})
# `value.__class__` and `case Class():`; what else asks for it is a function in C that a forward calls.
_ASKING_FOR_A_CLASS = ("LOAD_ATTR", "LOAD_METHOD", "MATCH_CLASS")


class UntraceableError(Exception):
    """A block cannot be traced; the message says why."""


def _in_place(function: Callable[[Any, Any], Any]) -> Callable[[Proxy, Any], Proxy]:
    def method(self: Proxy, other: Any) -> Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


class StandIn(Proxy):
    """A stand-in that says it is a tensor where that is known, and else refuses to say what it is."""

    # fx has no in-place operators: `y = x; y += 1` would leave x as it was.
    __iadd__ = _in_place(operator.iadd)
    __isub__ = _in_place(operator.isub)
    __imul__ = _in_place(operator.imul)
    __itruediv__ = _in_place(operator.itruediv)
    __ifloordiv__ = _in_place(operator.ifloordiv)
    __imod__ = _in_place(operator.imod)
    __ipow__ = _in_place(operator.ipow)
    __iand__ = _in_place(operator.iand)
    __ior__ = _in_place(operator.ior)
    __ixor__ = _in_place(operator.ixor)

    def __getattr__(self, name: str) -> Attribute:
        return _Attribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _PROXY_NAMES:
            raise UntraceableError(f"its forward sets the attribute {name!r} of a value")
        object.__setattr__(self, name, value)

    def __iter__(self) -> Iterator[Any]:
        """As many parts as the caller has names for; fx would take the first of more."""
        frame = sys._getframe(1)
        if _instruction(frame) != "UNPACK_SEQUENCE":
            raise UntraceableError("its forward goes through the parts of a value")
        count = frame.f_code.co_code[frame.f_lasti + 1]
        parts: Any = self.tracer.create_proxy("call_function", unpacked, (self, count), {})
        return (parts[place] for place in range(count))

    def __hash__(self) -> int:
        raise UntraceableError("its forward looks a value up in a set or a dictionary")

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        frame = sys._getframe(1)
        if _is_torch(frame):
            return StandIn
        if _instruction(frame) in _ASKING_FOR_A_CLASS:
            return _known_class(self)
        if "isinstance" in frame.f_code.co_names and frame.f_globals.get("isinstance") is not _isinstance:
            raise UntraceableError("its forward asks for the type of a value")
        # A function of PyTorch's in C asks; told "Tensor", it would read this one's memory as a tensor's.
        return StandIn


class _Attribute(Attribute, StandIn):
    """What `value.name` is, with the same rules."""

    def __eq__(self, other: object) -> Any:
        """`weight.dtype == torch.float16`, and `in` a list of such, is answered of parameters and buffers."""
        if self.attr == "dtype" and self.root.node.op == "get_attr" and isinstance(other, torch.dtype):
            return self.tracer.dtype_of(str(self.root.node.target)) == other  # type: ignore[attr-defined]
        return super().__eq__(other)

    def __ne__(self, other: object) -> Any:
        equal = self == other
        return not equal if isinstance(equal, bool) else super().__ne__(other)

    __hash__ = StandIn.__hash__


def _known_class(value: StandIn) -> type[Tensor]:
    if value.node.op == "placeholder":
        return Tensor  # a route asks that its arguments are
    raise UntraceableError("its forward asks for the type of a value")


def _isinstance(value: Any, kinds: Any) -> bool:
    """Python's own, but for stand-ins, of which it would ask as a function of PyTorch's in C does."""
    if not issubclass(type(value), StandIn):
        return isinstance(value, kinds)
    return issubclass(_known_class(value), kinds)


@contextmanager
def isinstance_answered(forwards: Iterable[Any]) -> Iterator[None]:
    """Has `isinstance` be ours in the modules that these functions, and what they wrap, stand in."""
    patched = []
    for forward in forwards:
        while forward is not None:
            names = getattr(forward, "__globals__", {})
            if "isinstance" not in names:
                names["isinstance"] = _isinstance
                patched.append(names)
            forward = getattr(forward, "__wrapped__", None)
    try:
        yield
    finally:
        for names in patched:
            names.pop("isinstance", None)


def _is_torch(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name == "torch" or name.startswith("torch.")


def _instruction(frame: FrameType) -> str:
    """The name of the one that a frame is at."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]]
