"""Traces one block of a network: its forward as straight-line code, with what the code takes for granted.

`torch.fx` runs the forward with stand-ins for tensors, and whatever the forward decides by other things is
decided once. Here every attribute that it reads on the way is noted, and what fx passes over in silence
(an attribute set, a branch on a type, a `with torch.no_grad()`) ends the trace.
"""

from __future__ import annotations

import dis
import enum
import inspect
import random
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy
import torch
from torch import Tensor, nn
from torch.fx import Graph, Node, Proxy, Tracer
from torch.utils._python_dispatch import TorchDispatchMode

from normwright.network.acceleration.route import Condition, children_of, tensors_of
from normwright.network.acceleration.stand_in import StandIn, UntraceableError, isinstance_answered

_AUTOCAST_DEVICES = ("cpu", "cuda")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)
_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), enum.Enum, type),
    *(torch.dtype, torch.device, torch.memory_format, torch.layout, torch.Size),
    *(types.FunctionType, types.BuiltinFunctionType),
)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # that networks are converted to
_NAMES_OF_DTYPES = frozenset(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))
_CATCHING = ("CHECK_EXC_MATCH", "JUMP_IF_NOT_EXC_MATCH")  # the latter in Python 3.10
# What nn.Module itself has is not the block's, but for its mode.
_MODULE_NAMES = (frozenset(dir(nn.Module)) | frozenset(vars(nn.Module()))) - {"training"}


@dataclass(frozen=True)
class Case:
    """What a forward is traced for, beside its mode.

    Args:
        optional_given: calls give a tensor for every argument that may be None.
        dtype: what it is told where it asks for a parameter's dtype; None for the one that it has.
    """

    optional_given: bool = False
    dtype: torch.dtype | None = None


OWN_CASE = Case()


@dataclass(frozen=True)
class Trace:
    """A block's forward in one mode, for calls that give tensors for `parameters` and nothing else."""

    graph: Graph
    parameters: tuple[str, ...]
    defaults: tuple[tuple[str, Any], ...]
    conditions: tuple[Condition, ...]


def trace(block: nn.Module, inline: frozenset[nn.Module], case: Case = OWN_CASE) -> Trace:
    """The forward of a block in the mode that it is in.

    Args:
        block: of a copy of the network, for what a forward appends to a list stays there.
        inline: those of its submodules whose forward is traced through; the others are called.
        case: what it is traced for.
    Raises:
        UntraceableError: the forward is not the same straight line in every call.
    """
    parameters, defaults = _signature(block, case.optional_given)
    for module in {block, *inline}:
        _refuse_unseen(type(module).forward)
    with _nothing_drawn(), torch.inference_mode(False), torch.enable_grad(), _autocast(False):
        graph, read, asked = _run(block, inline, parameters, defaults, case.dtype)
    with _nothing_drawn(), torch.inference_mode(), _autocast(True):
        other, *_ = _run(block, inline, parameters, defaults, case.dtype)
    if _code(other) != _code(graph):
        raise UntraceableError("its forward is another one under no_grad, inference_mode or autocast")
    conditions = (*_conditions(block, inline, read), *_of_dtypes(asked))
    return Trace(graph, parameters, tuple(defaults.items()), conditions)


def other_cases(block: nn.Module, traced: Trace | None) -> Iterator[Case]:
    """Those that calls of the block may come to be beside its own, whose trace is given."""
    parameters = list(inspect.signature(type(block).forward).parameters.values())[1:]
    defaults = [p.default for p in parameters if p.default is not p.empty]
    if defaults and all(default is None for default in defaults):
        yield Case(optional_given=True)
    if traced is not None and any(condition.dtypes for condition in traced.conditions):
        yield from (Case(dtype=dtype) for dtype in _DTYPES)


def refuse_hooked(module: nn.Module) -> None:
    """Raises where a module is more than its class's forward."""
    name = type(module).__name__
    if "forward" in module.__dict__:
        raise UntraceableError(f"the forward of a {name} was replaced on this one module")
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(module, kind) for kind in hooks):
        raise UntraceableError(f"a {name} has hooks")


def _refuse_unseen(forward: Callable[..., Any]) -> None:
    """Raises where a forward decides by what no stand-in is asked for."""
    code = getattr(inspect.unwrap(forward), "__code__", None)
    before = None
    for instruction in dis.get_instructions(code) if code else ():
        if instruction.opname in _CATCHING:
            raise UntraceableError("its forward catches exceptions")
        if instruction.opname == "LOAD_GLOBAL" and instruction.argval == "type":
            raise UntraceableError("its forward asks for the type of a value")
        if instruction.opname == "IS_OP" and before in _NAMES_OF_DTYPES:
            raise UntraceableError("its forward compares a dtype by `is`")
        before = instruction.argval


def _signature(block: nn.Module, optional_given: bool = False) -> tuple[tuple[str, ...], dict[str, Any]]:
    needed, defaults = [], {}
    parameters = list(inspect.signature(type(block).forward).parameters.values())[1:]
    # A call that gives what *args or **kwargs take runs the forward itself.
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if parameters and not named:
        raise UntraceableError("its forward takes *args and **kwargs alone")
    for parameter in named:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise UntraceableError("its forward takes an argument by position or by keyword only")
        if parameter.default is parameter.empty or optional_given:
            needed.append(parameter.name)
        else:
            defaults[parameter.name] = parameter.default
    if not all(_is_plain(value) for value in defaults.values()):
        raise UntraceableError("its forward has a default argument that can change")
    return tuple(needed), defaults


def _run(
    block: nn.Module,
    inline: frozenset[nn.Module],
    parameters: tuple[str, ...],
    defaults: dict[str, Any],
    dtype: torch.dtype | None,
) -> tuple[Graph, dict[nn.Module, dict[str, Any]], dict[str, torch.dtype]]:
    read: dict[nn.Module, dict[str, Any]] = {}
    tracer = _BlockTracer(inline, parameters, defaults, dtype)
    try:
        forwards = [type(module).forward for module in {block, *inline}]
        with isinstance_answered(forwards), _watched(block, inline, read), _NoTensors():
            graph = tracer.trace(block)
    except UntraceableError:
        raise
    except Exception as error:
        sentence = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise UntraceableError(f"its forward is no straight line: {sentence[:160]}") from error
    return graph, read, tracer.asked


@contextmanager
def _nothing_drawn() -> Iterator[None]:
    """Puts back the random numbers that are drawn inside, and raises where there were any."""
    python, numpys, torchs = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    try:
        yield
        drawn = (
            random.getstate() != python
            or not all(map(numpy.array_equal, numpy.random.get_state(), numpys))
            or not torch.equal(torch.get_rng_state(), torchs)
        )
    finally:
        random.setstate(python)
        numpy.random.set_state(numpys)
        torch.set_rng_state(torchs)
    if drawn:
        raise UntraceableError("its forward draws random numbers of its own")


@contextmanager
def _autocast(enabled: bool) -> Iterator[None]:
    """Sets the flags by hand, as `torch.autocast` passes over devices that this machine lacks."""
    before = {device: torch.is_autocast_enabled(device) for device in _AUTOCAST_DEVICES}
    try:
        for device in before:
            torch.set_autocast_enabled(device, enabled)
        yield
    finally:
        for device, was in before.items():
            torch.set_autocast_enabled(device, was)


class _NoTensors(TorchDispatchMode):
    """Ends a trace before it computes with a tensor itself, which would change a buffer, say."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise UntraceableError("its forward computes with a tensor that the trace has no stand-in for")


class _BlockTracer(Tracer):
    proxy_buffer_attributes: ClassVar[bool] = True  # type: ignore[misc]

    def __init__(
        self,
        inline: frozenset[nn.Module],
        parameters: tuple[str, ...],
        defaults: dict[str, Any],
        dtype: torch.dtype | None,
    ) -> None:
        Tracer.__init__(self)
        self.asked: dict[str, torch.dtype] = {}  # of which parameters the dtype, and the answer
        self._dtype = dtype
        self._inline, self._parameters, self._defaults = inline, parameters, defaults
        self._surroundings = _surroundings()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m not in self._inline

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        # Transformers' ACT2FN["silu"] makes one in every call.
        if _holds_nothing(m) and not any(m is part for part in self.root.modules()):
            refuse_hooked(m)
            _refuse_unseen(type(m).forward)
            return forward(*args, **kwargs)
        return Tracer.call_module(self, m, forward, args, kwargs)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        values = [self.create_proxy("placeholder", name, (), {}) for name in self._parameters]
        # By name: a decorated forward, and defaults between the parameters, are served alike.
        named = {**dict(zip(self._parameters, values, strict=True)), **self._defaults}

        def forward(root: nn.Module) -> Any:
            return root_fn(root, **named)

        return forward, [self.root]

    def dtype_of(self, parameter: str) -> torch.dtype:
        """That of a parameter or a buffer of the block, which the trace then takes for granted."""
        path, _, name = parameter.rpartition(".")
        module = self.root.get_submodule(path)
        tensor = {**module._parameters, **module._buffers}[name]
        assert tensor is not None  # there is a stand-in for it
        return self.asked.setdefault(parameter, self._dtype or tensor.dtype)

    def proxy(self, node: Node) -> Proxy:
        return StandIn(node, self)

    def create_arg(self, a: Any) -> Any:
        if issubclass(type(a), Proxy):
            return a.node
        if isinstance(a, (dict, list)) and type(a) not in (dict, list):
            raise UntraceableError(f"its forward makes a {type(a).__name__}, which a trace keeps no class of")
        return Tracer.create_arg(self, a)

    def create_node(self, *args: Any, **named: Any) -> Node:
        if _surroundings() != self._surroundings:
            raise UntraceableError(
                "its forward runs in part under no_grad, autocast, checkpointing or another context"
            )
        return Tracer.create_node(self, *args, **named)


def _holds_nothing(module: nn.Module) -> bool:
    """Whether a module does the same in every call, as activations do."""
    own = vars(module).keys() - vars(nn.Module()).keys()
    return own <= {"inplace"} and not any((module._modules, module._parameters, module._buffers))


def _surroundings() -> tuple[Any, ...]:
    hooks: Callable[..., Any] = torch._C._autograd._top_saved_tensors_default_hooks
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *(torch.is_autocast_enabled(device) for device in _AUTOCAST_DEVICES),
        *(torch.get_autocast_dtype(device) for device in _AUTOCAST_DEVICES),
        torch._C._len_torch_function_stack(),
        hooks(False) is None,
    )


@contextmanager
def _watched(
    block: nn.Module, inline: frozenset[nn.Module], read: dict[nn.Module, dict[str, Any]]
) -> Iterator[None]:
    """Notes the attributes that are read of the block's modules, and refuses to have any set."""
    classes = {}
    # One for each class and not for each module: what torch.fx sets of nn.Module is passed on to every class
    # derived from it, those too that were dropped and not collected yet.
    watching: dict[type[nn.Module], type[nn.Module]] = {}
    try:
        for module in block.modules():
            kind = type(module)
            refusal = _why_not_derived_from(kind)
            if not refusal:
                if kind not in watching:
                    watching[kind] = _watching(kind, read)
                object.__setattr__(module, "__class__", watching[kind])
                classes[module] = kind
            elif module is block or module in inline:
                raise UntraceableError(f"a trace derives a class from {kind.__name__}, {refusal}")
        yield
    finally:
        for module, kind in classes.items():
            object.__setattr__(module, "__class__", kind)


def _why_not_derived_from(kind: type[nn.Module]) -> str:
    """Why no class is derived from this one; "" if one is."""
    if issubclass(kind, torch.jit.ScriptModule):
        return "which is compiled by torch.jit"
    if any("__init_subclass__" in vars(base) for base in kind.__mro__[:-1]):
        return "whose __init_subclass__ would run"
    return "" if type(kind) is type else f"whose metaclass {type(kind).__name__} would run"


def _watching(kind: type[nn.Module], read: dict[nn.Module, dict[str, Any]]) -> type[nn.Module]:
    def note(module: nn.Module, name: str, value: Any) -> Any:
        if name in _MODULE_NAMES or issubclass(type(value), (Proxy, nn.Module, types.MethodType)):
            return value
        if issubclass(type(value), Tensor):
            raise UntraceableError(
                f"its forward reads the attribute {name!r}, a tensor that is no parameter or buffer"
            )
        if not _is_plain(value):
            raise UntraceableError(
                f"its forward reads the attribute {name!r}, a {type(value).__name__}, which can change"
            )
        if "<" in getattr(value, "__qualname__", "") and getattr(kind, name, None) is value:
            raise UntraceableError(
                f"its class holds {name!r}, a function without a name by which a route could be pickled"
            )
        read.setdefault(module, {})[name] = value
        return value

    def get(self: nn.Module, name: str) -> Any:
        return note(self, name, kind.__getattribute__(self, name))

    def get_missing(self: nn.Module, name: str) -> Any:
        return note(self, name, kind.__getattr__(self, name))

    def refuse(self: nn.Module, name: str, value: Any = None) -> None:
        if name.startswith("_tensor_constant"):
            raise UntraceableError("its forward makes a tensor, which may be another one in every call")
        raise UntraceableError(f"its forward sets the attribute {name!r}")

    members: dict[str, Any] = {"__getattribute__": get, "__getattr__": get_missing}
    members |= {"__setattr__": refuse, "__delattr__": refuse, "__module__": kind.__module__}
    members |= {"__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), members)


def _is_plain(value: Any) -> bool:
    """Whether a value cannot change, and is compared by `==`."""
    if type(value) is tuple:
        return all(_is_plain(part) for part in value)
    return isinstance(value, _PLAIN)


def _conditions(
    block: nn.Module, inline: frozenset[nn.Module], read: dict[nn.Module, dict[str, Any]]
) -> tuple[Condition, ...]:
    """What the code takes for granted: of modules traced through everything, of others what was read."""
    conditions = []
    first: dict[nn.Module, tuple[str, ...]] = {}
    open_paths = {()}  # the block, what is traced through, and the lists that these hold
    for name, module in block.named_modules(remove_duplicate=False):
        path = tuple(name.split(".")) if name else ()
        inlined = module is block or module in inline
        listed = isinstance(module, _CONTAINERS) and path[:-1] in open_paths
        attributes = tuple(read.get(module, {}).items())
        if first.setdefault(module, path) != path and path[:-1] in open_paths:
            conditions.append(Condition(path, same_as=first[module]))
        if inlined or listed:
            open_paths.add(path)
            kind = type(module) if path else None
            bypassed, children, tensors = inlined and bool(path), children_of(module), tensors_of(module)
            conditions.append(Condition(path, kind, bypassed, children, attributes, tensors=tensors))
        elif attributes:
            conditions.append(Condition(path, None, False, None, attributes))
    return tuple(conditions)


def _of_dtypes(asked: dict[str, torch.dtype]) -> Iterator[Condition]:
    for parameter, dtype in asked.items():
        *path, name = parameter.split(".")
        yield Condition(tuple(path), dtypes=((name, dtype),))


def _code(graph: Graph) -> str:
    return graph.python_code("self").src
