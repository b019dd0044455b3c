"""What the doctor can find: every rule in words, and every threshold with its source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from normwright.doctor.rule import Rule, all_rules
from normwright.doctor.thresholds import THRESHOLDS

COMMAND = "normwright doctor --list --markdown"


def records() -> list[dict[str, Any]]:
    """The rules as plain values, as for JSON."""
    return [
        {
            "name": rule.name,
            "severity": rule.severity,
            "what": rule.what,
            "why": rule.why,
            "advice": rule.advice,
            "references": list(rule.references),
            "static": rule.static,
            "treatable": rule.treat is not None,
        }
        for rule in all_rules().values()
    ]


def text() -> str:
    """For a terminal: a paragraph for each rule."""
    return "\n\n".join("\n".join(_paragraph(rule)) for rule in all_rules().values())


def markdown() -> str:
    """A page: a section for each rule, then the table of thresholds."""
    rules = "\n".join(line for rule in all_rules().values() for line in _section(rule))
    rows = "\n".join(
        f"| `{name}` | {threshold.value:g} | {threshold.unit} | {_cell(threshold.source)} |"
        for name, threshold in sorted(THRESHOLDS.items())
    )
    return (
        f"# What the doctor looks for\n\n{len(all_rules())} rules and their thresholds. Made by `{COMMAND}`; "
        f"how to read what they find is in [doctor.md](doctor.md).\n\n{rules}\n## Thresholds\n\n"
        f"| threshold | value | unit | why that value |\n|---|---:|---|---|\n{rows}\n"
    )


def _paragraph(rule: Rule) -> Iterator[str]:
    marks: list[str] = [rule.severity]
    marks += ["by the code alone"] if rule.static else []
    marks += ["--fix can mend it"] if rule.treat is not None else []
    yield f"{rule.name} ({', '.join(marks)})"
    yield f"  {rule.what}"
    yield f"  Why: {rule.why}"
    yield f"  Do: {rule.advice}"
    yield f"  See: {'; '.join(rule.references)}"


def _section(rule: Rule) -> Iterator[str]:
    mended = "; `--fix` makes the change" if rule.treat is not None else ""
    judged = "the network's structure and its optimiser alone" if rule.static else "a few steps and passes"
    yield f"## {rule.name}"
    yield ""
    yield f"{rule.what} *({rule.severity}; judged from {judged}{mended})*"
    yield ""
    yield f"- Why it matters: {rule.why}"
    yield f"- What to do: {rule.advice}"
    yield f"- References: {'; '.join(rule.references)}."
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
