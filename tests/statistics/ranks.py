"""One process of a group that recalibrates; run as a program by test_ranks.py."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

import normwright as nw

# Seconds that the group waits for a process.
LIMIT = 5


def network() -> nn.Module:
    """The same in each process."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), nn.SyncBatchNorm(2))


def batches(rank: int) -> list[torch.Tensor]:
    """Unequal shares: none, one batch and two."""
    draw = torch.Generator().manual_seed(rank)
    return [torch.randn(5 + rank + n, 3, generator=draw) + rank for n in range(rank)]


def failing() -> object:
    """A loader that raises half-way."""
    yield batches(1)[0]
    raise OSError("the disk is gone")


def main(rank: int, world: int, folder: Path, case: str) -> None:
    """Recalibrates, and saves the state, or the error, with whether the network is as it was."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=LIMIT),
    )
    replica = network().train(case == "training")
    before = {name: value.clone() for name, value in replica.state_dict().items()}
    if rank == 1 and case == "dies":
        os._exit(9)
    share = failing() if rank == 1 and case == "fails" else batches(rank)
    if case == "nothing":
        share = []
    saved: dict[str, object] = {}
    try:
        handle = nw.recalibrate(replica, share, process_group=torch.distributed.group.WORLD)
        saved["samples"] = handle.samples
        saved["elements"] = [layer.elements for layer in handle.layers]
    except Exception as error:
        saved["error"] = f"{type(error).__name__}: {error}"
        saved["same"] = all(torch.equal(before[name], value) for name, value in replica.state_dict().items())
    saved["state"] = dict(replica.state_dict())
    torch.save(saved, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    # The interpreter is not taken down: see tests/nn/replica.py.
    os._exit(0)
