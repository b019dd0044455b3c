"""How many groups a number of channels is cut into."""

from __future__ import annotations

from normwright.errors import OptionError, ShapeError

#: As in the paper (Wu & He 2018, arXiv:1803.08494).
MOST_GROUPS = 32
# Of m elements, standardising leaves m - 2 degrees of freedom: of one element nothing, of two a sign.
_LEAST_ELEMENTS = 16


def fitting_groups(channels: int, most: int, space: int | None) -> int:
    """The largest number of groups, of at most `most`, none of which is too small to normalise.

    A group has at least two channels, and at least 16 elements where that many are to be had. Where the
    space is not known, channels alone count if it may be nothing (`space` 1).

    Args:
        channels: C.
        most: the most groups.
        space: positions per channel at the least; None where not known, but surely an image or volume.
    Returns:
        A divisor of C, of at most `most`.
    Raises:
        OptionError: `most` is below 1.
        ShapeError: one group of all channels has a single element, which it would turn into 0.
    References:
        Wu & He 2018, arXiv:1803.08494.
    Example:
        >>> fitting_groups(64, 32, None), fitting_groups(120, 32, 1), fitting_groups(7, 32, 49)
        (32, 6, 1)
    """
    if most < 1:
        raise OptionError(
            f"groups= must be at least 1, but is {most}: it is the most groups that may be made"
        )
    if channels == 1 and space == 1:
        raise ShapeError("one channel at one position is one element, which every group turns into 0")
    least = 2 if space is None else max(2, -(-_LEAST_ELEMENTS // max(space, 1)))
    divisors = (g for g in range(min(most, channels // least), 0, -1) if channels % g == 0)
    return next(divisors, 1)
