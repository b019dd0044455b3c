"""Joins what the processes of a group have read."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch.distributed
from torch.distributed import ProcessGroup

from normwright.errors import RankError
from normwright.statistics.layers import Layer

if TYPE_CHECKING:
    from typing_extensions import Self


class Mergeable(Protocol):
    """What was seen, and joins with more of it."""

    def merged(self, other: Self) -> Self:
        """What both have seen."""


Seen = TypeVar("Seen", bound=Mergeable)


@dataclass(frozen=True, eq=False)
class Share(Generic[Seen]):
    """What one process has read.

    Args:
        layers: what each has seen.
        samples, batches: how many were read.
        failure: what went wrong, or "".
        call: what was asked of which layers, in words.
    """

    layers: Mapping[Layer, Seen] = field(default_factory=dict)
    samples: int = 0
    batches: int = 0
    failure: str = ""
    call: tuple[str, ...] = ()


def joined(share: Share[Seen], group: ProcessGroup | None, call: Sequence[str] = ()) -> Share[Seen]:
    """The shares of all processes merged in the order of their ranks, so that all get the same bits.

    Shares may be unequal or empty. Every process must call this, one that failed too.

    Args:
        share: this process's.
        group: the processes; None for this one alone.
        call: what is asked of which layers, the same in words in each.
    Raises:
        RankError: a process failed, made another call, or does not answer within the group's time limit.
    """
    if group is None:
        return share
    share = replace(share, call=tuple(call))
    shares: list[Share[Seen] | None] = [None] * torch.distributed.get_world_size(group)
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
    if not share.failure:
        _check_alike([part.call for part in present])
    whole: Share[Seen] = Share()
    for part in present:
        whole = _merged(whole, part)
    return whole


@contextlib.contextmanager
def telling_others(group: ProcessGroup | None) -> Iterator[None]:
    """Inside, an exception reaches the other processes of the group as a RankError in `joined`."""
    try:
        yield
    except Exception as error:
        if group is not None:
            failed: Share[Any] = Share(failure=f"{type(error).__name__}: {error}")
            with contextlib.suppress(RankError):  # what went wrong here is what is told here
                joined(failed, group)
        raise


def _check_alike(calls: Sequence[tuple[str, ...]]) -> None:
    """Raises where processes would mix the statistics of unlike calls, or go on with unlike results."""
    for rank, call in enumerate(calls):
        unlike = next((pair for pair in itertools.zip_longest(calls[0], call) if len(set(pair)) > 1), None)
        if unlike is not None:
            raise RankError(
                "every process of the group must make the same call on the same network, but rank 0 has "
                f"{unlike[0] or 'no more layers'} where rank {rank} has {unlike[1] or 'no more layers'}. The "
                "network is as it was"
            )


def _merged(one: Share[Seen], other: Share[Seen]) -> Share[Seen]:
    layers = dict(one.layers)
    for layer, seen in other.layers.items():
        layers[layer] = layers[layer].merged(seen) if layer in layers else seen
    return Share(layers, one.samples + other.samples, one.batches + other.batches)
