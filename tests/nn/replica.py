"""One of the processes of test_distributed: trains a replica, and keeps what it has learnt.

python replica.py RANK FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

import torch  # in the folder above lies what is shared
from processes import process_group
from torch.nn.parallel import DistributedDataParallel

from normwright import nn

STEPS = 3


def network() -> torch.nn.Module:
    """Every family once; the same weights each time."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8, activation="relu"),
        torch.nn.Conv2d(8, 8, 3),
        nn.GroupNorm(2, 8, activation="silu"),
        nn.InstanceNorm2d(8, affine=True),
        torch.nn.Flatten(),
        nn.LayerNorm(8 * 4 * 4),
        torch.nn.Linear(8 * 4 * 4, 6),
        nn.RMSNorm(6),
    ).double()


def images(rank: int, step: int) -> torch.Tensor:
    """The mini-batch of one rank at one step."""
    draw = torch.Generator().manual_seed(100 * rank + step)
    return torch.randn(4, 3, 8, 8, generator=draw, dtype=torch.float64)


def main(rank: int, folder: Path) -> None:
    """Steps of gradient descent; saves the gradients of each and the final state."""
    with process_group(rank, folder):
        replica = DistributedDataParallel(network())
        optimiser = torch.optim.SGD(replica.parameters(), lr=0.1)
        gradients = []
        for step in range(STEPS):
            optimiser.zero_grad()
            replica(images(rank, step)).pow(3).mean().backward()
            gradients.append([parameter.grad.clone() for parameter in replica.parameters()])
            optimiser.step()
        torch.save({"gradients": gradients, "state": replica.module.state_dict()}, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
