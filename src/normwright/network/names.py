"""What an option holds that chooses by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from normwright.errors import OptionError


def names_in(option: str, names: Any) -> tuple[Any, ...]:
    """The names themselves; a text is refused, of which Python would take letter by letter.

    Args:
        option: what the argument is called.
        names: its value; of any name, whether it is known is not asked.
    Raises:
        OptionError: it is no iterable, or a text.
    Example:
        >>> names_in("names=", ["0", "2"])
        ('0', '2')
    """
    if isinstance(names, str):
        raise OptionError(
            f"{option} must be names in a list or tuple, but is the text {names!r}: write [{names!r}]"
        )
    if not isinstance(names, Iterable):
        raise OptionError(
            f"{option} must be names in a list or tuple, but is {names!r}: write them as texts, such as "
            f"{[str(names)]}"
        )
    return tuple(names)
