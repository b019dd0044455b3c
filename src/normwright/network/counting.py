"""How many of what, in words."""

from __future__ import annotations


def how_many(count: int, noun: str) -> str:
    """A number and its noun, in the plural but for one.

    Example:
        >>> [how_many(count, "batch") for count in (0, 1, 1024)]
        ['0 batches', '1 batch', '1,024 batches']
        >>> how_many(2, "epoch")
        '2 epochs'
    """
    ending = "es" if noun.endswith(("s", "x", "tch", "nch", "sh")) else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"
