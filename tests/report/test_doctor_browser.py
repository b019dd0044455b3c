"""A diagnosis's page in a real browser: it draws, its selector works, it fits, and it prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from normwright.doctor.treatments.mending import Mended

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect

Open = Callable[..., Any]
SHOWN = ".view:not([hidden]) .figure"
MISCHIEF = "</script><script>alert(1)</script>"
HOSTILE = (f"{MISCHIEF}norm", "%{y}<b>&\"'</b>: relu#2", "a." + "very_long_name_" * 8 + "norm")


def _see(page: Any) -> None:
    """Scrolls through the page until every figure that is shown is drawn."""
    for figure in page.query_selector_all(SHOWN):
        figure.scroll_into_view_if_needed()
    expect(page.locator(f"{SHOWN}:not(.js-plotly-plot)")).to_have_count(0, timeout=30_000)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_draws_and_never_scrolls_sideways(width: int, open_diagnosis: Open) -> None:
    page = open_diagnosis(width, layers=HOSTILE, network=MISCHIEF)
    _see(page)
    # depth; input and output of one layer; three by depth; the gap; mean and variance
    assert page.locator(SHOWN).count() == 1 + 2 + 3 + 1 + 2
    content, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert content <= window
    wide = (
        "[...document.querySelectorAll('.figure .main-svg')].filter(s => s.clientWidth > innerWidth).length"
    )
    assert page.evaluate(wide) == 0


LINES_OF_WORDS = """all => all.flatMap(e => [...e.firstChild.data.matchAll(/[a-z]+/gi)].map(word => {
    const range = document.createRange();
    range.setStart(e.firstChild, word.index);
    range.setEnd(e.firstChild, word.index + word[0].length);
    return range.getClientRects().length;
}))"""


@pytest.mark.parametrize("width", [1280, 390])
def test_no_word_of_what_mending_came_to_is_broken(
    width: int, open_page: Open, make_diagnosis: Callable[..., Any]
) -> None:
    diagnosis = make_diagnosis()
    finding = dataclasses.replace(
        diagnosis.findings[0], rule="recurrent_shared_statistics", layer="5", message="told at length, " * 16
    )
    mending = SimpleNamespace(mended=(Mended(finding, None),), left=(), new=())
    page = open_page(diagnosis, width, mending=mending)
    cells = page.locator(".mended .range, .mended .gone")
    assert cells.all_inner_texts() == ["recurrent_shared_statistics", "nothing found"]
    assert set(cells.evaluate_all(LINES_OF_WORDS)) == {1}


def test_hostile_names_are_shown_as_they_are(open_diagnosis: Open) -> None:
    page = open_diagnosis(layers=HOSTILE, network=MISCHIEF)
    assert MISCHIEF in page.locator("h1").text_content()
    assert sorted(page.locator("#layers option").all_text_contents()) == sorted(HOSTILE)
    assert page.locator(".card th code").all_text_contents() == [HOSTILE[0], HOSTILE[2]]
    assert page.locator("main b").count() == 0


def test_the_selector_shows_one_layer(open_diagnosis: Open) -> None:
    page = open_diagnosis()
    headings = "#layers .view:not([hidden]) h3"
    assert page.locator(headings).all_text_contents() == ["layer features.norm1"]
    page.locator("#layers select").select_option(label="features: relu")
    assert page.locator(headings).all_text_contents() == ["layer features: relu"]
    _see(page)
    assert page.locator(f"#layers {SHOWN}").count() == 1
    # the picture of all layers stays
    assert page.locator(f"#depth {SHOWN}").count() == 1


def test_gaps_in_the_records_break_nothing(open_diagnosis: Open) -> None:
    page = open_diagnosis(
        findings=(), activations=(), layer_gradients=(), covariate_shift=(), moments=(), running=()
    )
    assert page.locator(".figure").count() == 0
    assert page.locator("#noise .note").count() == 1


def test_printing_to_pdf_draws_for_paper_and_comes_back(open_diagnosis: Open) -> None:
    page = open_diagnosis()
    page.evaluate("""addEventListener('beforeprint', () => {
        window.printed = [...document.querySelectorAll('.js-plotly-plot')].map(f => f._fullLayout.width)
    })""")
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert sorted(page.evaluate("window.printed")) == [326] * 7 + [668] * 2


def test_the_mode_bar_is_shown_where_the_mouse_is_and_hides_no_title_elsewhere(open_diagnosis: Open) -> None:
    page = open_diagnosis(1280)
    first, second = (page.locator(".modebar-container").nth(place) for place in (0, 1))
    expect(first).to_have_css("opacity", "0")
    page.locator(".js-plotly-plot").first.hover()
    expect(first).to_have_css("opacity", "1")
    expect(second).to_have_css("opacity", "0")
