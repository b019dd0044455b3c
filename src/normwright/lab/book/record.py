"""What the book keeps of a claim that was run: plain values, from which its page is made."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normwright.errors import StoreError
from normwright.lab.book.bounds import EXACT, KINDS
from normwright.lab.book.choice import ChosenRate
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.verdict import (
    NONE,
    NOT_SUPPORTED,
    REFUTED,
    SUPPORTED,
    interval_of,
    judge,
    leaning,
    together,
)
from normwright.lab.records import Interval
from normwright.lab.store.whole import write_whole


@dataclass(frozen=True)
class Outcome:
    """One prediction, measured.

    Args:
        says, unit, at_least, at_most, ratio: the prediction's.
        values: its measure, one per seed; None where it could not be taken.
        bounds: `AT_LEAST` or `AT_MOST` for each of these that is a bound, the true effect being at least, or
            at most, that; `EXACT` for the others.
        effect: mean over seeds with a 95 % interval.
        verdict: by the written rule; `leaning`, what it would be with seeds enough.
    """

    key: str
    says: str
    unit: str
    at_least: float | None
    at_most: float | None
    ratio: bool
    values: tuple[float | None, ...]
    bounds: tuple[str, ...]
    effect: Interval | None
    verdict: str
    leaning: str

    @property
    def limit(self) -> float:
        """The value that the measure is held against."""
        limit = self.at_least if self.at_least is not None else self.at_most
        assert limit is not None
        return limit


@dataclass(frozen=True)
class Line:
    """A series over the seeds: the mean, the lowest and the highest seed at each x; None leaves a gap."""

    name: str
    norm: str
    x: tuple[float, ...] | tuple[str, ...]
    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True)
class Cost:
    """What a claim costs on one core: runs, seconds in their training steps, seconds of measuring.

    Runs that claims share are counted in each.
    """

    runs: int
    training_seconds: float
    measuring_seconds: float


@dataclass(frozen=True)
class ClaimRecord:
    """A claim that was run. See `Claim` for what it says, `Outcome` for what came out.

    Args:
        quick: of the reduced size, whose verdict is none.
        rates: the learning rate that was chosen for each side; none where the claim chooses none.
        practice: the paragraph that goes with the verdict; with the leaning, where there is none.
        machine: device, versions and core count, in one line.
        command: makes it again.
    """

    number: int
    name: str
    sentence: str
    references: tuple[str, ...]
    recipe: str
    measure: str
    conditions: str
    contested: bool
    quick: bool
    seeds: int
    verdict: str
    leaning: str
    outcomes: tuple[Outcome, ...]
    rates: tuple[ChosenRate, ...]
    practice: str
    plot: Plot
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    cost: Cost
    machine: str
    command: str

    @property
    def file_name(self) -> str:
        """Of its file."""
        return file_name(self.number, self.name, quick=self.quick)

    def to_json(self) -> str:
        """The record as JSON, null for what is not finite."""
        finite = json.loads(json.dumps(dataclasses.asdict(self)), parse_constant=lambda name: None)
        return json.dumps(finite, indent=1, allow_nan=False) + "\n"

    def save(self, folder: Path) -> None:
        """Writes the record; its file is whole at every moment."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / self.file_name, self.to_json().encode())


def file_name(number: int, name: str, *, quick: bool) -> str:
    """Of the record of a claim; a quick run does not take the place of a full one."""
    return f"{number:02}-{name}{'-quick' if quick else ''}.json"


def make_record(
    claim: Claim,
    trials: Sequence[Trial],
    cost: Cost,
    *,
    rates: Sequence[ChosenRate] = (),
    quick: bool,
    machine: str,
    command: str,
) -> ClaimRecord:
    """The record of a claim, a pure function of its trials and of the rates that were chosen for them."""
    outcomes = tuple(_outcome(prediction, trials, quick) for prediction in claim.predictions)
    leans = together([outcome.leaning for outcome in outcomes])
    return ClaimRecord(
        number=claim.number,
        name=claim.name,
        sentence=claim.sentence,
        references=claim.references,
        recipe=claim.recipe,
        measure=claim.measure,
        conditions=claim.conditions,
        contested=claim.contested,
        quick=quick,
        seeds=len(trials),
        verdict=together([outcome.verdict for outcome in outcomes]),
        leaning=leans,
        outcomes=outcomes,
        rates=tuple(dict.fromkeys(rates)),
        practice=claim.practice[leans],
        plot=claim.plot,
        lines=_lines(trials),
        notes=tuple(dict.fromkeys(note for trial in trials for note in trial.notes)),
        cost=cost,
        machine=machine,
        command=command,
    )


def read_records(folder: Path, *, without: Collection[str] = ()) -> list[ClaimRecord]:
    """The records of a folder by number; of a claim, the full run rather than the quick one.

    Args:
        folder: need not be there.
        without: names of files that are left unread.
    Raises:
        StoreError: a file is not a record of this version.
    """
    found: dict[int, ClaimRecord] = {}
    for path in sorted(folder.glob("[0-9][0-9]-*.json")):
        if path.name in without:
            continue
        record = _read(path)
        if record.number not in found or found[record.number].quick:
            found[record.number] = record
    return [found[number] for number in sorted(found)]


def _read(path: Path) -> ClaimRecord:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _checked(_record(values))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{path} must be the record of a claim, as this version of normwright writes it, but cannot be "
            f"read ({type(error).__name__}: {error}): remove the file and run the claim again"
        ) from error


def _record(values: dict[str, Any]) -> ClaimRecord:
    values["outcomes"] = tuple(
        Outcome(
            **{
                **part,
                "values": tuple(part["values"]),
                "bounds": tuple(part["bounds"]),
                "effect": None if part["effect"] is None else _interval(part["effect"]),
            }
        )
        for part in values["outcomes"]
    )
    tuples = ("x", "mean", "low", "high")
    values["lines"] = tuple(
        Line(**{**line, **{name: tuple(line[name]) for name in tuples}}) for line in values["lines"]
    )
    values["rates"] = tuple(ChosenRate(**{**part, "tried": tuple(part["tried"])}) for part in values["rates"])
    values["plot"], values["cost"] = Plot(**values["plot"]), Cost(**values["cost"])
    values["references"], values["notes"] = tuple(values["references"]), tuple(values["notes"])
    return ClaimRecord(**values)


def _interval(part: dict[str, Any]) -> Interval:
    """JSON has no infinity: an end that is null beside one that is not was beyond every number."""
    if part["high"] is None and part["low"] is not None:
        part = {**part, "high": math.inf}
    return Interval(**part)


def _checked(record: ClaimRecord) -> ClaimRecord:
    """The record, where what the page relies on holds."""
    judged: list[ClaimRecord | Outcome] = [record, *record.outcomes]
    known = (SUPPORTED, NOT_SUPPORTED, REFUTED)
    if not all(part.verdict in (*known, NONE) and part.leaning in known for part in judged):
        raise ValueError("a verdict that is none")
    if not all((part.at_least is None) != (part.at_most is None) for part in record.outcomes):
        raise ValueError("a prediction has either at_least or at_most")
    if not all(len(part.bounds) == len(part.values) for part in record.outcomes):
        raise ValueError("a bound, or none, for each value")
    if not all(bound in KINDS for part in record.outcomes for bound in part.bounds):
        raise ValueError("a bound of no known kind")
    if not isinstance(record.number, int) or not record.outcomes:
        raise ValueError("a number and an outcome are needed")
    return record


def _outcome(prediction: Prediction, trials: Sequence[Trial], quick: bool) -> Outcome:
    values = [trial.values.get(prediction.key, math.nan) for trial in trials]
    bounds = tuple(
        trial.bounds.get(prediction.key, EXACT) if math.isfinite(value) else EXACT
        for trial, value in zip(trials, values, strict=True)
    )
    return Outcome(
        key=prediction.key,
        says=prediction.says,
        unit=prediction.unit,
        at_least=prediction.at_least,
        at_most=prediction.at_most,
        ratio=prediction.ratio,
        values=tuple(value if math.isfinite(value) else None for value in values),
        bounds=bounds,
        effect=interval_of(prediction, values),
        verdict=NONE if quick else judge(prediction, values, bounds),
        leaning=leaning(prediction, values, bounds),
    )


def _lines(trials: Sequence[Trial]) -> tuple[Line, ...]:
    """The series of all trials, by name; at an x that only some seeds reached, over those."""
    names = dict.fromkeys(series.name for trial in trials for series in trial.series)
    return tuple(
        _line([series for trial in trials for series in trial.series if series.name == name])
        for name in names
    )


def _line(seeds: Sequence[Series]) -> Line:
    at: dict[Any, list[float]] = {}
    for series in seeds:
        for x, y in zip(series.x, series.y, strict=True):
            at.setdefault(x, []).append(y)
    places = list(at) if any(isinstance(x, str) for x in at) else sorted(at)
    finite = [[y for y in at[x] if math.isfinite(y)] for x in places]
    return Line(
        name=seeds[0].name,
        norm=seeds[0].norm,
        x=tuple(places),
        mean=tuple(statistics.fmean(ys) if ys else None for ys in finite),
        low=tuple(min(ys) if ys else None for ys in finite),
        high=tuple(max(ys) if ys else None for ys in finite),
    )
