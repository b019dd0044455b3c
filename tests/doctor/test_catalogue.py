"""What is written of the rules, and that the page in docs/ says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from normwright.doctor.catalogue import COMMAND, markdown, records, text
from normwright.doctor.rule import all_rules
from normwright.doctor.thresholds import THRESHOLDS

DOCS = Path(__file__).parents[2] / "docs"


def test_every_rule_and_threshold_is_told():
    page = markdown()
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == [*all_rules(), "Thresholds"]
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == sorted(THRESHOLDS)
    for rule in all_rules().values():
        for words in (rule.what, rule.why, rule.advice, *rule.references):
            assert words in page
            assert words in text()
    assert [record["name"] for record in records()] == list(all_rules())


def test_a_row_of_the_table_has_five_bars():
    rows = [line for line in markdown().splitlines() if line.startswith("| `")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


def test_what_can_be_mended_and_what_needs_no_run_is_told():
    for rule in all_rules().values():
        (section,) = re.findall(rf"^## {rule.name}\n\n(.*)$", markdown(), re.MULTILINE)
        assert ("`--fix` makes the change" in section) == (rule.treat is not None)
        assert ("alone" in section) == rule.static


def test_the_page_in_docs_is_of_these_rules():
    if (DOCS / "doctor-rules.md").read_text() != markdown() + "\n":
        pytest.fail(f"docs/doctor-rules.md is of other rules: {COMMAND} > docs/doctor-rules.md")
