"""What came out of a claim, in words: the same on the terminal, in Markdown and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from normwright.lab.book.bounds import AT_LEAST, AT_MOST, EXACT
from normwright.lab.book.record import ClaimRecord, Cost, Outcome
from normwright.lab.book.verdict import NONE, NOT_SUPPORTED, REFUTED, SUPPORTED

UNMEASURED = "could not be measured"

_SIGNS = {EXACT: "", AT_LEAST: "≥ ", AT_MOST: "≤ "}


def standing(verdict: str, leaning: str) -> str:
    """A verdict; where there is none, what the seeds lean to, which is none.

    Example:
        >>> standing("refuted", "refuted"), standing("no verdict", "supported")
        ('refuted', 'leaning: supported')
    """
    return f"leaning: {leaning}" if verdict == NONE else verdict


def share(record: ClaimRecord) -> str:
    """How many of a claim's predictions came out as the claim did; "" where there is one, or all must have.

    A claim is refuted by one of its predictions, and the others may be supported: "1 of 4 predictions".
    """
    count = len(record.outcomes)
    if count == 1 or record.leaning == SUPPORTED:
        return ""
    alike = sum(outcome.leaning == record.leaning for outcome in record.outcomes)
    return f"{alike} of {count} predictions"


def claim_standing(record: ClaimRecord) -> str:
    """How a claim stands, and by how many of its predictions, such as "refuted: 1 of 4 predictions"."""
    stands, some = standing(record.verdict, record.leaning), share(record)
    if not some:
        return stands
    return f"{stands} ({some})" if record.verdict == NONE else f"{stands}: {some}"


def effect(outcome: Outcome) -> str:
    """Mean and interval with the unit, such as "3.1 times (2.4 to 3.9)".

    Over bounds, "at least 3.1 times (2.4 to 3.9)"; "about", where there are bounds of both kinds.
    """
    if outcome.effect is None:
        return UNMEASURED
    ends = interval(outcome)
    kinds = bound_kinds(outcome)
    bound = "about " if len(kinds) > 1 else "".join(f"{kind} " for kind in kinds)
    return bound + in_unit(outcome.effect.mean, outcome.unit) + (f" ({ends})" if ends else "")


def interval(outcome: Outcome) -> str:
    """The ends of the 95 % interval, or nothing where there is none (a single seed)."""
    found = outcome.effect
    if found is None or found.low is None or found.high is None:
        return ""
    return f"{number(found.low)} to {number(found.high)}"


def predicted(at_least: float | None, limit: float, unit: str) -> str:
    """What the measure must be, such as "at least 2 times"."""
    return f"{'at most' if at_least is None else 'at least'} {in_unit(limit, unit)}"


def in_unit(value: float, unit: str) -> str:
    """A measure with its unit, which is singular where it is one.

    Example:
        >>> in_unit(2.0, "points of accuracy"), in_unit(1.0, "points of accuracy"), in_unit(1.0, "times")
        ('2 points of accuracy', '1 point of accuracy', '1 times')
    """
    shown, (first, *rest) = number(value), unit.split(" ")
    if shown in ("1", "−1") and first.endswith("s") and first != "times":
        first = first.removesuffix("s")
    return " ".join([shown, first, *rest]).strip()


def effects(record: ClaimRecord) -> str:
    """The effect of every prediction, in one line."""
    return "; ".join(effect(outcome) for outcome in record.outcomes)


def bound_kinds(outcome: Outcome) -> list[str]:
    """The kinds of bounds among its measures."""
    return [kind for kind in (AT_LEAST, AT_MOST) if kind in outcome.bounds]


def bounds(outcome: Outcome) -> str:
    """In how many seeds the measure is a bound, and what such an interval can say; or nothing."""
    kinds = bound_kinds(outcome)
    if not kinds:
        return ""
    seeds = len(outcome.values)
    counted = " and in ".join(
        f"{outcome.bounds.count(kind)} of {seeds} seeds the true effect is {kind} the measure"
        for kind in kinds
    )
    return (
        f"In {counted}: what was not reached counts with the steps that the run was given, or with the last "
        f"of the rates tried. The interval is one of these measures, and need not hold the effect. "
        f"{_said(outcome)}"
    )


def width(outcome: Outcome) -> str:
    """Why the interval has no width, where every seed gave the same measure; or nothing."""
    seeds = len(outcome.values)
    if seeds == 1 or outcome.values[0] is None or len(set(outcome.values)) > 1:
        return ""
    return (
        f"All {seeds} seeds gave the same value, as does a measure that is read off a grid or counted: the "
        "interval has no width, and does not tell what lies between two steps of the grid."
    )


def _said(outcome: Outcome) -> str:
    """What the rule lets an interval over bounds say."""
    kinds = bound_kinds(outcome)
    if len(kinds) > 1:
        return "With bounds of both kinds it can neither support the prediction nor refute it."
    towards = AT_MOST if outcome.at_least is None else AT_LEAST
    can, cannot = ("support", "refute") if kinds == [towards] else ("refute", "support")
    return f"It can {can} the prediction, and cannot {cannot} it."


def values(outcome: Outcome) -> str:
    """The measure of every seed, a dash where it could not be taken; bounds as "≥ 12" and "≤ 12"."""
    shown = zip(outcome.values, outcome.bounds, strict=True)
    return ", ".join("–" if value is None else _SIGNS[bound] + number(value) for value, bound in shown)


def cost(spent: Cost) -> str:
    """What a claim costs.

    Example:
        >>> cost(Cost(40, 125.0, 3.2))
        '40 runs, 2 min 08 s on one core'
    """
    runs = f"{spent.runs:,} run{'s' if spent.runs != 1 else ''}"
    return f"{runs}, {duration(spent.training_seconds + spent.measuring_seconds)} on one core"


def number(value: float) -> str:
    """Three significant digits, plain where that is short.

    Example:
        >>> number(3.14159), number(12345.6), number(0.0), number(-0.02), number(1e-7)
        ('3.14', '12,300', '0', '−0.02', '1e-07')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}".replace("-", "−", value < 0)
    rounded = float(f"{value:.3g}")
    text = f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """A time, to two units.

    Example:
        >>> duration(0.2), duration(125), duration(3720)
        ('1 s', '2 min 05 s', '1 h 02 min')
    """
    whole = max(1, round(seconds))
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return f"{whole} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def counted(records: Sequence[ClaimRecord]) -> str:
    """How many claims came out how, in one sentence.

    Quick runs give no verdict and are counted apart.
    """
    judged = [record.verdict for record in records if record.verdict != NONE]
    leaning = [record.leaning for record in records if record.verdict == NONE]
    parts = [f"Of {claims(len(judged))}, {_by_verdict(judged, ' is', ' are')}."] if judged else []
    if leaning:
        has = "has" if len(leaning) == 1 else "have"
        parts.append(f"{claims(len(leaning))} {has} no verdict yet, leaning: {_by_verdict(leaning)}.")
    return " ".join(parts) or "No claim has been run."


def _by_verdict(verdicts: Sequence[str], one: str = "", several: str = "") -> str:
    counts = [(verdicts.count(name), name) for name in (SUPPORTED, NOT_SUPPORTED, REFUTED)]
    return ", ".join(f"{count}{one if count == 1 else several} {name}" for count, name in counts)


def heading(records: Sequence[ClaimRecord]) -> str:
    """Of the column of verdicts, which are leanings where no record has one."""
    return "leaning" if records and all(record.verdict == NONE for record in records) else "verdict"


def claims(count: int) -> str:
    """So many claims.

    Example:
        >>> claims(1), claims(25)
        ('1 claim', '25 claims')
    """
    return f"{count} claim{'s' if count != 1 else ''}"
