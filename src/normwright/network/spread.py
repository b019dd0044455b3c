"""Networks that several processes train together.

Where their parameters are spread over the processes, a forward waits for the others.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from normwright.errors import ConversionError
from normwright.functional.sharded import is_sharded

# By their names: to import these classes takes as long as PyTorch itself.
_FULLY_SHARD, _FSDP = "FSDPModule", "FullyShardedDataParallel"
_DDP = "DistributedDataParallel"

#: Of what `spread_by` says, the ways of FSDP, which copies no network.
FSDP = ("fully_shard", "FullyShardedDataParallel")


def spread_by(network: nn.Module) -> str:
    """What spread a network's parameters over processes, or "".

    Example:
        >>> spread_by(nn.Linear(2, 2))
        ''
    """
    names = _classes_in(network)
    if _FULLY_SHARD in names:
        return FSDP[0]
    # A network has its parameters in pieces too where the wrapper is around it, as Lightning has it.
    if _FSDP in names or any(getattr(p, "_fsdp_flattened", False) for p in network.parameters()):
        return FSDP[1]
    if any(map(is_sharded, network.parameters())):
        return "a tensor-parallel plan"
    return ""


def is_fully_sharded(module: nn.Module) -> bool:
    """Whether `fully_shard` was called on the module itself, which gives it a class of its own."""
    return any(kind.__name__ == _FULLY_SHARD for kind in type(module).__mro__)


def check_parameters_stay(network: nn.Module, before: Collection[nn.Parameter], *, buffered: bool) -> None:
    """Raises ConversionError where a wrapper would not join the gradients of parameters over the processes.

    A wrapper joins those of the parameters that it met when it was made. DistributedDataParallel sends the
    buffers about too, and fails inside where none is left.

    Args:
        network: as it is now.
        before: its parameters when the wrapper was made.
        buffered: whether it had buffers then.
    """
    by = spread_by(network) or (_DDP if _DDP in _classes_in(network) else "")
    if not by:
        return
    known = set(map(id, before))
    now = {id(parameter): name for name, parameter in network.named_parameters()}
    new = [name for key, name in now.items() if key not in known]
    if new or len(now) < len(known):
        what = f"{new[0]!r} would be a new one" if new else "some would be gone"
        raise ConversionError(
            f"the parameters of a network must stay the same objects once {by} knows them, since it joins "
            f"the gradients of no others over the processes, but {what}; nothing was changed. Convert the "
            "network first, and wrap it then"
        )
    if by == _DDP and buffered and not any(True for _ in network.buffers()):
        raise ConversionError(
            f"a network must keep a buffer once {by} knows some, which it sends to all processes, but none "
            "would be left; nothing was changed. Convert the network first, and wrap it then"
        )


def _classes_in(network: nn.Module) -> set[str]:
    return {kind.__name__ for module in network.modules() for kind in type(module).__mro__}
