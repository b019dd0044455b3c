"""What a shift test found, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from normwright.network.counting import how_many
from normwright.network.table import Table

Verdict = Literal["shift", "small shift", "no shift", "undecided"]


@dataclass(frozen=True)
class Feature:
    """What gives the difference away.

    Args:
        name: of a column, a run of columns or a region of pixels.
        fall: of the AUC when its values are shuffled among rows out of fold; the mean over the folds.
        error: its standard error over the rows.
        reference, current: how it is distributed in each set, in words.
    """

    name: str
    fall: float
    error: float
    reference: str
    current: str


@dataclass(frozen=True)
class LeftOut:
    """A column that the classifier did not see, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class LayerShift:
    """How far the input of one normaliser moved between the sets.

    Args:
        name: qualified; "" for the network itself.
        kind: its class's name.
        mean_shift, largest_mean_shift: |mean_c − mean_r| in the reference's deviations, √(variance_r + eps);
            the mean over the channels, and the largest.
        divergence, largest_divergence: Gaussian KL divergence of a current channel from its reference, in
            nats; the mean over the channels, and the largest.
        p_value: of a shift as large by chance, over all layers together.
        moved: whether p_value is at most the level.
        reason: why there are no figures, or "".
    """

    name: str
    kind: str
    mean_shift: float = 0.0
    largest_mean_shift: float = 0.0
    divergence: float = 0.0
    largest_divergence: float = 0.0
    p_value: float = 1.0
    moved: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Recovery:
    """What the shift costs a network, and what `adapt` would bring back.

    Args:
        reference, current: accuracy, from 0 to 1; None without labels or class scores.
        adapted: accuracy on the current set after `nw.adapt` on it; None where it could not be taken.
        gain: adapted − current, and its 95 % interval over the samples.
        reason: why a figure is missing, or "".
    """

    reference: float | None = None
    current: float | None = None
    adapted: float | None = None
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None
    reason: str = ""


@dataclass(frozen=True)
class NetworkShift:
    """What the sets do inside a network.

    Args:
        layers: its normalisers, in the order of execution; then those without figures.
        first_moved: the name of the first whose input moved, or None.
        recovery: what it costs, and what brings it back.
        samples: of each set that were run.
    """

    layers: tuple[LayerShift, ...]
    first_moved: str | None
    recovery: Recovery
    samples: tuple[int, int]

    def table(self) -> Table:
        """One row per normaliser."""
        measured = [layer for layer in self.layers if not layer.reason]
        moved = [layer for layer in measured if layer.moved]
        summary = f"The inputs of {len(moved)} of {how_many(len(measured), 'normaliser')} moved"
        if not self.layers:
            summary = "The network has no normaliser"
        if self.first_moved is not None:
            summary += f", first that of {self.first_moved or '(network)'!r}"
        columns = ("layer", "kind", "mean shift", "largest", "KL", "largest", "p", "moved", "no figures")
        return Table(
            f"{summary}.", columns, tuple(map(_layer_row, self.layers)), _recovery_notes(self.recovery)
        )

    def __str__(self) -> str:
        return str(self.table())


@dataclass(frozen=True)
class ShiftReport:
    """Whether two sets come from one distribution, and what to do.

    Args:
        verdict: "shift": the p-value is at most the level and the MCC at least the alarm; "small shift": only
            the p-value is; "undecided": only the MCC is, on rows too few to tell it from chance; "no shift":
            neither.
        mcc, auc: of answers out of fold, both sets weighing the same.
        mcc_interval, auc_interval: of 95 %.
        p_value: by permutation; how likely one distribution would be told apart as well.
        level, alarm: as asked for.
        reference, current: the sets' names.
        reference_rows, current_rows: how many rows were used.
        shared_rows: rows of the current set that are in the reference too, value by value.
        columns: how many the classifier saw.
        features: what gives the difference away, the greatest first; none without a difference.
        left_out: columns that the classifier did not see.
        network: what the sets do inside a network, if one was given.
        advice: what to do next.
        notes: what else to know.
        seed: of everything that was drawn.
    """

    verdict: Verdict
    mcc: float
    mcc_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]
    p_value: float
    level: float
    alarm: float
    reference: str
    current: str
    reference_rows: int
    current_rows: int
    shared_rows: int
    columns: int
    features: tuple[Feature, ...]
    left_out: tuple[LeftOut, ...]
    network: NetworkShift | None
    advice: str
    notes: tuple[str, ...]
    seed: int

    def table(self) -> Table:
        """The measures, then what gives the difference away."""
        columns = ("", "value", "95 % interval", "in the reference", "in the current set")
        rows = [
            ("MCC", f"{self.mcc:.3f}", _interval(self.mcc_interval), "", ""),
            ("AUC", f"{self.auc:.3f}", _interval(self.auc_interval), "", ""),
            ("p-value", f"{self.p_value:.2g}", "", "", ""),
            *(
                (
                    f"without {feature.name}",
                    f"AUC −{feature.fall:.3f}",
                    "",
                    feature.reference,
                    feature.current,
                )
                for feature in self.features
            ),
        ]
        notes = [f"Left out: {_listed(self.left_out)}."] if self.left_out else []
        return Table(self.summary, columns, tuple(rows), (*notes, *self.notes, self.advice))

    @property
    def summary(self) -> str:
        """The verdict, and what it rests on."""
        sizes = (
            f"{self.reference_rows:,} rows of {self.reference} and {self.current_rows:,} of {self.current}, "
            f"{how_many(self.columns, 'column')}"
        )
        strong, sure = f"MCC {self.mcc:.2f}", f"p = {self.p_value:.2g}"
        said = {
            "shift": f"Shift: {strong} ≥ {self.alarm:g} and {sure} ≤ {self.level:g}",
            "small shift": f"Small shift: {strong} < {self.alarm:g}, though {sure} ≤ {self.level:g}",
            "undecided": f"Undecided: {strong} ≥ {self.alarm:g}, but {sure} > {self.level:g}",
            "no shift": f"No shift found: {strong} < {self.alarm:g} and {sure} > {self.level:g}",
        }
        return f"{said[self.verdict]} ({sizes})."

    def __str__(self) -> str:
        parts = [self.table(), *([] if self.network is None else [self.network.table()])]
        return "\n\n".join(map(str, parts))


def verdict_of(mcc: float, p_value: float, *, alarm: float, level: float) -> Verdict:
    """The verdict on an effect and how sure it is.

    Example:
        >>> verdict_of(0.1, 0.001, alarm=0.2, level=0.05)
        'small shift'
    """
    if p_value <= level:
        return "shift" if mcc >= alarm else "small shift"
    return "undecided" if mcc >= alarm else "no shift"


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _listed(left_out: tuple[LeftOut, ...]) -> str:
    reasons: dict[str, list[str]] = {}
    for column in left_out:
        reasons.setdefault(column.reason, []).append(column.name)
    return "; ".join(
        f"{', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''} ({reason})"
        for reason, names in reasons.items()
    )


def _layer_row(layer: LayerShift) -> tuple[str, ...]:
    name = layer.name or "(network)"
    if layer.reason:
        return (name, layer.kind, "", "", "", "", "", "", layer.reason)
    return (
        name,
        layer.kind,
        f"{layer.mean_shift:.3g} σ",
        f"{layer.largest_mean_shift:.3g} σ",
        f"{layer.divergence:.3g}",
        f"{layer.largest_divergence:.3g}",
        f"{layer.p_value:.2g}",
        "yes" if layer.moved else "no",
        "",
    )


def _recovery_notes(recovery: Recovery) -> tuple[str, ...]:
    notes = []
    if recovery.reference is not None and recovery.current is not None:
        notes.append(
            f"Accuracy: {recovery.reference:.1%} on the reference, {recovery.current:.1%} on the current set."
        )
    if recovery.adapted is not None and recovery.gain_interval is not None:
        low, high = recovery.gain_interval
        notes.append(
            f"After adapt on the current set: {recovery.adapted:.1%}, a change of {low:+.1%} to {high:+.1%} "
            "(95 % interval)."
        )
    if recovery.reason:
        notes.append(f"{recovery.reason[:1].upper()}{recovery.reason[1:]}.")
    return tuple(notes)
