"""Statistics that take the place of a network's own, all at once, and the way back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from normwright.errors import OptionError
from normwright.network.writing import write
from normwright.statistics.layers import Layer, Moments


class Replacement:
    """The statistics of some layers, replaced when this is made. The buffers stay the same tensors.

    Args:
        network: changed in place.
        values: of each layer the new mean and variance, in its buffers' dtype and on their device.
    """

    def __init__(self, network: nn.Module, values: Mapping[Layer, Moments]) -> None:
        self._network = network
        self._after = dict(values)
        now = {layer: layer.moments_in(network) for layer in values}
        self._before = {layer: _copies(moments) for layer, moments in now.items()}
        counts = {layer: layer.count_in(network) for layer in values}
        self._counts = {layer: count.clone() for layer, count in counts.items() if count is not None}
        self._write(self._after)
        for count in counts.values():
            if count is not None:
                write(count, count.clamp(min=1))  # a time step that was seen now, if never in training

    def undo(self, *, force: bool = False) -> None:
        """Puts the statistics of before back, to the bit; what else changed since stays. Twice is as once.

        Args:
            force: also where others wrote the statistics since, whose work is lost then.
        Raises:
            OptionError: a layer is gone, or its statistics are no longer those that were put there; the
                layers are named, and the network stays as it is.
        """
        gone = [layer.name for layer in self._after if not self._is_there(layer)]
        if gone:
            raise OptionError(
                f"the layers must still hold their statistics for these to be put back, but {_listed(gone)} "
                "no longer did: undo before you convert, fold or freeze the network; nothing was changed"
            )
        changed = [layer.name for layer in self._after if not self._is_ours(layer)]
        if changed and not force:
            raise OptionError(
                "the statistics must still be those that were put there, to be taken back, but those of "
                f"{_listed(changed)} were changed since: undo what came later first, or overwrite it by "
                "undo(force=True); nothing was changed"
            )
        self._write(self._before)
        for layer, before in self._counts.items():
            count = layer.count_in(self._network)
            assert count is not None
            write(count, before)

    def _is_there(self, layer: Layer) -> bool:
        try:
            now = self._now(layer)
        except (AttributeError, IndexError):
            return False
        return [moment.shape for moment in now] == [moment.shape for moment in self._before[layer]]

    def _is_ours(self, layer: Layer) -> bool:
        return any(_same(self._now(layer), known[layer]) for known in (self._after, self._before))

    def _now(self, layer: Layer) -> Moments:
        return layer.moments_in(self._network)

    def _write(self, values: Mapping[Layer, Moments]) -> None:
        for layer, moments in values.items():
            for buffer, value in zip(self._now(layer), moments, strict=True):
                write(buffer, value)


def _copies(moments: Moments) -> Moments:
    mean, variance = moments
    return mean.detach().clone(), variance.detach().clone()


def _same(now: Moments, known: Moments) -> bool:
    """Whether buffers hold these numbers, or what a network that was moved or cast since makes of them."""
    return all(
        value.shape == buffer.shape
        and bool(torch.isclose(buffer, value.to(buffer), rtol=0, atol=0, equal_nan=True).all())
        for buffer, value in zip(now, known, strict=True)
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(repr(name) if name else "the network itself" for name in names[:8]) + more
