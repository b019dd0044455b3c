"""Lists on the command line: values with commas between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

Value = TypeVar("Value")


class Words(tuple[str, ...]):
    """Words with commas between them."""


class Integers(tuple[int, ...]):
    """Whole numbers with commas between them."""


class Numbers(tuple[float, ...]):
    """Numbers with commas between them."""


def words(text: str) -> Words:
    """`none,batch` as words.

    Example:
        >>> words("none, batch")
        ('none', 'batch')
    """
    return Words(_elements(text, str, "a word"))


def integers(text: str) -> Integers:
    """`2,32` as whole numbers.

    Example:
        >>> integers("2,32")
        (2, 32)
    """
    return Integers(_elements(text, int, "a whole number"))


def numbers(text: str) -> Numbers:
    """`0.1,1` as numbers.

    Example:
        >>> numbers("0.1,1e-3")
        (0.1, 0.001)
    """
    return Numbers(_elements(text, float, "a number"))


def _elements(text: str, convert: Callable[[str], Value], wanted: str) -> list[Value]:
    elements = []
    for position, element in enumerate(map(str.strip, text.split(",")), 1):
        what = (
            f"{element!r} (element {position} of {text!r})" if element else f"element {position} of {text!r}"
        )
        if not element:
            raise typer.BadParameter(f"{what} must be {wanted}, but is empty; write a comma between two only")
        try:
            elements.append(convert(element))
        except ValueError as error:
            raise typer.BadParameter(f"{what} must be {wanted}, but is not") from error
    return elements
