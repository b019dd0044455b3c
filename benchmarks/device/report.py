"""What has been measured so far, saved whenever a section has more to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.markdown import bullets
from benchmarks.saving import save

# What a reply with a limit still shows in full.
LONGEST_SUMMARY = 11_500


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
        """The few lines that matter, under `LONGEST_SUMMARY` characters."""
        lines = [f"{name}: {fact}" for name, fact in self.facts.items()]
        for outcome in self.outcomes.values():
            lines += ["", f"{outcome.title}", *(f"  {line}" for line in outcome.summary)]
        if self.dropped:
            lines += ["", "Not measured, for want of time", *(f"  {line}" for line in self.dropped)]
        text = "\n".join(lines)
        if len(text) <= LONGEST_SUMMARY:
            return text
        more = "\n… (the rest is in the files)"
        return text[: LONGEST_SUMMARY - len(more)] + more

    def save(self, folder: Path, name: str) -> None:
        """Writes name.md and name.json."""
        sections = {key: outcome.records for key, outcome in self.outcomes.items()}
        records = {"facts": self.facts, "dropped": self.dropped, "sections": sections}
        save(folder, name, self.page(), records)
