"""What stands for a part of the evidence that is not there: not yet, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")


class SkipError(Exception):
    """A rule cannot judge; the message says what is missing and why."""


@dataclass(frozen=True)
class Missing:
    """Stands for a part of the evidence that could not be gathered.

    Args:
        because: the reason.
    """

    because: str


class Waiting:
    """Stands for a part of the evidence until it is first read.

    Args:
        gathering: gives the part; SkipError where it cannot.
    """

    def __init__(self, gathering: Callable[[], Any]) -> None:
        self._gathering = gathering

    @cached_property
    def part(self) -> Any:
        """The part, gathered once; may be `Missing`."""
        return part_or_missing(self._gathering)

    def settled(self) -> Any:
        """The part if somebody has read it; else what says that nobody did."""
        return self.part if "part" in vars(self) else Missing("no rule that was asked reads it")


def part_or_missing(gathering: Callable[[], T]) -> T:
    """A part of the evidence; `Missing` in its place where its gathering raises SkipError."""
    try:
        return gathering()
    except SkipError as skip:
        return Missing(str(skip))  # type: ignore[return-value]


def known(read: Callable[[], tuple[T, ...]]) -> tuple[T, ...]:
    """A part of the evidence; nothing where it is missing, for what can be judged without it.

    Example:
        >>> known(lambda: ("seen",))
        ('seen',)
    """
    try:
        return read()
    except SkipError:
        return ()
