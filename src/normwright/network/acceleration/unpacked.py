"""What `a, b = value` is in a trace: as many parts as there are names, or an error."""

from __future__ import annotations

from typing import Any


def unpacked(value: Any, count: int) -> tuple[Any, ...]:
    """The parts of a value, which must be `count`.

    Raises:
        ValueError: there are more or fewer, in Python's words.

    Example:
        >>> unpacked([1, 2], 2)
        (1, 2)
    """
    parts = tuple(value)
    if len(parts) < count:
        raise ValueError(f"not enough values to unpack (expected {count}, got {len(parts)})")
    if len(parts) > count:
        raise ValueError(f"too many values to unpack (expected {count})")
    return parts
