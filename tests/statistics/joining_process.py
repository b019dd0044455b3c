"""One process of a group that recalibrates and adapts; run as a program by test_ranks.py."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

import normwright as nw

# Seconds that the group waits for a process.
LIMIT = 20

CASES = (
    *("inference", "training", "adapt", "fails", "no loader"),
    *("equal weights", "equal weights by name", "other weight"),
    *("other option", "other layers", "other verb", "left alone", "nothing", "alone", "dies"),
)


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


def act(rank: int, case: str) -> dict[str, object]:
    """One case: the state afterwards, and the error, with whether the network is as it was."""
    replica = network().train(case in ("training", "left alone"))
    before = {name: value.clone() for name, value in replica.state_dict().items()}
    share = failing() if rank == 1 and case == "fails" else [] if case == "nothing" else batches(rank)
    verb, options = nw.adapt if case == "adapt" or "weight" in case else nw.recalibrate, {}
    if "weight" in case:
        weight = (16, 16.0, 16)[rank] if case != "other weight" else 16 + rank
        by_name = ({"1": weight, "4": 2}, {"4": 2.0, "1": weight}, {"1": weight, "4": 2})[rank]
        options = {"source_weight": by_name if "name" in case else weight}
    if rank == 1 and case == "no loader":
        share = None
    if rank == 1 and case == "other option":
        options = {"estimator": "within"}
    if rank == 1 and case == "other layers":
        options = {"layers": ["1"]}
    if case == "left alone":
        # PyTorch's refuses the CPU, and ours waits there for the other processes
        nw.nn.SyncBatchNorm.convert_sync_batchnorm(replica)
        options = {"layers": ["1"]}
    if rank == 1 and case == "other verb":
        verb = nw.adapt
    group = None if case == "alone" else torch.distributed.group.WORLD
    saved: dict[str, object] = {"state": replica.state_dict()}
    try:
        handle = verb(replica, share, process_group=group, **options)
        saved["samples"] = handle.samples
    except Exception as error:
        saved["error"] = f"{type(error).__name__}: {error}"
        saved["same"] = all(torch.equal(before[name], value) for name, value in replica.state_dict().items())
    return saved


def main(rank: int, world: int, folder: Path) -> None:
    """Every case in turn; in the last, one process dies."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=LIMIT),
    )
    saved = {}
    for case in CASES:
        if (rank, case) == (1, "dies"):
            torch.save(saved, folder / f"{rank}.pt")
            os._exit(9)
        saved[case] = act(rank, case)
    torch.save(saved, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    # The interpreter is not taken down: see tests/processes.py.
    os._exit(0)
