"""What has been measured so far, saved whenever a section has more to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.markdown import bullets
from benchmarks.saving import save

# What a reply with a limit still shows in full, and the lines of a section, tried in turn until that is kept.
LONGEST_SUMMARY = 11_500
_SECTION_LINES = (100, 30, 20, 12, 6)


@dataclass(frozen=True)
class Outcome:
    """What a section comes to.

    Args:
        title: its heading.
        markdown: its tables.
        records: its figures.
        summary: the few lines that matter.
    """

    title: str
    markdown: str
    records: object
    summary: Sequence[str] = ()


@dataclass
class Report:
    """The sections by name, the facts of the machine, and what was dropped for want of time."""

    title: str
    facts: dict[str, object]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    def page(self) -> str:
        """All of it as Markdown."""
        parts = [f"# {self.title}", bullets(f"{name}: {fact}" for name, fact in self.facts.items())]
        if self.dropped:
            parts += ["**Not measured, for want of time**", bullets(self.dropped)]
        parts += [f"## {outcome.title}\n\n{outcome.markdown}" for outcome in self.outcomes.values()]
        return "\n\n".join(parts)

    def summary(self) -> str:
        """The few lines that matter, at most `LONGEST_SUMMARY` characters; long sections are cut first."""
        for most in _SECTION_LINES:
            text = self._summary(most)
            if len(text) <= LONGEST_SUMMARY:
                break
        return text[:LONGEST_SUMMARY]

    def _summary(self, most: int) -> str:
        lines = [f"{name}: {fact}" for name, fact in self.facts.items()]
        for outcome in self.outcomes.values():
            left_out = len(outcome.summary) - most
            more = [f"  … {left_out} more in the files"] if left_out > 0 else []
            lines += ["", outcome.title, *(f"  {line}" for line in outcome.summary[:most]), *more]
        if self.dropped:
            lines += ["", "Not measured, for want of time", *(f"  {line}" for line in self.dropped)]
        return "\n".join(lines)

    def save(self, folder: Path, name: str) -> None:
        """Writes name.md and name.json."""
        sections = {key: outcome.records for key, outcome in self.outcomes.items()}
        records = {"facts": self.facts, "dropped": self.dropped, "sections": sections}
        save(folder, name, self.page(), records)
