"""A small network around each member of the family of normalisers, and what it is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import normwright.nn as ours

SAMPLES, CHANNELS, LENGTH = 32, 6, 8


class Image(nn.Module):
    """(N, 6, 8): what stands before the norm, the norm, and a head."""

    def __init__(self, norm: nn.Module, before: nn.Module | None = None) -> None:
        super().__init__()
        self.before = before or nn.Identity()
        self.norm = norm
        self.head = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.before(x))).mean(-1))


class Padded(Image):
    """The same of sequences, whose padding is zero in all channels."""

    def forward(self, x: Tensor) -> Tensor:
        counts = (x != 0).any(1)
        return self.head(torch.relu(self.norm(self.before(x), counts)).mean(-1))


class Unrolled(nn.Module):
    """A recurrence that calls its norm at every step."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.from_state = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.norm = norm
        self.head = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[..., 0])
        for step in range(x.shape[-1]):
            state = torch.tanh(self.norm(self.from_state(state) + x[..., step], step))
        return self.head(state)


class Sequence(nn.Module):
    """A normalised LSTM."""

    def __init__(self, lstm: nn.Module) -> None:
        super().__init__()
        self.lstm = lstm
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.transpose(1, 2))[0][:, -1])


@dataclass(frozen=True)
class Member:
    """One normaliser.

    Args:
        build: its network, with a convolution before the norm where asked for.
        padded: its sequences are of unequal length.
        names: of its normalisers.
    """

    build: Callable[[nn.Module | None], nn.Module]
    padded: bool = False
    names: tuple[str, ...] = ("norm",)


def _image(norm: Callable[[], nn.Module], around: type[Image] = Image) -> Callable[..., nn.Module]:
    return lambda before=None: around(norm(), before)


_LSTM = ("lstm.norm_ih_l0", "lstm.norm_hh_l0", "lstm.norm_c_l0")

FAMILY: dict[str, Member] = {
    "renorm": Member(_image(lambda: ours.BatchRenorm1d(CHANNELS))),
    "ghost": Member(_image(lambda: ours.GhostBatchNorm1d(CHANNELS, ghost_size=16))),
    "whitening": Member(_image(lambda: ours.WhiteningNorm1d(CHANNELS, group_size=3))),
    "iterative": Member(_image(lambda: ours.WhiteningNorm1d(CHANNELS, group_size=3, method="iterative"))),
    "split": Member(_image(lambda: ours.SplitBatchNorm1d(CHANNELS))),
    "one domain": Member(_image(lambda: ours.SplitBatchNorm1d(CHANNELS, domains=1))),
    "filter response": Member(_image(lambda: ours.FilterResponseNorm(CHANNELS))),
    "dynamic tanh": Member(_image(lambda: ours.DynamicTanh(CHANNELS, axis=1))),
    "masked": Member(_image(lambda: ours.MaskedBatchNorm1d(CHANNELS), Padded), padded=True),
    "recurrent": Member(lambda before=None: Unrolled(ours.RecurrentBatchNorm(CHANNELS, LENGTH, gain=1.0))),
    "batch LSTM": Member(
        lambda before=None: Sequence(ours.BatchNormLSTM(CHANNELS, 5, batch_first=True, max_length=LENGTH)),
        names=_LSTM,
    ),
    "layer LSTM": Member(
        lambda before=None: Sequence(ours.LayerNormLSTM(CHANNELS, 5, batch_first=True)), names=_LSTM
    ),
}


def network_of(name: str, before: nn.Module | None = None, *, trained: bool = True) -> Any:
    """A member's network, in inference mode, which 20 steps have trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FAMILY[name].build(before)
        if trained:
            optimiser = torch.optim.SGD(network.parameters(), 0.05)
            for _ in range(4):
                for x, target in batches_of(name):
                    optimiser.zero_grad()
                    nn.functional.cross_entropy(network(x), target).backward()
                    optimiser.step()
        return network.eval()


def batches_of(name: str, count: int = 6) -> list[tuple[Tensor, Tensor]]:
    """(input, target) as a loader gives them, of unequal sizes where the normaliser allows it."""
    draw = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(count):
        x = torch.randn(SAMPLES, CHANNELS, LENGTH, generator=draw) * 2 + 1
        x[:, 1] += x[:, 0]
        if FAMILY[name].padded:
            lengths = torch.randint(2, LENGTH + 1, (SAMPLES, 1), generator=draw)
            x = x.masked_fill((torch.arange(LENGTH) >= lengths)[:, None], 0.0)
        batches.append((x, torch.randint(0, 3, (SAMPLES,), generator=draw)))
    return batches
