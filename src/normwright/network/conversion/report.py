"""What a conversion did, as plain records."""

from __future__ import annotations

import math
from dataclasses import dataclass

from normwright.network.counting import how_many
from normwright.network.table import Table


@dataclass(frozen=True)
class Conversion:
    """One normaliser that was chosen.

    Args:
        name: qualified; "" for the network itself.
        before: what it was, such as BatchNorm2d(16).
        became: what it is, or "" where it was left as it is.
        explained: share of the variance of the old outputs that the fitted ones explain, or None.
        lost: what was given up, by the caller's leave.
        notes: what is set aside for the way back, and what else to know.
        reason: why it was left.
    """

    name: str
    before: str
    became: str
    explained: float | None
    lost: tuple[str, ...]
    notes: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Gap:
    """How the network's outputs in inference moved, on the batches of `calibrate` or the example.

    A difference is √(Σ (output − output before)² / Σ (output before)²), or NaN where an output has another
    shape than before.

    Args:
        batches: how many were seen.
        samples: how many.
        metric: of the network as it was; None where no labels and no metric were given.
        metric_converted: after the conversion alone.
        metric_calibrated: after the fit; None where there was none.
        difference_converted: after the conversion alone.
        difference_calibrated: after the fit; None where there was none.
    """

    batches: int
    samples: int
    metric: float | None
    metric_converted: float | None
    metric_calibrated: float | None
    difference_converted: float
    difference_calibrated: float | None


@dataclass(frozen=True)
class ConversionReport:
    """Every normaliser that was chosen, and what it did to the outputs.

    Args:
        to: the kind asked for.
        layers: in registration order.
        gap: None where neither an example nor batches were given.
    """

    to: str
    layers: tuple[Conversion, ...]
    gap: Gap | None

    def table(self) -> Table:
        """One row per normaliser; below it, what became of the outputs."""
        done = sum(bool(layer.became) for layer in self.layers)
        rows = tuple(
            (
                layer.name or "(network)",
                layer.before,
                layer.became,
                "" if layer.explained is None else f"{layer.explained:.4f}",
                "; ".join(layer.lost),
                layer.reason or "; ".join(layer.notes),
            )
            for layer in self.layers
        )
        return Table(
            f"{done} of {how_many(len(self.layers), 'normaliser')} converted to {self.to}.",
            ("layer", "was", "became", "explained", "lost", "notes"),
            rows,
            () if self.gap is None else _sentences(self.gap),
        )

    def __str__(self) -> str:
        return str(self.table())


def _sentences(gap: Gap) -> tuple[str, ...]:
    after = f"{gap.difference_converted:.3g}"
    if gap.difference_calibrated is not None:
        after += f" converted, {gap.difference_calibrated:.3g} calibrated"
    where = f"Outputs in inference on {how_many(gap.samples, 'sample')} in {how_many(gap.batches, 'batch')}"
    lines = [f"{where} differ by {after}, relative to their root mean square."]
    if math.isnan(gap.difference_converted) or math.isnan(gap.difference_calibrated or 0.0):
        lines = [f"{where} have other shapes than before, so that no difference can be taken."]
    if gap.difference_calibrated is not None and gap.difference_calibrated > gap.difference_converted:
        lines.append("The fit of the layers took the outputs further away: leave calibrate= out, or train.")
    if gap.metric is not None and gap.metric_converted is not None:
        metric = f"{gap.metric:.4f} before, {gap.metric_converted:.4f} converted"
        if gap.metric_calibrated is not None:
            metric += f", {gap.metric_calibrated:.4f} calibrated"
        lines.append(f"Metric on the same samples: {metric}.")
    return tuple(lines)
