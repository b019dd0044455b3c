"""Records the operators of one real call of a network, as a flow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from normwright.network.calling import Call, tensors_of
from normwright.network.flow import Flow


def record(network: nn.Module, call: Call, how: str, note: str) -> Flow:
    """Runs a network once, without gradients, and notes every operator and what it read.

    Args:
        network: a copy without hooks.
        call: the arguments.
        how: of the flow.
        note: of the flow.
    """
    recorder = _Recorder()
    call = call.map(torch.clone)  # a network may write into what it is given
    names = {}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        names[recorder.placeholder(tensor, name.replace(".", "_"), constant=True)] = name
    for tensor in tensors_of([call.args, call.named]):
        recorder.placeholder(tensor, "example", constant=False)
    with torch.no_grad(), _calls_noted(network, recorder), recorder:
        output = call.of(network)
    recorder.graph.output([recorder.node_of(tensor) for tensor in tensors_of(output)])
    for node in reversed(recorder.graph.nodes):
        if node.target is _getitem and not node.users:
            recorder.graph.erase_node(node)
    return Flow(recorder.graph, names, recorder.constants, how, note)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()
        self.constants: dict[Node, Tensor] = {}
        self.calls: list[tuple[str, str]] = []
        self._nodes: dict[int, Node] = {}
        self._kept: list[Tensor] = []  # so that no other tensor gets the same id

    def placeholder(self, tensor: Tensor, name: str, *, constant: bool) -> Node:
        """A tensor that no operator makes."""
        first = next((node for node in self.graph.nodes if node.op != "placeholder"), None)
        with self.graph.inserting_before(first) if first is not None else _nowhere():
            node = self.graph.placeholder(name)
        if constant:
            self.constants[node] = tensor
        self._know(tensor, node)
        return node

    def node_of(self, tensor: Tensor) -> Node:
        """What made a tensor; one that came from elsewhere is a constant."""
        node = self._nodes.get(id(tensor))
        return self.placeholder(tensor, "constant", constant=True) if node is None else node

    def _know(self, tensor: Tensor, node: Node) -> None:
        node.meta["val"] = tensor
        self._nodes.setdefault(id(tensor), node)
        self._kept.append(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given, named = tree_map(lambda x: self.node_of(x) if isinstance(x, Tensor) else x, (args, kwargs))
        result = func(*args, **kwargs)
        node = self.graph.call_function(func, tuple(given), named)
        node.meta["nn_module_stack"] = {call: (name, "") for call, name in self.calls}
        if isinstance(result, Tensor):
            # What an operator wrote into is known already, and so has all of its readers.
            self._know(result, node)
        elif isinstance(result, (tuple, list)):
            for place, part in enumerate(result):
                if isinstance(part, Tensor):
                    item = self.graph.call_function(_getitem, (node, place))
                    item.meta["nn_module_stack"] = node.meta["nn_module_stack"]
                    self._know(part, item)
        return result


def _getitem(values: Any, place: int) -> Any:
    return values[place]


_getitem.__name__ = "getitem"


@contextmanager
def _nowhere() -> Iterator[None]:
    yield


@contextmanager
def _calls_noted(network: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Keeps the recorder told which modules are being called."""
    numbers = itertools.count()
    handles = []
    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(_entering(recorder, name, numbers)))
        handles.append(module.register_forward_hook(_leaving(recorder)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _entering(recorder: _Recorder, name: str, numbers: Iterator[int]) -> Callable[..., None]:
    def note(*_: Any) -> None:
        recorder.calls.append((f"{name}#{next(numbers)}", name))

    return note


def _leaving(recorder: _Recorder) -> Callable[..., None]:
    def note(*_: Any) -> None:
        recorder.calls.pop()

    return note
