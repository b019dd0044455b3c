"""Runs a network in inference and looks at what its normalisers are given, leaving no trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from normwright.errors import DataError, OptionError
from normwright.network.batch_call import Caller
from normwright.network.calling import call_of, without_compiled_code
from normwright.network.writing import write

#: Runs the network on a batch and returns its output.
Forward = Callable[[nn.Module, Any], Any]


@dataclass
class Calls:
    """How a normaliser was called.

    Args:
        shapes: of its inputs, each once, in order.
        count: how often a batch calls it, at the most.
        like: an empty tensor of its inputs' dtype and device.
    """

    shapes: dict[tuple[int, ...], None] = field(default_factory=dict)
    count: int = 0
    like: Tensor | None = None

    def space(self) -> int:
        """The fewest positions per channel that it met."""
        return min(_product(shape[2:]) for shape in self.shapes)

    def sample_shape(self) -> tuple[int, ...] | None:
        """The shape of a sample, (C, *space), if all have one."""
        samples = {shape[1:] for shape in self.shapes}
        return samples.pop() if len(samples) == 1 else None


def call_with_example(network: nn.Module, example: Any) -> Any:
    """An example, of which the network is given clones; see `call_of`."""
    return call_of(example).map(torch.clone).of(network)


def calling_with_batch(forward_fn: Forward | None) -> Forward:
    """Calls a network with what a data loader gives; see `Caller`."""

    def forward(network: nn.Module, batch: Any) -> Any:
        return Caller(network, forward_fn)(batch)

    return forward


@contextlib.contextmanager
def inference(network: nn.Module, fitted: Collection[nn.Module] = ()) -> Iterator[None]:
    """Inference mode without gradients; modes, buffers and random state are put back.

    A forward may have put another tensor in the place of a buffer: the buffer itself comes back.

    Args:
        network: what is run.
        fitted: those of its modules that are given other buffers meanwhile, and keep them.
    """
    modes = [(module, module.training) for module in network.modules()]
    seats = [
        (module, key, buffer, None if buffer is None or buffer.is_meta else buffer.detach().clone())
        for module in network.modules()
        for key, buffer in module._buffers.items()
    ]
    devices = {tensor.device for tensor in network.parameters() if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            network.eval()
            with torch.no_grad(), without_compiled_code():
                yield
        finally:
            for module, training in modes:
                module.training = training
            for module, key, buffer, saved in seats:
                if module not in fitted:
                    module._buffers[key] = buffer
                if buffer is not None and saved is not None and not torch.equal(buffer, saved):
                    write(buffer, saved)


@contextlib.contextmanager
def watching(modules: dict[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Calls see(name, x) whenever one of the modules is called with x."""
    handles = []
    for name, module in modules.items():

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
            see(name, next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)))

        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def observe(
    network: nn.Module, modules: dict[str, nn.Module], batches: Iterable[Any], forward: Forward
) -> dict[str, Calls]:
    """The calls of some modules on some batches, in the order in which a batch reaches them."""
    seen: dict[str, Calls] = {}
    current: dict[str, int] = {}

    def see(name: str, x: Tensor) -> None:
        calls = seen.setdefault(name, Calls(like=torch.empty(0, dtype=x.dtype, device=x.device)))
        calls.shapes[tuple(x.shape)] = None
        current[name] = current.get(name, 0) + 1

    with inference(network), watching(modules, see):
        for batch in batches:
            current.clear()
            forward(network, batch)
            for name, count in current.items():
                seen[name].count = max(seen[name].count, count)
    return seen


def repeatable(batches: Iterable[Any]) -> Iterable[Any]:
    """The batches, kept where they can be read only once.

    Raises:
        OptionError: not iterable, or a tensor.
        DataError: there is no batch.
    """
    if isinstance(batches, (Tensor, Mapping)) or not isinstance(batches, Iterable):
        raise OptionError(
            f"calibrate= must be an iterable of batches, but is {type(batches).__name__}: put it in a list"
        )
    again: Iterable[Any] = list(batches) if iter(batches) is batches else batches
    if isinstance(again, Sequence) and not again:
        raise DataError("calibrate= must give at least one batch, but gives none")
    return again


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
