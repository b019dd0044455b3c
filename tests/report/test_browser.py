"""The page in a real browser: it draws, its legend and selectors work, it fits, and it prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect

Open = Callable[..., Any]
FIRST = "#learning .view:not([hidden]) .figure"
VISIBLE = "gd => gd.data.filter(t => t.legendgroup === 'batch').map(t => t.visible)"
SCROLL = "[document.documentElement.scrollWidth, window.innerWidth]"


def _see(page: Any, section: str) -> None:
    """Scrolls to a section and waits until every figure of its shown view is drawn."""
    page.evaluate(f"document.querySelector('#{section}').scrollIntoView({{behavior: 'instant'}})")
    shown = f"#{section} .view:not([hidden]) .figure"
    for figure in page.query_selector_all(shown):
        figure.scroll_into_view_if_needed()
    expect(page.locator(f"{shown}:not(.js-plotly-plot)")).to_have_count(0)


def test_a_legend_entry_hides_its_normaliser_in_every_figure(open_report: Open) -> None:
    page = open_report()
    _see(page, "learning")
    _see(page, "gradients")
    page.locator(FIRST).first.locator(".legendtoggle").first.click()
    for figure in page.query_selector_all(f"{FIRST}, #gradients .view:not([hidden]) .figure"):
        states = figure.evaluate(VISIBLE)
        assert states
        assert set(states) == {"legendonly"}


def test_a_second_click_shows_it_again(open_report: Open) -> None:
    page = open_report()
    _see(page, "learning")
    # Another figure's entry: two clicks on one entry are a double click unless the test sleeps.
    for figure in page.locator(FIRST).all():
        figure.locator(".legendtoggle").first.click()
    assert set(page.query_selector(FIRST).evaluate(VISIBLE)) == {True}


def test_a_double_click_shows_it_alone(open_report: Open) -> None:
    page = open_report()
    _see(page, "learning")
    page.locator(FIRST).first.locator(".legendtoggle").first.dblclick()
    shown = "gd => [...new Set(gd.data.filter(t => t.visible === true).map(t => t.legendgroup))]"
    assert page.query_selector(FIRST).evaluate(shown) == ["batch"]


def test_the_target_stands_apart_from_the_ticks(open_report: Open) -> None:
    page = open_report(norms=("none",), batch_sizes=(32,), records=0)
    _see(page, "learning")
    boxes = "all => all.map(e => e.getBoundingClientRect()).map(b => [b.left, b.right])"
    figure = page.locator("#learning .figure").last
    (label,) = figure.locator(".annotation-text").evaluate_all(boxes)
    ticks = figure.locator(".ytick text").evaluate_all(boxes)
    assert ticks
    assert max(right for _, right in ticks) + 6 < label[0]


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_page_never_scrolls_sideways(width: int, open_report: Open) -> None:
    norms = ("none", "batch", "layer", "group", "instance", "rms", "lrn")
    name = "a_rather_long_package.with_modules:and_a_long_function_name"
    page = open_report(width, norms=norms, network=name, layers=(f"{name}.norm1", "norm2"))
    for section in ("learning", "layers", "gradients"):
        _see(page, section)
    content, window = page.evaluate(SCROLL)
    assert content <= window
    wide = page.evaluate(
        "[...document.querySelectorAll('.figure .main-svg')].filter(s => s.clientWidth > innerWidth).length"
    )
    assert wide == 0


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_every_section_is_in_sight(width: int, open_report: Open) -> None:
    page = open_report(width)
    ends = page.eval_on_selector_all("nav a", "links => links.map(a => a.getBoundingClientRect().right)")
    assert ends
    assert max(ends) <= width


def test_a_table_that_fits_does_not_scroll(open_report: Open) -> None:
    overflows = "all => all.map(e => [e.scrollWidth - e.clientWidth, e.scrollHeight - e.clientHeight])"
    found = open_report().eval_on_selector_all(".grids .scroll", overflows)
    assert found
    assert set(map(tuple, found)) == {(0, 0)}


def test_the_selectors_show_one_batch_size_and_one_layer(open_report: Open) -> None:
    page = open_report()
    _see(page, "layers")
    headings = "#layers .view:not([hidden]) h3"
    assert page.locator(headings).all_text_contents() == ["Batch size 2, layer features.norm1"]
    page.locator("#layers .segments label", has_text="32").click()
    page.locator("#layers select").select_option(label="classifier.norm3")
    assert page.locator(headings).all_text_contents() == ["Batch size 32, layer classifier.norm3"]
    _see(page, "layers")
    assert page.locator("#layers .view:not([hidden]) .figure .main-svg").count() > 0
    assert page.locator("#learning .view:not([hidden]) h3").all_text_contents() == ["Batch size 2"]


def test_a_hidden_normaliser_stays_hidden_in_figures_drawn_later(open_report: Open) -> None:
    page = open_report()
    _see(page, "learning")
    page.locator(FIRST).first.locator(".legendtoggle").first.click()
    page.locator("#learning .segments label", has_text="32").click()
    _see(page, "learning")
    assert set(page.query_selector(FIRST).evaluate(VISIBLE)) == {"legendonly"}


def test_hostile_names_are_shown_as_they_are(open_report: Open) -> None:
    network = "<script>alert(1)</script>"
    page = open_report(network=network, layers=("\"&'", "</script><b>x</b>"))
    _see(page, "layers")
    assert network in page.locator("h1").text_content()
    assert page.locator("#layers option").all_text_contents() == ["\"&'", "</script><b>x</b>"]
    assert page.locator("#layers b").count() == 0


def test_print_shows_every_batch_size_at_a_width_that_fits_paper(open_report: Open) -> None:
    page = open_report()
    page.emulate_media(media="print")
    headings = page.locator("#learning .view:not([hidden]) h3")
    expect(headings).to_have_text(["Batch size 2", "Batch size 32"])
    widths = page.evaluate("[...document.querySelectorAll('.js-plotly-plot')].map(f => f._fullLayout.width)")
    assert set(widths) == {326, 212}
    assert page.locator("nav").is_hidden()
    assert page.locator("#layers .controls").is_hidden()
    page.emulate_media(media="screen")
    expect(headings).to_have_count(1)


def test_printing_to_pdf_draws_for_paper_and_comes_back(open_report: Open) -> None:
    page = open_report()
    page.evaluate("""addEventListener('beforeprint', () => {
        window.printed = [...document.querySelectorAll('.js-plotly-plot')].map(f => f._fullLayout.width)
    })""")
    assert page.pdf(format="A4").startswith(b"%PDF")
    printed = page.evaluate("window.printed")
    # Two batch sizes of 2 curves and 6 gradients each; 4 and 5 ribbons, as "none" diverged at one.
    assert sorted(printed) == [212] * 9 + [326] * 16
    expect(page.locator("#learning .view:not([hidden])")).to_have_count(1)


def test_the_command_can_be_copied(open_report: Open) -> None:
    page = open_report()
    page.locator("[data-copy]").click()
    expect(page.locator("[data-copy]")).not_to_have_text("Copy")
    assert page.evaluate("getSelection().toString()").startswith("normwright compare mlp")


@pytest.mark.parametrize("asked", [{"diverge_all": True}, {"records": 0}, {"seeds": 1, "batch_sizes": (32,)}])
def test_gaps_in_the_records_break_nothing(asked: dict[str, Any], open_report: Open) -> None:
    page = open_report(**asked)
    for section in ("learning", "layers", "gradients"):
        _see(page, section)
    assert page.locator("#axes svg").count() == 5
