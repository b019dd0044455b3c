"""What stands for a part of the evidence that could not be gathered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

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


def part_or_missing(gathering: Callable[[], T]) -> T:
    """A part of the evidence; `Missing` in its place where its gathering raises SkipError."""
    try:
        return gathering()
    except SkipError as skip:
        return Missing(str(skip))  # type: ignore[return-value]
