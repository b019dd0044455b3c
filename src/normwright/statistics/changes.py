"""How far statistics moved, and whether they fit where they go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor

from normwright.errors import DataError
from normwright.statistics.estimate import channel_wise
from normwright.statistics.layers import Layer, Layers


class _Named(Protocol):
    @property
    def name(self) -> str:
        """The layer's."""


Row = TypeVar("Row", bound=_Named)

_NOT_CALLED = "not called, or by a forward of its own that calls no batch_norm"


def moved(
    old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], eps: float
) -> tuple[float, tuple[float, float]]:
    """The largest shift of a mean, in old deviations √(variance + eps), and the variances' extreme ratios.

    Of covariances, those of the variances among them.
    """
    (old_mean, old_variance), (new_mean, new_variance) = (
        tuple(channel_wise(tensor.detach().to("cpu", dtype=new[0].dtype)) for tensor in pair)
        for pair in (old, new)
    )
    spread = old_variance + eps
    shift = (new_mean - old_mean).abs() / spread.sqrt()
    ratio = (new_variance + eps) / spread
    return float(shift.max()), (float(ratio.min()), float(ratio.max()))


def fitting(value: Tensor, buffer: Tensor, layer: Layer) -> Tensor:
    """The value in the buffer's dtype, on its device.

    Raises:
        DataError: it overflows there.
    """
    fitted = value.to(buffer.device, buffer.dtype)
    if not bool(fitted.isfinite().all()):
        raise DataError(
            f"the statistics of layer {layer.name!r} must fit {buffer.dtype}, but reach "
            f"{float(value.abs().max()):.3g}; nothing was changed. Scale the layer's input down"
        )
    return fitted


def in_order(found: Layers, changed: dict[str, Row], left: Callable[[str, str, str], Row]) -> tuple[Row, ...]:
    """A row for every normaliser in the order of the network, then for calls that no normaliser made.

    Args:
        found: the network's.
        changed: by name, those that changed.
        left: makes the row of one that was left alone, from its name, its class's name and the reason.
    """
    reasons = {name: found.left.get(name, _NOT_CALLED) for name in found.normalisers}
    rows = [
        changed[name] if name in changed else left(name, type(module).__name__, reasons[name])
        for name, module in found.normalisers.items()
    ]
    return (*rows, *(row for name, row in changed.items() if name not in found.normalisers))
