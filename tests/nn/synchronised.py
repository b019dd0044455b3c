"""One of the processes of test_synchronised: SyncBatchNorm in training, as networks use it.

python synchronised.py RANK FOLDER
"""

from __future__ import annotations

import copy
import os
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import torch  # in the folder above lies what is shared
from processes import process_group
from tolerances import SAME_DERIVATIVE
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from normwright import nn
from normwright.network import accelerate
from normwright.statistics import accumulate

SHARES = ((3, 2), (5, 0), (1, 4))  # of the ranks, at each step
WAYS = ("plainly", "channels last", "checkpointed", "compiled", "accelerated")


def network() -> torch.nn.Module:
    """Two normalisers, one with an activation; the same weights each time."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6, activation="silu"),
        torch.nn.Conv2d(6, 4, 3),
        torch.nn.BatchNorm2d(4, momentum=None),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 4 * 4, 2),
    ).double()


def images(step: int) -> torch.Tensor:
    """The batch of all ranks at one step."""
    draw = torch.Generator().manual_seed(step)
    return torch.randn(5, 3, 8, 8, generator=draw, dtype=torch.float64)


def alone() -> dict[str, torch.Tensor]:
    """The state after the same steps as `trained` in one process, with batch norm on the joined batch."""
    part = network()
    optimiser = torch.optim.SGD(part.parameters(), lr=0.1)
    for step, shares in enumerate(SHARES):
        optimiser.zero_grad()
        (part(images(step)).pow(3).sum() / sum(shares)).backward()
        optimiser.step()
    return dict(part.state_dict())


def trained(
    way: str, rank: int, device: str = "cpu", of_steps: Sequence[Sequence[int]] = SHARES
) -> dict[str, torch.Tensor]:
    """The state after some steps of gradient descent on the mean over all ranks' samples.

    Args:
        way: one of `WAYS`.
        rank: this process's.
        device: the network's.
        of_steps: for each step, how many samples each rank has.
    """
    part = network().to(device)
    if way == "channels last":
        part = part.to(memory_format=torch.channels_last)
    replica: Any = part
    if way == "compiled":
        nn.SyncBatchNorm.convert_sync_batchnorm(part)
        replica = torch.compile(part, fullgraph=True, backend="aot_eager", dynamic=False)
    elif device == "cpu":
        # It refuses SyncBatchNorm there, but not what its module becomes afterwards.
        replica = DistributedDataParallel(part)
        nn.SyncBatchNorm.convert_sync_batchnorm(part)
    else:
        replica = DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(part))
    if way == "accelerated":
        accelerate(part, inplace=True)
    optimiser = torch.optim.SGD(part.parameters(), lr=0.1)
    for step, shares in enumerate(of_steps):
        x = images(step).split(list(shares))[rank].to(device).requires_grad_()
        if way == "channels last":
            x = x.contiguous(memory_format=torch.channels_last)
        optimiser.zero_grad()
        y = checkpoint(replica, x, use_reentrant=False) if way == "checkpointed" else replica(x)
        # DistributedDataParallel takes the mean over ranks of the gradients
        (y.pow(3).sum() * len(shares) / sum(shares)).backward()
        if way == "compiled":
            for parameter in part.parameters():
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= len(shares)
        optimiser.step()
    return {name: value.cpu() for name, value in part.state_dict().items()}


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for rounding in float64; the depth of the network stands for the order of the derivative."""
    return float((one - other).abs().max()) <= SAME_DERIVATIVE * max(1.0, float(other.abs().max()))


def assert_as_in_one_process(
    way: str, ranks: Sequence[dict[str, Any]], joined: dict[str, torch.Tensor]
) -> None:
    """What each process has trained is what one has on the joined batches, and the same bits on all."""
    for seen in ranks:
        assert seen[way].keys() == joined.keys()
        for key, value in joined.items():
            assert close(seen[way][key], value), key
    assert all(torch.equal(seen[way][key], ranks[0][way][key]) for seen in ranks for key in joined)


def accumulated(rank: int) -> list[torch.Tensor]:
    """Running statistics of micro-batches that the ranks have unequal shares of."""
    norm = nn.SyncBatchNorm(3, dtype=torch.float64)
    with accumulate(norm):
        for step, shares in enumerate(SHARES):
            norm(images(step).split(list(shares))[rank])
    return [buffer.clone() for buffer in norm.buffers()]


def copies(rank: int) -> bool:
    """Whether a copy of a module with its own group is synchronised over the same."""
    norm = nn.SyncBatchNorm(3, process_group=torch.distributed.group.WORLD)
    twin = copy.copy(norm)
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(rank))
    return torch.equal(norm(x), twin(x))


def of_the_first(rank: int) -> bool:
    """Whether a module whose group is the first process alone is batch norm on both."""
    norm = nn.SyncBatchNorm(3, process_group=torch.distributed.new_group([0]))
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(rank))
    return torch.equal(norm(x), nn.BatchNorm1d(3)(x))


def left_alone(rank: int) -> str:
    """What happens where the other process does not come."""
    group = torch.distributed.new_group([0, 1], timeout=timedelta(seconds=1))
    norm = nn.SyncBatchNorm(3, process_group=group)
    torch.distributed.barrier()
    found = "" if rank else error_of(norm)
    torch.distributed.barrier()
    return found


def error_of(norm: torch.nn.Module) -> str:
    """What a call in training raises."""
    try:
        norm(torch.randn(2, 3, 4))
    except RuntimeError as error:
        return str(error)
    return "nothing"


def main(rank: int, folder: Path) -> None:
    """Saves what this rank found."""
    # PyTorch's tracer instantiates autograd functions, and warns that one should not.
    warnings.simplefilter("ignore", DeprecationWarning)
    with process_group(rank, folder):
        found: dict[str, Any] = {way: trained(way, rank) for way in WAYS}
        found["accumulated"] = accumulated(rank)
        found["copies"] = copies(rank)
        found["of the first"] = of_the_first(rank)
        found["left alone"] = left_alone(rank)
        if rank:
            torch.save(found, folder / f"{rank}.pt")
            os._exit(0)  # in the middle of what the other is about to begin
        found["died"] = error_of(nn.SyncBatchNorm(3))
        torch.save(found, folder / f"{rank}.pt")
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
