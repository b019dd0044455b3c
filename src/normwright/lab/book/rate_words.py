"""Chosen learning rates in words: the same on the terminal and on the page."""

from __future__ import annotations

from normwright.lab.book.choice import ALIKE, LARGEST, RISING, ChosenRate


def trend(chosen: ChosenRate) -> str:
    """What a reader must know of a choice of rate, or nothing.

    Example:
        >>> trend(ChosenRate("batch norm", 0.1, (0.01, 0.1), "largest", "rising"))
        'the largest tried, and the score still rises there: a larger one may be better'
    """
    if chosen.trend == ALIKE:
        return "all that were tried score alike: the choice is one of chance"
    if not chosen.edge:
        return ""
    beyond = "larger" if chosen.edge == LARGEST else "smaller"
    if chosen.trend == RISING:
        return f"the {chosen.edge} tried, and the score still rises there: a {beyond} one may be better"
    return f"the {chosen.edge} tried; the one beside it scores alike"


def tried(chosen: ChosenRate) -> str:
    """The rates that were tried, such as "0.01, 0.04, 0.16"."""
    return ", ".join(rate(one) for one in chosen.tried)


def rate(value: float) -> str:
    """A learning rate."""
    return f"{value:g}".replace("-", "−")
