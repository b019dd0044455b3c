"""Sums and merges over the processes of a group, with the same bits on each.

Every process gathers what all have, and adds it up in the order of their ranks: neither the backend's way
of reducing nor the number of processes on a machine enters the result.

These are PyTorch's functional collectives, which `torch.compile` takes into its graph. Where the group leaves
a device to gloo, which says that it serves GPUs and does not gather there, the tensor goes over the CPU. A
process that fails makes the others raise, at the latest when the group's time limit is over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from normwright.backends.merged import Merged, merge


class Ranks(NamedTuple):
    """The processes of a group: the name that an operator knows it by, and how many they are.

    Of the devices of the types in `over_cpu`, tensors are gathered over the CPU.
    """

    name: str
    size: int
    over_cpu: tuple[str, ...] = ()


def ranks_of(process_group: Any | None) -> Ranks | None:
    """The processes that a call is to be synchronised over; None where this one is alone.

    Args:
        process_group: a group of torch.distributed, or None for all processes.
    """
    if not torch.distributed.is_available():
        return None
    # A graph is guarded by WORLD, not by `is_initialized`, which 2.10's Dynamo needs: None is a group to it.
    if torch.distributed.group.WORLD is None or not torch.distributed.is_initialized():
        return None
    group: Any = torch.distributed.group.WORLD if process_group is None else process_group
    size = torch.distributed.get_world_size(group)
    if size <= 1:  # -1 outside the group
        return None
    # `get_backend_config` says the same, by way of a function that 2.10's Dynamo does not trace.
    backends = torch.distributed.distributed_c10d._world.pg_backend_config[group]
    return Ranks(group.group_name, size, left_to_gloo(backends))


def left_to_gloo(backends: str) -> tuple[str, ...]:
    """The types of device, but for the CPU, that a group has gloo for.

    Args:
        backends: of each type, as `torch.distributed.get_backend_config` says it.
    Example:
        >>> left_to_gloo("cpu:gloo,cuda:gloo"), left_to_gloo("cpu:gloo,cuda:nccl")
        (('cuda',), ())
    """
    pairs = [entry.split(":") for entry in backends.split(",")]
    return tuple(device for device, backend in pairs if backend == "gloo" and device != "cpu")


def gathered(value: Tensor, ranks: Ranks) -> Tensor:
    """(size, *value's shape), on value's device: what each process has, in the order of their ranks."""
    collectives = torch.ops._c10d_functional
    sent = value.cpu() if value.device.type in ranks.over_cpu else value
    started = collectives.all_gather_into_tensor(sent.contiguous(), ranks.size, ranks.name)
    everything: Tensor = collectives.wait_tensor(started)
    return everything.view(ranks.size, *value.shape).to(value.device)


def joined_moments(x: Tensor, ranks: Ranks) -> Merged:
    """Count, mean and M2 of each channel over the batches of all processes, in one collective."""
    channels = x.shape[1]
    count, mean, m2 = torch.ops.normwright.channel_moments(x)
    everything = gathered(torch.cat([mean, m2, count.view(1)]), ranks)
    means, m2s, counts = everything.split([channels, channels, 1], dim=1)
    return merge(counts.squeeze(1), means, m2s)


def joined_sum(value: Tensor, ranks: Ranks) -> Tensor:
    """Σ over the processes, in one collective."""
    return gathered(value, ranks).sum(0)


class DifferentiableSum(torch.autograd.Function):
    """`joined_sum`, to be differentiated any number of times.

    The loss is the sum of what the processes have as theirs. Each has the whole sum in its part, so that the
    gradient by one summand is the sum of the gradients that the processes have: the same collective again.
    """

    @staticmethod
    def forward(value: Tensor, ranks: Ranks) -> Tensor:
        """The sum."""
        return joined_sum(value, ranks)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keeps the group."""
        ctx.ranks = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The sum of the gradients."""
        return DifferentiableSum.apply(gradient, ctx.ranks), None
