"""Which columns give the difference away: what the classifier loses when it cannot read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from normwright.shift.columns import Coded
from normwright.shift.measures import auc_fall
from normwright.shift.two_sample import Taught

SHOWN = 5

# Above this many, columns are shuffled in groups first: one shuffle is one more reading of every fold.
_MANY = 64
_OPENED = 3
_SIDE = 7
_ROWS = 1000
_LEVEL = 0.05


@dataclass(frozen=True)
class Group:
    """Columns that are shuffled together.

    Args:
        name: what the user is told.
        places: of the columns among the codes.
    """

    name: str
    places: tuple[int, ...]


@dataclass(frozen=True)
class Loss:
    """What shuffling a group costs.

    Args:
        group: the columns.
        fall: of the AUC, the mean over the folds.
        error: its standard error over the rows.
    """

    group: Group
    fall: float
    error: float


def give_aways(
    data: Coded,
    parts: Sequence[Taught],
    shape: tuple[int, ...],
    *,
    seed: int,
    on_stage: Callable[[str], None] = lambda sentence: None,
) -> list[Loss]:
    """The groups of columns without which the AUC falls by more than chance explains, the greatest first.

    In each fold, rows that its classifier was not taught from, a thousand at most, are asked about anew, with
    the values of the group shuffled among them. Columns that say the same stand in for each other, so each
    alone may lose little.

    The fall of a column that has nothing to do with the sets is 0 on average, for any classifier. One of so
    many is named in one list of twenty (Bonferroni).

    Args:
        data: both sets.
        parts: the classifiers, each with the rows that it was not taught from.
        shape: of a sample; () for a table.
        seed: of the shuffles.
    Returns:
        At most `SHOWN`.
    """
    asked = [part for part in parts if 0 < data.current[part.rows].sum() < len(part.rows)]
    groups = _squares(data.names, shape) if len(shape) >= 2 else _runs(data.names)
    on_stage("what gives the difference away")
    losses = [_loss(data, asked, group, seed) for group in groups]
    if len(shape) < 2:
        opened = [group for group in _greatest(losses)[:_OPENED] if len(group.group.places) > 1]
        losses = [loss for loss in losses if loss not in opened]
        for loss in opened:
            single = [
                _loss(data, asked, Group(data.names[place], (place,)), seed) for place in loss.group.places
            ]
            # Where no column of a group matters alone, the group is the answer.
            losses += _telling(single) or [loss]
    return _greatest(_telling(losses))[:SHOWN]


def _telling(losses: Sequence[Loss]) -> list[Loss]:
    errors = float(norm.isf(_LEVEL / max(len(losses), 1)))
    return [loss for loss in losses if loss.fall > errors * loss.error]


def _greatest(losses: Sequence[Loss]) -> list[Loss]:
    return sorted(losses, key=lambda loss: -loss.fall)


def _loss(data: Coded, parts: Sequence[Taught], group: Group, seed: int) -> Loss:
    falls = []
    for part in parts:
        again = _asked_again(data.current[part.rows], seed)
        rows, scores = part.rows[again], part.scores[again]
        codes = data.codes[rows]
        order = np.random.default_rng(seed).permutation(len(rows))
        places = np.array(group.places)
        codes[:, places] = codes[np.ix_(order, places)]
        falls.append(auc_fall(scores, part.classifier.scores(codes), data.current[rows]))
    if not falls:
        return Loss(group, 0.0, 0.0)
    # Of two folds neither has rows of the other; what was taught is taken as it is.
    error = math.sqrt(sum(variance for _, variance in falls)) / len(falls)
    return Loss(group, sum(fall for fall, _ in falls) / len(falls), error)


def _asked_again(current: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.int64]:
    """Places of at most `_ROWS` rows, drawn at random, of each set: they come one set after the other."""
    drawn = np.random.default_rng(seed).permutation(len(current))
    fewer, more = sorted((drawn[current[drawn]], drawn[~current[drawn]]), key=len)
    fewer = fewer[: _ROWS // 2]
    return np.sort(np.concatenate([fewer, more[: _ROWS - len(fewer)]]))


def _runs(names: Sequence[str]) -> list[Group]:
    """Each column by itself, or runs of neighbours where there are many."""
    size = math.ceil(len(names) / _MANY)
    groups = []
    for begin in range(0, len(names), size):
        places = tuple(range(begin, min(begin + size, len(names))))
        first, last = names[places[0]], names[places[-1]]
        groups.append(Group(first if len(places) == 1 else f"{first} … {last}", places))
    return groups


def _squares(names: Sequence[str], shape: tuple[int, ...]) -> list[Group]:
    """Squares of the last two axes, whatever lies before these; what is no element stands alone."""
    height, width = shape[-2:]
    side = max(1, math.ceil(max(height, width) / _SIDE))
    members: dict[tuple[int, int], list[int]] = {}
    others = []
    for place, name in enumerate(names):
        if not name.startswith("["):
            others.append(Group(name, (place,)))
            continue
        row, column = _pixel(name)
        members.setdefault((row // side, column // side), []).append(place)
    return [
        Group(f"pixel[{_span(row, side, height)},{_span(column, side, width)}]", tuple(places))
        for (row, column), places in sorted(members.items())
    ] + others


def _pixel(name: str) -> tuple[int, int]:
    """Row and column of an element's name.

    Example:
        >>> _pixel("[0,3,17]")
        (3, 17)
    """
    row, column = name.strip("[]").split(",")[-2:]
    return int(row), int(column)


def _span(block: int, side: int, end: int) -> str:
    begin = block * side
    return str(begin) if side == 1 else f"{begin}:{min(begin + side, end)}"


def element_names(shape: tuple[int, ...]) -> list[str]:
    """The names of an array's elements, in the order of memory.

    Example:
        >>> element_names((2, 1))
        ['[0,0]', '[1,0]']
    """
    return [f"[{','.join(map(str, place))}]" for place in np.ndindex(*shape)]
