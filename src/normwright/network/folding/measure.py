"""Times a folded network against the unfolded one on an example."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from normwright.network.calling import Call, tensors_of
from normwright.network.folding.report import FoldSpeed

# Fewer calls of each network say nothing of its time.
LEAST_CALLS = 5


def time_in_turn(networks: Sequence[nn.Module], call: Call, *, seconds: float) -> tuple[FoldSpeed, ...]:
    """The time of each network after the first, against the first.

    Args:
        networks: the unfolded one, and others.
        call: the example.
        seconds: about how long to go on, with at least `LEAST_CALLS` and at most 101 calls of each.
    """
    device = next((value.device for value in tensors_of([call.args, call.named])), torch.device("cpu"))
    taken: list[list[float]] = [[] for _ in networks]
    with torch.no_grad(), same_random_numbers():
        for network in networks:
            call.map(torch.clone).of(network)  # what is made once is made now
        start = time.perf_counter()
        while len(taken[0]) < LEAST_CALLS or (time.perf_counter() - start < seconds and len(taken[0]) < 101):
            for network, times in zip(networks, taken, strict=True):
                given = call.map(torch.clone)  # into which the network may write
                _wait(device)
                begun = time.perf_counter()
                given.of(network)
                _wait(device)
                times.append(time.perf_counter() - begun)
    first = taken[0]
    return tuple(
        FoldSpeed(
            statistics.median(first),
            statistics.median(times),
            statistics.median(b / a for a, b in zip(first, times, strict=True)),
            len(times),
        )
        for times in taken[1:]
    )


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Inside, the same from the start each time, and afterwards as if there had been none."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
