"""How a claim stands, as the page shows it: by a word, a colour and a mark, and by colour never alone."""

from __future__ import annotations

from dataclasses import dataclass

from normwright.lab.book import words
from normwright.lab.book.record import ClaimRecord, Outcome
from normwright.lab.book.verdict import NONE, NOT_SUPPORTED, REFUTED, SUPPORTED

# Blue, grey and vermilion of Okabe & Ito's palette, darkened until white text reads on them (WCAG 2: 4.5).
_COLOURS = {SUPPORTED: "#0b5c92", NOT_SUPPORTED: "#59616b", REFUTED: "#b3420a"}
_MARKS = {SUPPORTED: "circle", NOT_SUPPORTED: "square", REFUTED: "cross"}
_SYMBOLS = {SUPPORTED: ("●", "○"), NOT_SUPPORTED: ("■", "□"), REFUTED: ("✖", "✕")}


@dataclass(frozen=True)
class Standing:
    """A verdict, or what a run without one leans to.

    Args:
        verdict: supported, not supported or refuted.
        firm: whether it is a verdict.
    """

    verdict: str
    firm: bool

    @property
    def label(self) -> str:
        """In words: a leaning is never called a verdict."""
        return words.standing(self.verdict if self.firm else NONE, self.verdict)

    @property
    def colour(self) -> str:
        """Of its badge and its mark."""
        return _COLOURS[self.verdict]

    @property
    def mark(self) -> str:
        """circle, square or cross; hollow where it is a leaning."""
        return _MARKS[self.verdict]

    @property
    def symbol(self) -> str:
        """The mark as a character."""
        return _SYMBOLS[self.verdict][0 if self.firm else 1]


# In the order in which a reader looks for them.
STANDINGS = tuple(
    Standing(verdict, firm) for firm in (True, False) for verdict in (SUPPORTED, NOT_SUPPORTED, REFUTED)
)


def standing_of(judged: ClaimRecord | Outcome) -> Standing:
    """How a claim, or one of its predictions, stands."""
    firm = judged.verdict != NONE
    return Standing(judged.verdict if firm else judged.leaning, firm)
