"""What a network is fed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normwright.doctor.training.calls import always
from normwright.doctor.training.layers import features_last, layers_of
from normwright.doctor.training.spread import count_nonfinite
from normwright.nn.bookkeeping import is_recomputation
from normwright.statistics.accumulator import Accumulator


@dataclass(frozen=True)
class InputFacts:
    """One floating-point tensor among the arguments of a network.

    Args:
        name: the argument's name, or its position.
        shape: in the first mini-batch.
        axis: of its features: 1 for images and (N, features), the last for sequences.
        means, deviations: of each feature over all mini-batches; at most `FEATURES` evenly spaced
            ones.
        nonfinite: elements that are NaN or infinite; they are left out of the moments.
        filled: share of the elements that are not 0.
    """

    name: str
    shape: tuple[int, ...]
    axis: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    nonfinite: int
    filled: float


#: The most features of a tensor whose moments are kept.
FEATURES = 1024


class InputObserver:
    """Reads the moments of each feature of what a network is fed.

    Args:
        counts: asked at each call, whether it counts.
    """

    def __init__(self, counts: Callable[[], bool] = always) -> None:
        self._counts = counts
        self._read: dict[str, _Moments] = {}

    @contextlib.contextmanager
    def watching(self, network: nn.Module, step: int) -> Iterator[None]:
        """Reads the arguments of the mini-batch."""

        # a function, for a method would have the observer copied with the network
        def entering(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # what counts is asked before all else: torch.compile compiles what is done here
            if self._counts() and called is network:
                self._entering(network, args, kwargs)

        handle = network.register_forward_pre_hook(entering, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def gradients_ready(self, network: nn.Module, step: int, loss: float) -> None:
        """Nothing is read from gradients."""

    def stepped(self, network: nn.Module, step: int) -> None:
        """Nothing is read from updates."""

    def facts(self) -> tuple[InputFacts, ...]:
        """Of every floating-point tensor with a batch axis, in the order of the arguments."""
        return tuple(moments.facts(name) for name, moments in self._read.items())

    def _entering(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_recomputation():
            return
        for name, value in [*enumerate(args), *kwargs.items()]:
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1 and value.numel():
                name = str(name)
                if name not in self._read:
                    self._read[name] = _Moments(value, _reads_sequences(network))
                self._read[name].add(value)


class _Moments:
    """The moments of the features of one argument."""

    def __init__(self, x: Tensor, last: bool) -> None:
        self._shape = tuple(x.shape)
        self._axis = x.dim() - 1 if last and x.dim() == 3 else 1
        self._every = max(-(-x.shape[self._axis] // FEATURES), 1)
        self._moments: Accumulator | None = None
        self._nonfinite = self._elements = self._filled = 0

    def add(self, x: Tensor) -> None:
        if x.dim() != len(self._shape) or x.shape[self._axis] != self._shape[self._axis]:
            return  # features that come and go have no moments
        rows = x.detach().movedim(self._axis, 0)[:: self._every].flatten(1).to(torch.float64)
        finite = rows.isfinite()
        rows = torch.where(finite, rows, 0.0)
        counts = finite.sum(1)
        means = rows.sum(1) / counts.clamp(min=1)
        m2s = torch.where(finite, rows - means[:, None], 0.0).square().sum(1)
        moments = Accumulator.of_batches(counts[None].clamp(min=1), means[None], m2s[None])
        self._moments = moments if self._moments is None else self._moments.merged(moments)
        self._nonfinite += count_nonfinite(x)
        self._elements += rows.numel()
        self._filled += int(rows.count_nonzero())

    def facts(self, name: str) -> InputFacts:
        assert self._moments is not None
        return InputFacts(
            name,
            self._shape,
            self._axis,
            tuple(self._moments.mean.tolist()),
            tuple(self._moments.variance.sqrt().tolist()),
            self._nonfinite,
            self._filled / max(self._elements, 1),
        )


def _reads_sequences(network: nn.Module) -> bool:
    """Whether the first layer that says where its features are has them last."""
    said = (features_last(layer) for layer in layers_of(network).values())
    return next((last for last in said if last is not None), True)
