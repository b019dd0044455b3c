"""What a monitor writes to TensorBoard."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import SEVERITIES, Finding
from normwright.doctor.missing import SkipError
from normwright.doctor.monitor.window import Window


class Writer(Protocol):
    """What is used of `torch.utils.tensorboard.SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> Any:
        """A number at a step."""

    def add_text(self, tag: str, text_string: str, global_step: int | None = None) -> Any:
        """A text at a step."""


def write(writer: Writer, window: Window, new: Sequence[Finding]) -> None:
    """Writes the medians of a window, how many findings it has, and the words of the new ones.

    Args:
        writer: of TensorBoard.
        window: at whose last step everything is written.
        new: findings that the window before did not have.
    """
    for tag, value in _scalars(window.evidence):
        writer.add_scalar(f"normwright/{tag}", value, window.last)
    for severity in SEVERITIES:
        count = sum(finding.severity == severity for finding in window.findings)
        writer.add_scalar(f"normwright/findings/{severity}", count, window.last)
    for finding in new:
        text = f"{finding.layer}: {finding.message}. {finding.advice}"
        writer.add_text(f"normwright/{finding.rule}", text, window.last)


def _scalars(evidence: Evidence) -> Iterator[tuple[str, float]]:
    """Figures by layer, each the median over the window's mini-batches."""
    for layer in _read(lambda: evidence.activations):
        if layer.of_normaliser and layer.inputs:
            yield f"input_mean/{layer.layer}", _median([spread.mean for spread in layer.inputs])
            yield f"input_deviation/{layer.layer}", _median([spread.deviation for spread in layer.inputs])
        if layer.flat:
            yield f"saturated/{layer.layer}", _median(layer.flat)
        if layer.units:
            yield f"dead/{layer.layer}", len(layer.dead) / layer.units
    for gradients in _read(lambda: evidence.layer_gradients):
        yield f"gradient_rms/{gradients.layer}", _median(gradients.rms)
        if gradients.ratios:
            yield f"update_to_weight/{gradients.layer}", _median(gradients.ratios)


def _read(part: Any) -> Any:
    try:
        return part()
    except SkipError:
        return ()


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
