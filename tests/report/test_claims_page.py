"""The page of the book: what it says, where its marks lie, and that no name gets out of its place."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
import sys
from pathlib import Path

import pytest

from normwright.errors import OptionError, StoreError
from normwright.lab.book.choice import ChosenRate
from normwright.report.claims_figure import claim_panel
from normwright.report.claims_markdown import to_markdown
from normwright.report.claims_page import render, write
from normwright.report.claims_scale import charts, predicts_effect, scaled
from normwright.report.claims_standing import STANDINGS, standing_of
from normwright.report.palette import contrast, style_of

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from claims_sample import (  # noqa: E402  # found by the lines above
    BETTER,
    FASTER,
    FLAT,
    STEADY,
    Prediction,
    book,
    extremes,
    record,
)

HOSTILE = "</script><script>alert(1)</script><b>x</b>"
BELOW = Prediction("gain", "accuracy falls by at least 2 points", "points", at_most=-2.0)
NO_WORSE = Prediction("gain", "accuracy falls by at most 1 point", "points", at_least=-1.0)


def hostile(number=1):
    made = record(number)
    outcome = dataclasses.replace(made.outcomes[0], says=HOSTILE, unit=HOSTILE)
    line = dataclasses.replace(made.lines[0], name=HOSTILE, norm=HOSTILE)
    names = ("sentence", "recipe", "measure", "conditions", "practice", "machine", "command")
    return dataclasses.replace(
        made,
        outcomes=(outcome,),
        lines=(line, *made.lines[1:]),
        plot=dataclasses.replace(made.plot, title=HOSTILE, x=HOSTILE, y=HOSTILE),
        references=(HOSTILE,),
        rates=(ChosenRate(HOSTILE, 0.1, (0.1,), "", ""),),
        notes=(HOSTILE,),
        **dict.fromkeys(names, HOSTILE),
    )


def leaf(page, number):
    return re.search(rf'<section id="claim-{number}" class="leaf">.*?</section>', page, re.S)[0]


def words_of(page):
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


@pytest.fixture(scope="module")
def page():
    return render(book() + extremes())


def test_the_page_is_a_function_of_the_records_and_loads_nothing(page):
    assert page == render(book() + extremes())
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", page.split("<script>")[0])
    assert len(page) < 6e6


def test_the_first_words_say_how_many_came_out_how_and_which():
    head = words_of(render(book()).partition('id="effects"')[0].partition("<main>")[2])
    assert "Of 7 claims, 3 are supported, 2 are not supported, 2 are refuted." in head
    assert "1 claim has no verdict yet, leaning: 0 supported, 1 not supported, 0 refuted." in head
    for group, numbers in (("supported 3", (1, 4, 5)), ("not supported 2", (3, 6)), ("refuted 2", (2, 7))):
        _, _, rest = head.partition(group)
        assert rest, group
        assert all(record(number).sentence in rest for number in numbers)


def test_every_claim_has_a_leaf_with_all_that_its_record_holds(page):
    for one in book() + extremes():
        told = html.unescape(words_of(leaf(page, one.number)))
        for said in (one.sentence, one.practice, one.recipe, one.measure, one.conditions, *one.references):
            assert said in told
        assert one.command in told
        assert "40 runs, 3 min 09 s on one core" in told


def test_leaves_are_chained(page):
    second = leaf(page, 2)
    assert 'rel="prev" href="#claim-1"' in second
    assert 'rel="next" href="#claim-3"' in second
    assert 'rel="prev"' not in leaf(page, 1)
    assert 'rel="next"' not in leaf(page, 12)


def test_a_quick_run_is_marked_everywhere_and_is_never_given_a_verdict():
    page = render([record(1, quick=True)])
    text = words_of(page.partition("<main>")[2].partition("<footer>")[0])
    assert "leaning: supported" in leaf(page, 1)
    assert "A quick run: of the reduced size and with 4 seeds." in leaf(page, 1)
    assert text.count("verdict") == text.count("no verdict") + text.count("a verdict needs")
    assert '<span class="standing"' not in page  # a badge that is filled
    assert "none:" not in text
    assert "Leaning" in page
    assert ">Verdict<" not in page


def test_few_seeds_at_the_full_size_lean_too():
    made = record(1)
    few = dataclasses.replace(
        made,
        seeds=3,
        verdict="no verdict",
        outcomes=(dataclasses.replace(made.outcomes[0], verdict="no verdict"),),
    )
    told = leaf(render([few]), 1)
    assert "A run of 3 seeds, where a verdict needs 5." in told
    assert "leaning: supported" in told


def test_a_contested_claim_shows_the_verdict_of_each_prediction(page):
    told = words_of(leaf(page, 7))
    assert "Claim 7 · contested" in told
    assert "The literature disagrees about this claim. Each prediction has a verdict of its own." in told
    _, _, table = told.partition("Predicted Held against")
    assert table.index("● supported") < table.index("✖ refuted")


def test_the_overview_says_by_how_many_predictions_a_claim_is_refuted(page):
    overview = words_of(page).partition("How large the effects are")[0]
    assert "refuted: 1 of 2 predictions" in overview  # claim 7
    assert overview.count(" predictions") == 1  # no other has several
    assert "1 of 2 predictions" in words_of(leaf(page, 7))
    row = next(line for line in to_markdown(book()).splitlines() if line.startswith("| 7 |"))
    assert "| **refuted**<br>1 of 2 predictions |" in row


def test_an_interval_without_width_is_explained():
    said = "All 5 seeds gave the same value, as does a measure that is read off a grid or counted"
    grid = record(1, values={"speed_up": (16.0,) * 5})
    assert said in words_of(render([grid]))
    assert "An interval without width" in to_markdown([grid])
    seeds = record(1, values={"speed_up": (16.0, 16.0, 16.0, 16.0, 8.0)})
    assert "gave the same value" not in render([seeds])
    assert "An interval without width" not in to_markdown([seeds])
    unmeasured = record(1, values={"speed_up": (math.nan,) * 5})
    assert "gave the same value" not in render([unmeasured])


def test_a_sign_that_is_turned_round_is_told():
    loss = dataclasses.replace(BETTER, at_least=-0.5)
    made = record(1, loss, values={"gain": (-5.0, -5.5, -6.0, -5.2, -5.8)})
    (chart,) = charts([made])
    assert (chart.key, chart.turned, chart.rows[0].turned) == ("none", True, True)
    text = words_of(render([made]))
    assert "Rows marked ↔ are drawn with their sign turned round" in text
    assert text.count("↔ sign turned round") == 1
    assert "↔" not in render(book())


def test_bounds_and_what_could_not_be_measured_are_told(page):
    assert "In 5 of 5 seeds the true effect is at least the measure" in leaf(page, 4)
    assert "at least 60.1 points of accuracy (" in leaf(page, 4)
    assert "seed by seed: ≥ 60, ≥ 62, ≥ 58.5, ≥ 61, ≥ 59" in leaf(page, 4)
    assert "seed by seed: 1, –, 2, 0.5, 1.5" in leaf(page, 6)
    assert "could not be measured" in leaf(page, 9)
    assert "There is nothing to draw" in leaf(page, 6)


def test_chosen_rates_are_a_table_with_the_edges_marked(page):
    _, _, table = words_of(leaf(page, 1)).partition("Side Rate Of those tried ")
    assert table.startswith(
        "batch norm 0.1 0.01, 0.1 the largest tried, and the score still rises there: a larger one may be "
        "better no normaliser 1 0.1, 1, 10 "
    )


def test_a_claim_that_chose_no_rates_shows_no_table_of_them(page):
    assert "Learning rates" not in leaf(page, 2)
    assert "Learning rates" in leaf(page, 1)


def test_no_name_gets_out_of_its_place():
    page = render([hostile(1), hostile(2)])
    assert HOSTILE not in page
    assert "<b>x</b>" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert "</script" not in re.search(r'<script type="application/json">(.*?)</script>', page)[1]


def test_names_of_code_between_backticks_are_set_as_code_and_escaped():
    page = render(
        [dataclasses.replace(record(1), practice="Take `a<b>` and `c`.", measure="An odd ` one <b>.")]
    )
    assert "Take <code>a&lt;b&gt;</code> and <code>c</code>." in page
    assert "An odd ` one &lt;b&gt;." in page


def test_no_record_is_an_error():
    with pytest.raises(OptionError, match="there is none: run some by `normwright claims run`"):
        render([])


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    with pytest.raises(StoreError, match="must be in a folder that exists"):
        write(book(), tmp_path / "nowhere" / "book.html")
    write([record(1)], tmp_path / "book.html")
    assert (tmp_path / "book.html").read_text() == render([record(1)])


# ---- the common scale


@pytest.mark.parametrize("prediction", [FASTER, BETTER, FLAT, STEADY, BELOW, NO_WORSE])
def test_no_effect_is_at_0_and_the_limit_at_1(prediction):
    (outcome,) = record(1, prediction).outcomes
    assert scaled(outcome, 1.0 if prediction.ratio else 0.0) == 0
    assert scaled(outcome, outcome.limit) == 1


def test_a_ratio_is_placed_by_its_logarithm():
    (outcome,) = record(1).outcomes
    assert scaled(outcome, 8.0) == pytest.approx(3)
    assert scaled(outcome, 0.5) == pytest.approx(-1)
    assert scaled(outcome, 0.0) == -math.inf


@pytest.mark.parametrize(
    ("prediction", "effect"),
    [(FASTER, True), (BETTER, True), (BELOW, True), (FLAT, False), (NO_WORSE, False)],
)
def test_predictions_of_an_effect_and_of_none_have_panels_of_their_own(prediction, effect):
    made = record(1, prediction, values={"gain": (-3.0,) * 5})
    assert predicts_effect(made.outcomes[0]) is effect
    assert [chart.key for chart in charts([made])] == ["effect" if effect else "none"]


@pytest.mark.parametrize("made", book() + extremes(), ids=lambda made: str(made.number))
def test_marks_lie_on_the_side_that_the_verdict_says(made):
    for chart in charts([made]):
        for row in chart.rows:
            if row.dot is None or row.dot.low is None:
                assert row.why or row.effect
                continue
            assert row.dot.low <= row.dot.mean <= row.dot.high
            supports = row.dot.low >= chart.one if chart.key == "effect" else row.dot.high <= chart.one
            breaks = row.dot.high < chart.one if chart.key == "effect" else row.dot.low > chart.one
            assert supports == (row.standing.verdict == "supported")
            if row.number != 6:  # a seed is missing
                assert breaks == (row.standing.verdict == "refuted")


def test_all_marks_are_on_the_axis_and_ends_beyond_it_are_open():
    (chart,) = charts(extremes())
    for row in chart.rows:
        if row.dot:
            assert 0 < row.dot.low <= row.dot.mean <= row.dot.high < 100
    dots = {row.number: row.dot for row in chart.rows}
    assert dots[9] is dots[10] is None
    assert (dots[11].low_open, dots[11].high_open) == (False, True)
    assert [row.why for row in chart.rows if row.number == 10] == [
        "held against no effect at all, which has no place on this scale"
    ]
    places = [place for place, _ in chart.ticks]
    assert places == sorted(places)
    assert {"0", "1"} <= {text for _, text in chart.ticks}


@pytest.mark.parametrize(
    ("prediction", "bound", "below", "above"),
    [
        (FASTER, "at least", False, True),
        (FASTER, "at most", True, False),
        (BETTER, "at least", False, True),
        (BELOW, "at least", True, False),  # a fall by less lies nearer to 0
        (BELOW, "at most", False, True),
    ],
)
def test_an_interval_over_bounds_is_open_where_the_effect_lies(prediction, bound, below, above):
    for bounds, ends in (({prediction.key: bound}, (below, above)), ({}, (False, False))):
        made = record(1, prediction, values={"gain": (-5.0, -6.0, -4.0, -5.0, -5.5)}, bounds=bounds)
        (row,) = charts([made])[0].rows
        assert (row.dot.low_open, row.dot.high_open) == ends


def test_a_scale_that_turns_round_keeps_low_below_high():
    made = record(1, BELOW, values={"gain": (-5.0, -6.0, -4.0, -5.0, -5.5)})
    (chart,) = charts([made])
    assert chart.one < chart.rows[0].dot.low < chart.rows[0].dot.high
    assert chart.rows[0].standing.verdict == "supported"


# ---- how a claim stands


def test_the_marks_that_are_drawn_are_explained_and_no_others():
    """A claim that is refuted by one prediction has marks of the others, too."""
    both = record(1, FASTER, BETTER, values={"gain": (-3.0, -3.2, -2.8, -3.1, -2.9)}, quick=True)
    key = re.search(r'aria-label="Marks">(.*?)</p>', render([both])).group(1)
    badges = re.findall(r"</span> (.*?)</span>", key)
    assert badges == ["leaning: supported", "leaning: refuted"]


def test_standings_differ_by_word_mark_and_colour_and_are_legible():
    for part in ("label", "symbol"):
        assert len({getattr(standing, part) for standing in STANDINGS}) == 6
    assert len({standing.mark for standing in STANDINGS}) == 3
    for standing in STANDINGS:
        assert contrast(standing.colour, "#ffffff") >= 4.5
    assert standing_of(record(1)).label == "supported"
    assert standing_of(record(1, quick=True)).label == "leaning: supported"


# ---- the plot


def test_lines_have_the_colour_of_their_normaliser_and_differ_by_dash():
    figure = claim_panel(record(1)).figure
    lines = {trace.name: trace.line for trace in figure.data if trace.name}
    assert lines["batch norm"].color == lines["batch norm, deep"].color == style_of("batch").colour
    assert (lines["batch norm"].dash, lines["batch norm, deep"].dash) == ("solid", "dash")
    assert lines["no normaliser"].color == style_of("none").colour
    assert lines["chance"].color not in {style_of(norm).colour for norm in ("none", "batch")}
    assert len({trace.legendgroup for trace in figure.data}) == 4


def test_a_band_goes_from_the_lowest_to_the_highest_seed_and_stops_at_a_gap():
    figure = claim_panel(record(1)).figure
    (band,) = [trace for trace in figure.data if trace.fill and trace.legendgroup == "1:no normaliser"]
    parts = "".join("." if y is None else "y" for y in band.y)
    assert parts == "y" * 14 + "." + "y" * 18 + "."
    # the first seven of eighteen points, there and back
    assert band.x[:14] == (100, 200, 300, 400, 500, 600, 700, 700, 600, 500, 400, 300, 200, 100)
    lines = [trace for trace in figure.data if not trace.fill]
    assert figure.data[-len(lines) :] == tuple(lines)


def test_categories_are_points_with_ranges_beside_each_other():
    figure = claim_panel(record(3, categories=True)).figure
    assert [trace.name for trace in figure.data] == ["batch norm", "group norm"]  # the third was not measured
    batch, group = figure.data
    assert batch.mode == "markers"
    assert all(a < b for a, b in zip(batch.x, group.x, strict=True))
    assert batch.error_y.array[0] == batch.error_y.arrayminus[0] == pytest.approx(0.04)
    assert figure.layout.xaxis.ticktext[2] == "batch 32 and a<br>longer name"


def test_names_are_text_in_the_plot():
    figure = claim_panel(hostile()).figure
    text = json.dumps(figure.to_plotly_json()["layout"]["title"]) + figure.data[-1].name
    assert "<b>" not in text + "".join(trace.name or "" for trace in figure.data)
    assert "&lt;b&gt;" in figure.layout.xaxis.title.text


def test_logarithmic_axes():
    made = record(1)
    plot = dataclasses.replace(made.plot, log_x=True, log_y=True)
    layout = claim_panel(dataclasses.replace(made, plot=plot)).figure.layout
    assert layout.xaxis.type == layout.yaxis.type == "log"


# ---- Markdown


def test_markdown_has_a_row_for_each_claim():
    text = to_markdown(book(), picture="overview.png", page="book.html")
    rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == 8
    assert all(line.count(" | ") == 5 for line in rows)
    assert "| **supported** |" in rows[0]
    assert "| *leaning: not supported* |" in rows[7]
    assert "3.01 times (2.65 to 3.41)<br>0.988 times" in rows[6]
    assert "![How each claim came out](overview.png)" in text
    assert "[book.html](book.html)" in text
    assert "it is no verdict" in text
    assert "leaning" not in to_markdown(book()[:7])
    assert "| at least 60.1 points of accuracy (" in rows[3]
    assert "some of its measures are bounds" in text
    assert "bounds" not in to_markdown(book()[:3])


def test_markdown_keeps_names_text():
    text = to_markdown([hostile()])
    assert "<b>" not in text
    assert r"\<b\>x" in text
