"""The shift test on rows: from two sets to a report."""

from __future__ import annotations

from collections.abc import Callable

from normwright.errors import OptionError
from normwright.shift.advice import advice
from normwright.shift.columns import Rows, coded
from normwright.shift.describe import described
from normwright.shift.folds import copies
from normwright.shift.give_away import give_aways
from normwright.shift.report import Feature, LeftOut, NetworkShift, ShiftReport, verdict_of
from normwright.shift.two_sample import FOLDS, separated

# Of the rows of the current set: fewer that are in the reference, too, change nothing.
_TOLD = 0.01

Stage = Callable[[str], None]


def judged(
    reference: Rows,
    current: Rows,
    *,
    level: float,
    alarm: float,
    seed: int,
    network: NetworkShift | None = None,
    notes: tuple[str, ...] = (),
    on_stage: Stage,
) -> ShiftReport:
    """The report on two sets.

    Args:
        level: of the p-value.
        alarm: of the MCC.
        seed: of everything that is drawn.
        network: what was found inside a network.
        notes: what was found on the way here.
        on_stage: told of each step.
    Raises:
        DataError: the sets cannot be compared; see `coded` and `separated`.
    """
    data = coded(reference, current)
    found, parts = separated(data, seed=seed, on_stage=on_stage)
    verdict = verdict_of(found.mcc, found.p_value, alarm=alarm, level=level)
    features: tuple[Feature, ...] = ()
    if found.p_value <= level:
        losses = give_aways(data, parts, reference.shape, seed=seed, on_stage=on_stage)
        features = tuple(
            Feature(
                loss.group.name,
                loss.fall,
                loss.error,
                *described([data.names[place] for place in loss.group.places], reference, current),
            )
            for loss in losses
        )
    shared = copies(data.keys, data.current, FOLDS)
    if shared >= _TOLD * len(current):
        notes += (
            f"{shared:,} of {len(current):,} rows of {current.name} are in {reference.name}, too: such rows "
            "cannot differ, which makes the test more cautious.",
        )
    return ShiftReport(
        verdict=verdict,
        mcc=found.mcc,
        mcc_interval=found.mcc_interval,
        auc=found.auc,
        auc_interval=found.auc_interval,
        p_value=found.p_value,
        level=level,
        alarm=alarm,
        reference=reference.name,
        current=current.name,
        reference_rows=len(reference),
        current_rows=len(current),
        shared_rows=shared,
        columns=len(data.names),
        features=features,
        left_out=tuple(LeftOut(name, reason) for name, reason in data.left_out),
        network=network,
        advice=advice(verdict, features, network, auc=found.auc),
        notes=(*data.notes, *notes),
        seed=seed,
    )


def check_options(level: float, alarm: float, seed: int) -> None:
    """Raises OptionError for a number outside its range."""
    for name, value in (("level", level), ("alarm", alarm)):
        if not 0 < value < 1:
            raise OptionError(f"{name} must be between 0 and 1, but is {value}")
    if seed < 0:
        raise OptionError(f"seed must be at least 0, but is {seed}")
