"""The book in a real browser: its addresses open leaves, it draws, it fits, and it prints."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from normwright.lab.book.record import ClaimRecord
from normwright.report.claims_page import render, write

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from claims_sample import book, extremes, record  # noqa: E402  # found by the lines above

Open = Callable[..., Any]
SHOWN = ".leaf:visible"
MISCHIEF = "</script><script>alert(1)</script> and_a_very_long_name_" + "without_an_end_" * 8


@pytest.fixture
def open_book(open_page: Open) -> Open:
    """Opens the book of some records."""

    def look(width: int = 1280, records: list[ClaimRecord] | None = None) -> Any:
        return open_page(book() + extremes() if records is None else records, width, by=write)

    return look


def _go(page: Any, number: int) -> None:
    page.evaluate(f"location.hash = '#claim-{number}'")
    expect(page.locator(SHOWN)).to_have_count(1)
    assert page.locator(SHOWN).get_attribute("id") == f"claim-{number}"


def _drawn(page: Any) -> Any:
    figure = page.locator(f"{SHOWN} .figure.js-plotly-plot .main-svg").first
    expect(figure).to_be_visible(timeout=30_000)
    return figure


def _becomes(page: Any, condition: str) -> None:
    """Waits until it holds. Playwright would evaluate a string in the page, whose policy forbids it."""
    deadline = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def test_addresses_open_one_leaf_at_a_time(open_book: Open) -> None:
    page = open_book()
    assert page.locator(SHOWN).get_attribute("id") == "overview"
    page.locator("#overview .pile a", has_text="sigmoid or tanh").first.click()
    expect(page.locator("#claim-4")).to_be_visible()
    expect(page.locator("#overview")).to_be_hidden()
    page.locator("#claim-4 a[rel=next]").click()
    expect(page.locator("#claim-5")).to_be_visible()
    assert page.evaluate("scrollY") < 60
    page.go_back()
    expect(page.locator("#claim-4")).to_be_visible()
    page.locator("nav a", has_text="Overview").click()
    expect(page.locator("#overview")).to_be_visible()
    assert page.locator(SHOWN).count() == 1


def test_the_navigation_marks_the_leaf_that_is_open(open_book: Open) -> None:
    page = open_book()
    _go(page, 3)
    expect(page.locator("nav a[aria-current]")).to_have_attribute("href", "#claim-3")


@pytest.mark.parametrize("width", [1280, 390])
def test_no_leaf_scrolls_sideways(width: int, open_book: Open) -> None:
    long = dataclasses.replace(record(13), sentence=MISCHIEF, practice=MISCHIEF, command=MISCHIEF)
    long = dataclasses.replace(
        long, outcomes=(dataclasses.replace(long.outcomes[0], says=MISCHIEF, unit=MISCHIEF),)
    )
    page = open_book(width, [*book(), *extremes(), long])
    sizes = "[document.documentElement.scrollWidth, window.innerWidth]"
    content, window = page.evaluate(sizes)
    assert content <= window
    for number in (1, 3, 7, 9, 13):
        _go(page, number)
        figure = _drawn(page)
        content, window = page.evaluate(sizes)
        assert content <= window, number
        assert figure.bounding_box()["width"] <= window
    # nor is any box of it to be scrolled
    page.evaluate("location.hash = '#overview'")
    wider = "[...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth + 1).length"
    assert page.evaluate(wider) == 0


def test_marks_stand_where_the_scale_says_and_have_the_shape_of_their_verdict(open_book: Open) -> None:
    page = open_book()
    rows = page.locator("#effects .chart").first.locator(".row:not(.head)")
    first, second, third = (rows.nth(place) for place in (0, 1, 2))
    assert first.locator(".mark circle").count() == 1
    assert second.locator(".mark path").count() == 1
    assert third.locator(".mark rect").count() == 1
    one = first.locator("line.one").bounding_box()["x"]
    assert first.locator(".mark circle").bounding_box()["x"] > one
    assert second.locator(".mark path").bounding_box()["x"] < one
    tick = page.locator("#effects .axis").first.locator("span", has_text="1").all()
    places = [box["x"] + box["width"] / 2 for box in (one.bounding_box() for one in tick)]
    assert min(abs(place - one) for place in places) < 2


def test_a_plot_drawn_on_one_width_fits_another(open_book: Open) -> None:
    page = open_book()
    _go(page, 1)
    wide = _drawn(page).bounding_box()["width"]
    _go(page, 2)
    page.set_viewport_size({"width": 390, "height": 900})
    _go(page, 1)
    expect(page.locator(f"{SHOWN} .figure .main-svg").first).to_be_visible()
    _becomes(page, "document.querySelector('#claim-1 .figure')._fullLayout.width <= 390")
    assert wide > 900


def test_a_name_in_a_legend_is_hidden_in_its_own_claim_alone(open_book: Open) -> None:
    page = open_book()
    for number in (1, 2):
        _go(page, number)
        _drawn(page)
    page.locator(f"{SHOWN} .legendtoggle").first.click()
    visible = "n => document.querySelector(`#claim-${n} .figure`).data.map(t => t.visible)"
    _becomes(page, f"({visible})(2).includes('legendonly')")
    assert set(page.evaluate(visible, 1)) == {True}
    assert page.evaluate(visible, 2).count("legendonly") == 2  # the line and its band


def test_print_shows_every_leaf_with_its_plot_and_comes_back(open_book: Open) -> None:
    page = open_book()
    _go(page, 2)
    _drawn(page)
    page.evaluate("""addEventListener('beforeprint', () => {
        window.printed = [...document.querySelectorAll('.js-plotly-plot')].map(f => f._fullLayout.width)
    })""")
    assert page.pdf(format="A4").startswith(b"%PDF")
    plots = page.locator(".figure").count()
    assert page.evaluate("window.printed") == [668] * plots
    assert page.locator(SHOWN).get_attribute("id") == "claim-2"
    _go(page, 1)
    _becomes(page, "document.querySelector('#claim-1 .figure')._fullLayout.width > 900")


def test_without_javascript_all_but_the_plots_is_there(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "book.html"
    path.write_text(render(book()).partition("<script>")[0] + "</body></html>")
    page = chromium.new_page()
    page.goto(path.as_uri())
    page.locator("nav a", has_text="7").click()
    expect(page.locator("#claim-7 .answer")).to_be_visible()
    expect(page.locator("#overview")).to_be_hidden()
    page.close()
