"""Tensors of which every process holds a part (`torch.distributed.tensor.DTensor`), and computes its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from normwright.errors import OptionError


def is_sharded(x: Tensor) -> bool:
    """Whether it is a DTensor, known by its name: importing its class takes as long as PyTorch itself.

    Example:
        >>> import torch
        >>> is_sharded(torch.ones(1))
        False
    """
    return type(x).__name__ == "DTensor"


def whole(x: Tensor) -> Tensor:
    """A DTensor's parts gathered, for which the processes that hold them are waited for; else x itself."""
    return x.full_tensor() if is_sharded(x) else x  # type: ignore[attr-defined]


def of_shards(
    function: Callable[..., Tensor],
    x: Any,
    residual: Tensor | None,
    parameters: Sequence[Tensor | None],
    settings: Sequence[Any],
    undivided: Iterable[int],
    out: Tensor | None = None,
) -> Tensor:
    """What a function makes of a DTensor, of which every process computes its own part.

    x stays sharded along every axis but those that must be whole, over which it is gathered first, as it is
    where it is a partial sum. The parameters are whole in each process, and their gradients are the sums of
    those of the parts.

    Args:
        function: of x, residual, the parameters and the settings, as one process has them; its result has
            x's shape.
        undivided: axes that moments are taken over, or that the parameters lie along.
        out: what the caller gave as such; None.
    """
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    if out is not None:
        raise OptionError(
            "out= must be None with a DTensor, whose result may be placed otherwise: leave it out"
        )
    kept = set(range(x.dim())).difference(undivided)
    placements = [p if type(p) is Shard and p.dim in kept else Replicate() for p in x.placements]
    everywhere = [Replicate()] * len(placements)
    summed = [Partial() if isinstance(p, Shard) else p for p in placements]
    y = function(
        *(None if t is None else _local(t, x, placements, placements) for t in (x, residual)),
        *(None if t is None else _local(t, x, everywhere, summed) for t in parameters),
        *settings,
    )
    return DTensor.from_local(y, x.device_mesh, placements, shape=x.shape, stride=_strides(y, x.shape))


def _strides(part: Tensor, shape: Sequence[int]) -> tuple[int, ...]:
    """Of a whole whose axes lie in the order of a part's: of a slice, the output is dense and x is not."""
    strides, step = [0] * len(shape), 1
    for axis in sorted(range(len(shape)), key=lambda axis: (part.stride(axis), -axis)):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


def replica(statistic: Any, x: Any) -> Tensor | None:
    """A statistic that every process holds the whole of, as its own memory, which may be written.

    Args:
        statistic: that goes with x; or None.
        x: the input, a DTensor.
    """
    if statistic is None:
        return None
    if not is_sharded(statistic) or not all(p.is_replicate() for p in statistic.placements):
        raise OptionError(
            "running statistics must be replicated DTensors where the input is a DTensor, but are "
            f"{_in_words(statistic)}: distribute the module by torch.distributed.tensor.distribute_module, "
            "or give it the input's full_tensor()"
        )
    local: Tensor = statistic.to_local()
    return local


def check_goes_with(x: Tensor, name: str, tensor: Tensor) -> None:
    """Refuses a DTensor beside an input that is none."""
    if is_sharded(tensor) and not is_sharded(x):
        raise OptionError(
            f"the input must be a DTensor where {name} is one, but is {_in_words(x)} beside "
            f"{_in_words(tensor)}: distribute it too (torch.distributed.tensor.distribute_tensor, or "
            f"SequenceParallel in the plan of parallelize_module), or give {name}'s full_tensor()"
        )


def check_not_sharded(name: str, x: Tensor) -> None:
    """Refuses a DTensor."""
    if is_sharded(x):
        raise OptionError(
            f"the input of {name} must be a plain tensor, but is {_in_words(x)}: give it the input's "
            "full_tensor(), or its to_local() where each process shall normalise its own part by itself"
        )


def _local(tensor: Any, x: Any, placements: Sequence[Any], gradients: Sequence[Any]) -> Tensor:
    if not is_sharded(tensor):
        raise OptionError(
            "weight, bias and residual must be DTensors where the input is one, but a plain tensor of shape "
            f"{list(tensor.shape)} came: distribute the module (parallelize_module, with SequenceParallel "
            "for a normaliser, or distribute_module), or give it the input's to_local() or full_tensor()"
        )
    local: Tensor = tensor.redistribute(x.device_mesh, placements).to_local(grad_placements=gradients)
    return local


def _in_words(tensor: Any) -> str:
    if not is_sharded(tensor):
        return f"a plain tensor of shape {list(tensor.shape)}"
    return f"a DTensor of shape {list(tensor.shape)}, placed {tuple(tensor.placements)}"
