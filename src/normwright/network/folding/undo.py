"""Changes a network as a whole, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normwright.network.writing import write

_CONTAINERS = (dict, set, list)


@contextlib.contextmanager
def all_or_nothing(network: nn.Module) -> Iterator[None]:
    """Within it a network is changed; where something is raised, the network is what it was before.

    Kept are every module's class and attributes, and the values of the parameters and buffers: each object
    is the same as before, and what refers to it stays right.
    """
    modules = [(module, type(module), dict(vars(module))) for module in network.modules()]
    contents = [
        (container, container.copy())
        for _, _, attributes in modules
        for container in attributes.values()
        if isinstance(container, _CONTAINERS)
    ]
    tensors = [
        (tensor, tensor.detach().clone()) for tensor in _tensors(network) if _may_be_written_to(tensor)
    ]
    try:
        yield
    except BaseException:
        for module, kind, attributes in modules:
            object.__setattr__(module, "__class__", kind)
            vars(module).clear()
            vars(module).update(attributes)
        for container, content in contents:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(content)
        for tensor, value in tensors:
            if not torch.equal(tensor.detach(), value):
                write(tensor, value)
        raise


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _may_be_written_to(tensor: Tensor) -> bool:
    plain = tensor.layout is torch.strided and tensor.device.type != "meta" and not tensor.is_quantized
    return plain and not is_lazy(tensor)
