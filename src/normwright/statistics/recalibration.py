"""What recalibrating did to a network, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from normwright.network.counting import how_many
from normwright.network.table import Table
from normwright.statistics.replacement import Replacement


@dataclass(frozen=True)
class LayerChange:
    """How one normaliser's statistics changed.

    Args:
        name: qualified; "" for the network itself.
        kind: its class's name.
        uses: how often it was called.
        elements: elements per channel that its statistics were estimated from.
        mean_shift: the largest change of a channel's mean, in the deviations √(variance + eps) of before.
        variance_ratio: the least and the greatest (variance + eps) after, over that before.
        mean_error: the largest standard error of a channel's mean, in deviations; None for one mini-batch.
        variance_error: the largest standard error of a channel's variance, in variances; None likewise.
        reason: why it was left alone, or "". Then there are no figures.
    """

    name: str
    kind: str
    uses: int = 0
    elements: int = 0
    mean_shift: float = 0.0
    variance_ratio: tuple[float, float] = (1.0, 1.0)
    mean_error: float | None = None
    variance_error: float | None = None
    reason: str = ""

    def with_step(self, other: LayerChange) -> LayerChange:
        """The change of two time steps together: the sums, and the larger of the changes and errors."""
        low, high = zip(self.variance_ratio, other.variance_ratio, strict=True)
        return replace(
            self,
            uses=self.uses + other.uses,
            elements=self.elements + other.elements,
            mean_shift=max(self.mean_shift, other.mean_shift),
            variance_ratio=(min(low), max(high)),
            mean_error=_larger(self.mean_error, other.mean_error),
            variance_error=_larger(self.variance_error, other.variance_error),
        )


def _larger(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)


@dataclass(frozen=True)
class RecalibrationReport:
    """Every normaliser of a recalibrated network, as plain values.

    Args:
        estimator: "total" or "within".
        layers: in the order of the network.
        samples, batches: how many were read, over all ranks.
        stopped: why reading ended.
    """

    estimator: str
    layers: tuple[LayerChange, ...]
    samples: int
    batches: int
    stopped: str

    def table(self) -> Table:
        """One row per normaliser."""
        changed = [layer for layer in self.layers if not layer.reason]
        summary = (
            f"{len(changed)} of {how_many(len(self.layers), 'normaliser')} re-estimated ({self.estimator} "
            f"variance) from {how_many(self.samples, 'sample')} in {how_many(self.batches, 'batch')}: "
            f"{self.stopped}."
        )
        columns = ("layer", "kind", "uses", "elements", "mean shift", "variance ratio", "error", "left alone")
        return Table(summary, columns, tuple(_row(layer) for layer in self.layers))

    def __str__(self) -> str:
        return str(self.table())


def _row(layer: LayerChange) -> tuple[str, ...]:
    name = layer.name or "(network)"
    if layer.reason:
        return (name, layer.kind, "", "", "", "", "", layer.reason)
    low, high = layer.variance_ratio
    return (
        name,
        layer.kind,
        str(layer.uses),
        str(layer.elements),
        f"{layer.mean_shift:.3g} σ",
        f"{low:.3g} to {high:.3g}",
        "" if layer.mean_error is None else f"{layer.mean_error:.2g} σ",
        "",
    )


class Recalibration:
    """A network's new statistics: what changed, and `undo()`.

    Args:
        report: as plain values.
        replacement: of the statistics.
    """

    def __init__(self, report: RecalibrationReport, replacement: Replacement) -> None:
        self.report = report
        self._replacement = replacement

    @property
    def layers(self) -> tuple[LayerChange, ...]:
        """How each normaliser changed, in the order of the network."""
        return self.report.layers

    @property
    def samples(self) -> int:
        """How many samples were read, over all ranks."""
        return self.report.samples

    def undo(self, *, force: bool = False) -> None:
        """Puts the statistics of before back, to the bit; what else changed since stays. Twice is as once.

        Args:
            force: also where the statistics were changed since, whose change is lost then.
        Raises:
            OptionError: they were changed since, or a layer is gone; named, and the network stays as it is.
        """
        self._replacement.undo(force=force)

    def table(self) -> Table:
        """One row per normaliser."""
        return self.report.table()

    def __str__(self) -> str:
        return str(self.report)
