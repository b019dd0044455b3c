"""Joins what the processes of a group have read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch.distributed
from torch.distributed import ProcessGroup

from normwright.errors import RankError
from normwright.statistics.estimate import Estimate
from normwright.statistics.layers import Layer


@dataclass(frozen=True, eq=False)
class Seen:
    """What one layer has seen.

    Args:
        estimate: of its population.
        uses: how often it was called.
        eps: as its calls had it.
    """

    estimate: Estimate
    uses: int
    eps: float

    def merged(self, other: Seen) -> Seen:
        """What both have seen."""
        return Seen(self.estimate.merged(other.estimate), self.uses + other.uses, self.eps)


@dataclass(frozen=True, eq=False)
class Share:
    """What one process has read.

    Args:
        layers: what each has seen.
        samples, batches: how many were read.
        failure: what went wrong, or "".
    """

    layers: Mapping[Layer, Seen] = field(default_factory=dict)
    samples: int = 0
    batches: int = 0
    failure: str = ""


def joined(share: Share, group: ProcessGroup | None) -> Share:
    """The shares of all processes merged in the order of their ranks, so that all get the same bits.

    Shares may be unequal or empty. Every process must call this, one that failed too.

    Raises:
        RankError: a process failed, or does not answer within the group's time limit.
    """
    if group is None:
        return share
    shares: list[Share | None] = [None] * torch.distributed.get_world_size(group)
    try:
        torch.distributed.all_gather_object(shares, share, group=group)
    except RuntimeError as error:
        raise RankError(
            "every process of the group must hand in its share within the group's time limit, but one died "
            f"or came too late ({str(error).splitlines()[0]}); the network is as it was. Start the processes "
            "anew, or give init_process_group a longer timeout"
        ) from error
    present = [share for share in shares if share is not None]
    failed = {rank: share.failure for rank, share in enumerate(present) if share.failure}
    if failed and not share.failure:
        raise RankError(
            "every process of the group must read its share, but "
            + "; ".join(f"rank {rank} failed: {failure}" for rank, failure in failed.items())
            + ". The network is as it was: mend that process, and start all anew"
        )
    whole = Share()
    for part in present:
        whole = _merged(whole, part)
    return whole


def _merged(one: Share, other: Share) -> Share:
    layers = dict(one.layers)
    for layer, seen in other.layers.items():
        layers[layer] = layers[layer].merged(seen) if layer in layers else seen
    return Share(layers, one.samples + other.samples, one.batches + other.batches)
