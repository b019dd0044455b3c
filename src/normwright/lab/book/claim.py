"""What a claim is: a file of `lab/claims/` that ends in one of these, written before anything is run."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Protocol

from normwright.errors import OptionError, RunError
from normwright.lab import claims
from normwright.lab.book.bounds import AT_LEAST, AT_MOST, EXACT, KINDS
from normwright.lab.book.source import source_of

if TYPE_CHECKING:
    from normwright.lab.book.bench import Bench


@dataclass(frozen=True)
class Prediction:
    """One inequality about one measure, written down before running.

    Args:
        key: names the measure in `Trial.values`.
        says: the inequality in words, such as "steps without over steps with batch norm are at least 1.5".
        unit: of the measure, such as "times" or "points of accuracy".
        at_least: the smallest effect that matters, where the claim predicts an effect.
        at_most: the largest effect that does not matter, where the claim predicts none. One of the
            two is given.
        ratio: the measure is a ratio: averaged by its logarithm.
    Raises:
        OptionError: neither or both of at_least and at_most.
    """

    key: str
    says: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    ratio: bool = False

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise OptionError(f"{self.key}: a prediction has either at_least or at_most, and not both")

    @property
    def limit(self) -> float:
        """The value that the measure is held against."""
        limit = self.at_least if self.at_least is not None else self.at_most
        assert limit is not None
        return limit

    @property
    def null(self) -> float:
        """The measure where there is no effect."""
        return 1.0 if self.ratio else 0.0


@dataclass(frozen=True)
class Series:
    """One line, or one row of points, of a claim's plot.

    Args:
        name: in the legend; `norm` gives its colour, where it stands for a normaliser.
        x: numbers in rising order, or names of categories.
        y: as many numbers; NaN leaves a gap.
        norm: one of `NORMS`, or "".
    Raises:
        OptionError: x and y are not equally many.
    """

    name: str
    x: tuple[float, ...] | tuple[str, ...]
    y: tuple[float, ...]
    norm: str = ""

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise OptionError(
                f"the series {self.name!r} must have one y for each x, but has {len(self.x)} x and "
                f"{len(self.y)} y"
            )


@dataclass(frozen=True)
class Trial:
    """What one seed gave.

    Args:
        values: each prediction's measure; NaN where it could not be taken, for example because neither side
            reached the target.
        series: what the plot shows; the same names in every trial.
        bounds: `AT_LEAST` or `AT_MOST` by the key of a value that is a bound: the true effect is at least, or
            at most, that. `EXACT`, or no entry, where it was measured.
        notes: sentences about this seed that a reader must know.
    Raises:
        OptionError: a bound is of no known kind.
    """

    values: Mapping[str, float]
    series: tuple[Series, ...] = ()
    bounds: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key, bound in self.bounds.items():
            if bound not in KINDS:
                raise OptionError(
                    f"the bound of {key!r} must be {AT_LEAST!r} or {AT_MOST!r}, or {EXACT!r} where there is "
                    f"none, but is {bound!r}"
                )


@dataclass(frozen=True)
class Plot:
    """The axes of a claim's plot. Names on x make a plot of categories."""

    title: str
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False


class Experiment(Protocol):
    """Runs one seed."""

    def __call__(self, bench: Bench, seed: int) -> Trial:
        """Trains what it needs by the bench, and measures."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the literature, as an experiment.

    Args:
        number: as in the book, from 1.
        sentence: what is claimed.
        references: who claims it, or contests it.
        predictions: inequalities; the claim is supported where all are.
        recipe: network, data and training, in words.
        measure: what is measured and how, in words.
        conditions: where the claim is made, and where this experiment differs from that.
        practice: what it means for practice, by verdict: `supported`, `not supported`, `refuted`.
        plot: axes of the plot.
        experiment: runs one seed. Its training calls stand before its measurements: it is called again once
            the runs that it asked for are done.
        contested: the literature disagrees; the book then shows each prediction's verdict beside the claim's.
    """

    number: int
    sentence: str
    references: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    recipe: str
    measure: str
    conditions: str
    practice: Mapping[str, str]
    plot: Plot
    experiment: Experiment
    contested: bool = False

    def __post_init__(self) -> None:
        missing = [name for name in ("supported", "not supported", "refuted") if name not in self.practice]
        if missing:
            raise OptionError(f"claim {self.number}: practice must say what follows if it is {missing[0]}")

    @property
    def name(self) -> str:
        """Its file's name, such as `fewer_steps`."""
        return self.experiment.__module__.rpartition(".")[2]

    @property
    def source(self) -> str:
        """The text of what it measures by: a trial of another text is not one of this claim."""
        return source_of(self.experiment.__module__)


@cache
def all_claims() -> Mapping[int, Claim]:
    """Every claim by its number, in order; found by the files of `lab/claims/`.

    Raises:
        RunError: a file cannot be imported; the exception is its cause.
        OptionError: a file does not end in a claim, or two have one number.
    """
    found: dict[int, Claim] = {}
    for module in pkgutil.iter_modules(claims.__path__):
        if module.name.startswith("_"):
            continue
        claim = _claim_of(f"{claims.__name__}.{module.name}")
        if claim.number in found:
            raise OptionError(
                f"a claim's number must be its own, but {claim.name} and {found[claim.number].name} both "
                f"have {claim.number}"
            )
        found[claim.number] = claim
    return {number: found[number] for number in sorted(found)}


def _claim_of(module: str) -> Claim:
    try:
        claim = getattr(importlib.import_module(module), "CLAIM", None)
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("normwright"):
            raise  # a package of an extra, of which the command line has a word to say
        raise _unimportable(module, missing) from missing
    except Exception as error:
        raise _unimportable(module, error) from error
    if not isinstance(claim, Claim):
        raise OptionError(
            f"the file of a claim must end in CLAIM = Claim(…), but {module} has {type(claim).__name__}"
        )
    source_of(module)  # now, before its author edits it while it runs
    return claim


def _unimportable(module: str, error: Exception) -> RunError:
    return RunError(
        f"{type(error).__name__}: {error}\nwhile importing the claim {module}: put its file right"
    )


def chosen_claims(numbers: Sequence[int]) -> list[Claim]:
    """The claims of these numbers, in order, each once.

    Raises:
        OptionError: none came, or there is no claim of a number.
    """
    known = all_claims()
    unknown = sorted(set(numbers) - set(known))
    if unknown:
        raise OptionError(
            f"a claim's number must be one of {_ranges(list(known))}, but is {unknown[0]}: "
            "`normwright claims` lists them"
        )
    if not numbers:
        raise OptionError(
            "at least one claim must be named by its number, or --all; `normwright claims` lists them"
        )
    return [known[number] for number in sorted(set(numbers))]


def is_finite(value: float | None) -> bool:
    """Whether a measure was taken."""
    return value is not None and math.isfinite(value)


def _ranges(numbers: list[int]) -> str:
    """1, 2, 3, 5 as "1 to 3, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
