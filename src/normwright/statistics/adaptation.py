"""What adapting did to a network, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

from normwright.network.counting import how_many
from normwright.network.table import Table
from normwright.statistics.replacement import Replacement


@dataclass(frozen=True)
class LayerAdaptation:
    """How one normaliser's statistics moved.

    Args:
        name: qualified; "" for the network itself.
        kind: its class's name.
        samples: of the target that it saw; one that was used twice saw each twice.
        source_share: λ = N/(N + n), the weight of the source's statistics in the blend.
        mean_shift: the largest change of a channel's mean, in the deviations √(variance + eps) of before.
        variance_ratio: the least and the greatest (variance + eps) after, over that before.
        reason: why it was left alone, or "". Then there are no figures.
    """

    name: str
    kind: str
    samples: int = 0
    source_share: float = 1.0
    mean_shift: float = 0.0
    variance_ratio: tuple[float, float] = (1.0, 1.0)
    reason: str = ""


@dataclass(frozen=True)
class AdaptationReport:
    """Every normaliser of an adapted network, as plain values.

    Args:
        layers: in the order of the network.
        samples, batches: how many were read, over all ranks.
        judged: how many batches' predictions the guard of this process could judge.
    """

    layers: tuple[LayerAdaptation, ...]
    samples: int
    batches: int
    judged: int

    def table(self) -> Table:
        """One row per normaliser."""
        changed = [layer for layer in self.layers if not layer.reason]
        summary = (
            f"{len(changed)} of {how_many(len(self.layers), 'normaliser')} moved to the target, from "
            f"{how_many(self.samples, 'sample')} in {how_many(self.batches, 'batch')}."
        )
        columns = ("layer", "kind", "samples", "source share", "mean shift", "variance ratio", "left alone")
        unseen = () if self.judged else ("No class scores were found: nothing guards against a collapse.",)
        return Table(summary, columns, tuple(_row(layer) for layer in self.layers), unseen)

    def __str__(self) -> str:
        return str(self.table())


def _row(layer: LayerAdaptation) -> tuple[str, ...]:
    name = layer.name or "(network)"
    if layer.reason:
        return (name, layer.kind, "", "", "", "", layer.reason)
    low, high = layer.variance_ratio
    return (
        name,
        layer.kind,
        str(layer.samples),
        f"{layer.source_share:.1%}",
        f"{layer.mean_shift:.3g} σ",
        f"{low:.3g} to {high:.3g}",
        "",
    )


class Adaptation:
    """A network's statistics in a target domain: what changed, and `undo()`. As a context, it undoes itself.

    Args:
        report: as plain values.
        replacement: of the statistics.
    """

    def __init__(self, report: AdaptationReport, replacement: Replacement) -> None:
        self.report = report
        self._replacement = replacement

    @property
    def layers(self) -> tuple[LayerAdaptation, ...]:
        """How each normaliser moved, in the order of the network."""
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

    def __enter__(self) -> Adaptation:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()
