"""What `fold` did to a network, as plain records."""

from __future__ import annotations

from dataclasses import dataclass

from normwright.network.counting import how_many
from normwright.network.table import Table

_PLACES = {
    "before": "the layer before",
    "after": "the layer after",
    "multiply-add": "one multiply-add",
    "convolution": "one grouped 1×1 convolution",
}


@dataclass(frozen=True)
class FoldRecord:
    """One normaliser.

    Args:
        name: qualified name of its module, or of the module in whose forward the function is called; "" for
            the network itself.
        kind: its class's name, or the function.
        calls: how often the example's call reaches it.
        place: "before" or "after" where layers before or after it took it in, "multiply-add" where it became
            one, "convolution" where whitening became a grouped one of 1×1, "" where it stays.
        into: names of the layers.
        reason: why it went no further, or "".
    """

    name: str
    kind: str
    calls: int
    place: str
    into: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class FoldDifference:
    """Largest errors on the example, over all floating-point outputs.

    Args:
        difference: of the folded network from the unfolded one, in the output's unit.
        folded: of the folded network from float64, or None where the network does not run in it.
        unfolded: of the unfolded network from float64, or None.
        difference_ulps: `difference` in ulps: of the output's dtype, at the output's largest magnitude.
        folded_ulps: `folded` in ulps.
        unfolded_ulps: `unfolded` in ulps.
        tolerance: what `folded` was allowed to be (`difference`, where there is no float64; the difference in
            float64, where the unfolded network's own error is so large that it tells nothing): each output
            is judged by its own limit, and this is the largest of them.
        examples: how many inputs these are the largest of: the example, and others near it where the
            example alone could not tell rounding from a wrong fold.
        in_float64: the largest difference of the two networks where both run in float64, over the outputs
            that were judged by it; None where the errors against float64 told enough.
    """

    difference: float
    folded: float | None
    unfolded: float | None
    difference_ulps: float
    folded_ulps: float | None
    unfolded_ulps: float | None
    tolerance: float
    examples: int
    in_float64: float | None = None


@dataclass(frozen=True)
class FoldSpeed:
    """Seconds of a call with the example, medians of calls in turn.

    Args:
        before: of the unfolded network.
        after: of the folded one.
        ratio: after/before, the median of the ratios call by call.
        calls: how many of each.
    """

    before: float
    after: float
    ratio: float
    calls: int


@dataclass(frozen=True)
class FoldReport:
    """What became of every normaliser, and what the fold changed.

    Args:
        traced_by: "torch.export", "torch.fx", "recording", or "" where nothing could trace the network.
        normalisers: one record each.
        error: on the example, or None where nothing was folded.
        speed: on the example, or None where it was not measured.
        notes: what else was done, or must be taken for granted.

    Example:
        >>> record = FoldRecord("1", "BatchNorm2d", 1, "before", ("0",), "")
        >>> print(FoldReport("torch.export", (record,), None, None, ()))
        1 of 1 normaliser folded, 0 made one multiply-add.
        normaliser  kind         became            of
        1           BatchNorm2d  the layer before  0
        Traced by torch.export.
    """

    traced_by: str
    normalisers: tuple[FoldRecord, ...]
    error: FoldDifference | None
    speed: FoldSpeed | None
    notes: tuple[str, ...]

    @property
    def folded(self) -> int:
        """How many went into layers."""
        return sum(record.place in ("before", "after") for record in self.normalisers)

    def table(self) -> Table:
        """One row per normaliser."""
        left, mixing = (
            sum(record.place == place for record in self.normalisers)
            for place in ("multiply-add", "convolution")
        )
        of_whitening = f", {mixing} one grouped 1×1 convolution" if mixing else ""
        return Table(
            f"{self.folded} of {how_many(len(self.normalisers), 'normaliser')} folded, {left} made one "
            f"multiply-add{of_whitening}.",
            ("normaliser", "kind", "became", "of", "why no further"),
            tuple(
                (
                    record.name or "(network)",
                    record.kind,
                    _PLACES.get(record.place, "left as it was"),
                    ", ".join(record.into),
                    record.reason,
                )
                for record in self.normalisers
            ),
            tuple(self._notes()),
        )

    def _notes(self) -> list[str]:
        traced = f"Traced by {self.traced_by}." if self.traced_by else "Not traced."
        return [traced, *_error_in_words(self.error), *_speed_in_words(self.speed), *self.notes]

    def __str__(self) -> str:
        return str(self.table())


def _error_in_words(error: FoldDifference | None) -> list[str]:
    if error is None:
        return []
    lines = [
        f"Largest difference from the unfolded network: {error.difference:.3g} "
        f"({error.difference_ulps:.3g} ulps)."
    ]
    if error.folded is not None:
        lines.append(
            f"Largest error against float64: folded {error.folded:.3g} ({error.folded_ulps:.3g} ulps), "
            f"unfolded {error.unfolded:.3g} ({error.unfolded_ulps:.3g} ulps); allowed {error.tolerance:.3g}."
        )
    if error.in_float64 is not None:
        lines.append(
            "Rounding decides something in the network, as which is the largest, so that its errors tell "
            f"nothing: where both run in float64, the two differ by {error.in_float64:.3g}."
        )
    return lines


def _speed_in_words(speed: FoldSpeed | None) -> list[str]:
    if speed is None:
        return []
    return [
        f"A call takes {1e3 * speed.after:.3g} ms, {speed.ratio:.3f} of what it took (medians of "
        f"{speed.calls} calls in turn)."
    ]
