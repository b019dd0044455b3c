"""Tables of cases: one in which every two options that go together meet, one with all of some factors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Case = tuple[Any, ...]


def pairs(factors: Sequence[Sequence[Any]], allowed: Callable[[Case], bool]) -> Iterator[tuple[Any, ...]]:
    """Every (factor, option, factor, option), as indices, that some allowed case could hold.

    `allowed` is given a case with None for the options that are still open.
    """
    for (i, first), (j, second) in combinations(enumerate(factors), 2):
        for a, b in product(range(len(first)), range(len(second))):
            case: list[Any] = [None] * len(factors)
            case[i], case[j] = a, b
            if allowed(tuple(case)):
                yield i, a, j, b


def all_pairs(factors: Sequence[Sequence[Any]], allowed: Callable[[Case], bool]) -> list[Case]:
    """Cases, as indices into the factors, that together hold all `pairs`; the same ones every time."""
    draw = random.Random(0)
    open_pairs = dict.fromkeys(pairs(factors, allowed))
    cases = []
    while open_pairs:
        i, a, j, b = wanted = next(iter(open_pairs))
        tries = [
            case for _ in range(30) if (case := _complete(factors, allowed, {i: a, j: b}, draw)) is not None
        ]
        assert tries, f"no case can hold {wanted}"
        best = max(tries, key=lambda case: sum(_holds(case, pair) for pair in open_pairs))
        cases.append(best)
        open_pairs = {pair: None for pair in open_pairs if not _holds(best, pair)}
    return cases


def all_of(
    factors: Sequence[Sequence[Any]], allowed: Callable[[Case], bool], whole: Sequence[int]
) -> list[Case]:
    """A case for every combination of the options of the factors in `whole`, the others drawn at random."""
    draw = random.Random(0)
    cases = []
    for options in product(*(range(len(factors[factor])) for factor in whole)):
        wanted = dict(zip(whole, options, strict=True))
        tries = (_complete(factors, allowed, wanted, draw) for _ in range(30))
        cases.append(next((case for case in tries if case is not None), None))
    return [case for case in cases if case is not None]


def _holds(case: Case, pair: tuple[Any, ...]) -> bool:
    i, a, j, b = pair
    return bool(case[i] == a and case[j] == b)


def _complete(
    factors: Sequence[Sequence[Any]],
    allowed: Callable[[Case], bool],
    wanted: Mapping[int, int],
    draw: random.Random,
) -> Case | None:
    """A random allowed case with the wanted options, or None where the draw ran into a dead end."""
    case: list[Any] = [wanted.get(factor) for factor in range(len(factors))]
    if not allowed(tuple(case)):
        return None
    free = [factor for factor in range(len(factors)) if case[factor] is None]
    draw.shuffle(free)
    for factor in free:
        options = []
        for option in range(len(factors[factor])):
            case[factor] = option
            if allowed(tuple(case)):
                options.append(option)
        if not options:
            return None
        case[factor] = draw.choice(options)
    return tuple(case)
