"""One of two processes of test_freezing.py: trains a frozen replica, and keeps what it has learnt.

python frozen_replica.py RANK FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

import torch  # in the folder above lies what is shared
from processes import process_group
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import normwright as nw


def main(rank: int, folder: Path) -> None:
    """Three steps of gradient descent on batches of one's own."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nw.nn.FrozenBatchNorm2d(4), nn.Flatten())
    replica = DistributedDataParallel(nw.freeze(network, inplace=True).train())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD(replica.parameters(), lr=0.1)
    for step in range(3):
        draw = torch.Generator().manual_seed(10 * rank + step)
        optimiser.zero_grad()
        replica(torch.randn(2, 3, 5, 5, generator=draw)).pow(3).mean().backward()
        optimiser.step()
    torch.save({"before": before, "after": network.state_dict()}, folder / f"{rank}.pt")


if __name__ == "__main__":
    with process_group(int(sys.argv[1]), Path(sys.argv[2])):
        main(int(sys.argv[1]), Path(sys.argv[2]))
