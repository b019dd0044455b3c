"""One of the processes of test_synchronised: SyncBatchNorm on a device that all of them share.

python sharing.py RANK FOLDER DEVICE WORLD
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
sys.path += [str(TESTS / "nn"), str(TESTS / "functional"), str(TESTS)]

import torch  # noqa: E402  # in the folders above lies what is shared
from processes import process_group  # noqa: E402
from shares import SECOND_SHARES, second_case, second_derivatives  # noqa: E402
from synchronised import SHARES, WAYS, images, network, trained  # noqa: E402

from normwright.functional import sync_batch_norm  # noqa: E402
from normwright.functional.collectives import Ranks  # noqa: E402
from normwright.statistics import recalibrate  # noqa: E402


def ask_one_process() -> None:
    """Lets a group of one process make the collectives that it does without: they are what is tried."""
    module = importlib.import_module("normwright.functional.sync_batch_norm")
    group: Any = torch.distributed.group.WORLD
    alone = Ranks(group.group_name, 1)
    module.ranks_of = lambda process_group: alone


def second(activation: str | None, rank: int, shares: Sequence[int], device: str) -> list[torch.Tensor]:
    """The second and third derivatives of this rank's share."""
    x, dy, v, weight = (tensor.to(device) for tensor in second_case(activation))
    mine = [tensor.split(list(shares))[rank] for tensor in (x, dy, v)]
    return [part.cpu() for part in second_derivatives(sync_batch_norm, *mine, weight, activation)]


def recalibrated(rank: int, device: str, shares: Sequence[int]) -> dict[str, torch.Tensor]:
    """The state of a network whose statistics are those of all ranks' shares."""
    part = network().to(device)
    group = torch.distributed.group.WORLD
    recalibrate(part, [images(0).split(list(shares))[rank]], process_group=group)
    return {name: value.cpu() for name, value in part.state_dict().items()}


def main(rank: int, folder: Path, device: str, world: int) -> None:
    """Saves what this rank found."""
    # PyTorch's tracer instantiates autograd functions, and warns that one should not.
    warnings.simplefilter("ignore", DeprecationWarning)
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.set_device(0)
    # Two processes cannot join one GPU in NCCL.
    with process_group(rank, folder, "nccl" if on_gpu and world == 1 else "gloo", world):
        if world == 1:
            ask_one_process()
        steps = SHARES if world > 1 else [(sum(shares),) for shares in SHARES]
        found: dict[str, Any] = {way: trained(way, rank, device, steps) for way in WAYS}
        shares = SECOND_SHARES if world > 1 else (sum(SECOND_SHARES),)
        found["second"] = {str(a): second(a, rank, shares, device) for a in (None, "silu")}
        found["recalibrated"] = recalibrated(rank, device, steps[0])
        empty = torch.ones(0, 3, 4, device=device, requires_grad=True)
        y = sync_batch_norm(empty, None, None, training=True)
        found["all empty"] = [y.detach().cpu(), *(d.cpu() for d in torch.autograd.grad(y.sum(), [empty]))]
        torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
