"""The table as Markdown: every value in its column, and no name out of its cell."""

from __future__ import annotations

import dataclasses
import re

from normwright.report.markdown import time_ratios, to_markdown
from normwright.report.palette import style_of


def cells(text: str) -> list[list[str]]:
    """The rows of the table, split as a reader of Markdown does: at bars without a backslash."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_row_holds_every_quantity(make_comparison):
    heads, _, *rows = cells(to_markdown(make_comparison()))
    row = dict(zip(heads, next(row for row in rows if row[:2] == ["**batch**", "32"]), strict=True))
    assert row == {
        "Normaliser": "**batch**",
        "Batch size": "32",
        "Best lr": "1",
        "Test accuracy": "0.974 (0.968 – 0.980)",
        "Steps to 0.85": "769 (609 – 929)",
        "Speed-up": "9.45× (7.89× – 11.0×)",
        "Diverged": "0 %",
        "ms / step": "2.84",
        "÷ none": "1.08×",
        "Memory, MiB": "7.5",
    }


def test_missing_values_are_dashes(make_comparison):
    _, _, *rows = cells(to_markdown(make_comparison(seeds=1, diverge_all=True)))
    assert all(row[2:] == ["–", "all diverged", "–", "–", "100 %", "–", "–", "–"] for row in rows)


def test_single_seed_has_no_interval(make_comparison):
    _, _, *rows = cells(to_markdown(make_comparison(seeds=1)))
    assert not any(" – " in cell for row in rows for cell in row)


def test_every_row_has_as_many_cells_as_the_head(make_comparison):
    text = to_markdown(make_comparison())
    assert {len(row) for row in cells(text)} == {10}
    assert len(cells(text)) == 2 + len(make_comparison().rows)


def test_left_out_places_are_told(make_comparison):
    _, _, *rows = cells(to_markdown(make_comparison()))
    notes = {row[0] for row in rows if "group" in row[0]}
    assert notes == {"group (undefined in 2 of 6 places, left out there)"}


def test_only_a_winner_is_bold(make_comparison):
    _, _, *rows = cells(to_markdown(make_comparison()))
    # At batch size 2 group norm is the highest, and level with layer norm.
    assert [row[:2] for row in rows if "**" in row[0]] == [["**batch**", "32"]]


def test_names_stay_text(make_comparison):
    hostile = make_comparison(network="a|b.py:<script>*x*", data="c\nd:`e`")
    text = to_markdown(dataclasses.replace(hostile, metric="m|n.py:f"))
    assert text.splitlines()[0] == r"# a\|b.py:\<script\>\*x\* on c d:\`e\`"
    assert {len(row) for row in cells(text)} == {10}
    assert cells(text)[0][3] == r"Test m\|n.py:f"


def test_command_stands_in_a_fence_that_it_cannot_close(make_comparison):
    command = "normwright compare '```\n```` x'"
    text = to_markdown(dataclasses.replace(make_comparison(), command=command))
    assert text.endswith(f"\n`````\n{command}\n`````\n")


def test_how_long_the_runs_were(make_comparison):
    comparison = make_comparison()
    assert "\n120 runs of 10 epochs each, on cpu" in to_markdown(comparison)
    cut = dataclasses.replace(comparison, max_steps=1)
    assert "\n120 runs of 10 epochs, 1 step at most each, on cpu" in to_markdown(cut)


def test_verdict_of_each_batch_size_is_there(make_comparison):
    comparison = make_comparison()
    text = to_markdown(comparison)
    for size, words in comparison.verdicts:
        assert f"**Batch size {size}.** {words}" in text


def test_time_ratio_needs_both_times(make_comparison):
    comparison = make_comparison(batch_sizes=(32,))
    ratios = time_ratios(comparison)
    assert ratios[style_of("none"), 32] == "1.00×"
    assert ratios[style_of("rms"), 32] == "0.92×"
    without = dataclasses.replace(comparison, rows=comparison.rows[1:])
    assert set(time_ratios(without).values()) == {"–"}
