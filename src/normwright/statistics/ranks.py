"""Joins what the processes of a group have read."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch.distributed
from torch import nn
from torch.distributed import ProcessGroup

from normwright.errors import OptionError, RankError
from normwright.functional.collectives import ranks_of
from normwright.network.spread import spread_by
from normwright.statistics.layers import Layer

if TYPE_CHECKING:
    from typing_extensions import Self


class Mergeable(Protocol):
    """What was seen, and joins with more of it."""

    def merged(self, other: Self) -> Self:
        """What both have seen."""


Seen = TypeVar("Seen", bound=Mergeable)
Batch = TypeVar("Batch")

# What a process says before it reads a batch that the others must have too.
_ANOTHER = "another batch"


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

    Shares may be unequal or empty. Every process must call this, but one that failed (`telling_others`).

    Args:
        share: this process's.
        group: the processes; None for this one alone.
        call: what is asked of which layers, the same in words in each.
    Raises:
        RankError: a process failed, made another call, or does not answer within the group's time limit.
    """
    if group is None:
        return share
    present: list[Share[Seen]] = exchanged(replace(share, call=tuple(call)), group)
    _check_alike([part.call for part in present])
    whole: Share[Seen] = Share()
    for part in present:
        whole = _merged(whole, part)
    return whole


def exchanged(own: Any, group: ProcessGroup, asked: str = "hand in its share") -> list[Any]:
    """What each process of the group has, in the order of their ranks. Every process must call this.

    Args:
        own: this process's.
        asked: what every process must do, in words.
    Raises:
        RankError: a process failed, has no batch where others have one, or does not answer in time.
    """
    present: list[Any] = [None] * torch.distributed.get_world_size(group)
    try:
        torch.distributed.all_gather_object(present, own, group=group)
    except RuntimeError as error:
        raise RankError(
            f"every process of the group must {asked} within the group's time limit, but one died "
            f"or came too late ({str(error).splitlines()[0]}); the network is as it was. Start the processes "
            "anew, or give init_process_group a longer timeout"
        ) from error
    if isinstance(own, Share) and own.failure:
        return present
    shares = {rank: each for rank, each in enumerate(present) if isinstance(each, Share)}
    failed = {rank: share.failure for rank, share in shares.items() if share.failure}
    if failed:
        raise RankError(
            "every process of the group must read its share, but "
            + "; ".join(f"rank {rank} failed: {failure}" for rank, failure in failed.items())
            + ". The network is as it was: mend that process, and start all anew"
        )
    ended = [rank for rank, each in enumerate(present) if each != _ANOTHER]
    if 0 < len(ended) < len(present):
        raise RankError(
            "every process of the group must have as many batches where a forward of the network waits for "
            f"the others, but rank {ended[0]} has no more where rank {present.index(_ANOTHER)} has one. The "
            "network is as it was: give each as many"
        )
    return present


def why_it_waits(network: nn.Module, watched: Collection[nn.Module]) -> str:
    """Why a forward of the network waits for other processes, in words, or "".

    Args:
        network: of which each process has a replica, or its part.
        watched: normalisers that run in inference mode whatever theirs is, and wait for nobody.
    """
    by = spread_by(network)
    if by:
        return f"{by} spread the network"
    quiet = set(watched)
    for name, module in network.named_modules():
        synchronises = isinstance(module, nn.SyncBatchNorm) and module.training and module not in quiet
        if synchronises and ranks_of(module.process_group) is not None:
            return f"{name!r}, which is left alone, synchronises its batches"
    return ""


def in_step(batches: Iterable[Batch], waits: str, group: ProcessGroup | None) -> Iterator[Batch]:
    """The batches; where a forward waits for other processes, each once all have one.

    Args:
        batches: of this process.
        waits: why a forward does, or "".
        group: the processes; None for this one alone.
    """
    for batch in batches:
        if waits and group is not None:
            exchanged(_ANOTHER, group)
        yield batch


def agreed(own: bool, group: ProcessGroup | None) -> bool:
    """Whether it is so in every process, each of which must ask, after the same batch.

    Args:
        own: whether it is so in this one.
        group: the processes; None for this one alone.
    """
    return own if group is None else all(exchanged(own, group))


def check_group(group: object) -> None:
    """Raises OptionError where it is no group, or none of this process."""
    if group is None or isinstance(group, ProcessGroup):
        return
    outside = group == torch.distributed.GroupMember.NON_GROUP_MEMBER
    came = "one that this process is not in" if outside else repr(group)
    raise OptionError(
        "process_group must be a torch.distributed.ProcessGroup that this process is in, or None, but is "
        f"{came}: make the call in the group's processes alone, and take mesh.get_group() of a device mesh"
    )


class Others:
    """The other processes, which cannot be told of a failure while they wait in a forward.

    A collective would meet theirs, which sends something else, and the process that failed would be aborted
    with its error unsaid. They raise PyTorch's own when its connection breaks.
    """

    def __init__(self) -> None:
        self.can_be_told = True

    def calling(self, call: Callable[[Batch], object], waits: str) -> Callable[[Batch], object]:
        """The call itself; in one that waits for others, these wait too."""
        if not waits:
            return call

        def together(batch: Batch) -> object:
            self.can_be_told = False
            output = call(batch)
            self.can_be_told = True
            return output

        return together


@contextlib.contextmanager
def telling_others(group: ProcessGroup | None) -> Iterator[Others]:
    """Inside, an exception reaches the other processes of the group as a RankError in `exchanged`."""
    others = Others()
    try:
        yield others
    except RankError:  # which the others have, too
        raise
    except Exception as error:
        if group is not None and others.can_be_told:
            failed: Share[Any] = Share(failure=f"{type(error).__name__}: {error}")
            with contextlib.suppress(RankError):  # what went wrong here is what is told here
                exchanged(failed, group)
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
