"""The pages of batch-size and lr: what they say, and that no name gets out of its place."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from normwright.errors import StoreError
from normwright.lab.batch_size.records import SkippedSize
from normwright.report.advice import (
    render_batch_sizes,
    render_learning_rates,
    write_batch_sizes,
    write_learning_rates,
)
from normwright.report.rate_figures import rate_panels
from normwright.report.size_figures import size_panels

expect = pytest.importorskip("playwright.sync_api", reason="pip install playwright").expect

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from advised_pages import HOSTILE, LAYERS, batch_sizes, learning_rates  # noqa: E402  # found by the line above

PAGES = {
    "sizes": lambda: render_batch_sizes(batch_sizes()),
    "no noise": lambda: render_batch_sizes(batch_sizes(noisy=False)),
    "one size": lambda: render_batch_sizes(batch_sizes((64,))),
    "rates": lambda: render_learning_rates(learning_rates()),
    "not usable": lambda: render_learning_rates(learning_rates(without="not usable")),
    "overflows": lambda: render_learning_rates(learning_rates(without="overflows")),
    "no normaliser": lambda: render_learning_rates(learning_rates(without="")),
    "one seed": lambda: render_learning_rates(learning_rates(seeds=1)),
}


@pytest.mark.parametrize("page", PAGES)
def test_every_heading_of_a_column_has_words(page: str) -> None:
    assert not re.search(r"<th[^>]*>\s*</th>", PAGES[page]())


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: make() for name, make in PAGES.items()}


@pytest.mark.parametrize("name", PAGES)
def test_no_name_gets_out_of_its_place(name: str, pages: dict[str, str]) -> None:
    page = pages[name]
    assert HOSTILE not in page
    assert "<b>x</b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_a_function_of_the_record_and_loads_nothing(name: str, pages: dict[str, str]) -> None:
    assert pages[name] == PAGES[name]()
    assert "default-src 'none'" in pages[name]
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", pages[name].split("<script>")[0])


def test_the_recommendation_its_reason_and_its_notes_are_on_top(pages: dict[str, str]) -> None:
    head = pages["sizes"].partition("<section")[0]
    assert "Take 512" in head
    assert "It is the best of" in head
    assert "No larger size was tried: the data hold 1,000 samples." in head
    assert "A note on" in head
    assert f"Take {learning_rates().recommended:.3g}<" in pages["rates"].partition("<section")[0]


def test_the_sizes_are_a_table_without_empty_columns(pages: dict[str, str]) -> None:
    assert '<tr class="best">' in pages["sizes"]
    assert pages["sizes"].count('<tr class="best">') == 1
    assert "would take a moment of one element" in pages["sizes"]
    assert "mean noise" in pages["sizes"]
    assert "mean noise" not in pages["no noise"]
    assert 'id="layers"' not in pages["no noise"]


def test_the_figures_show_the_numbers() -> None:
    found = batch_sizes()
    rate, memory, mean, variance = (panel.figure.to_plotly_json() for panel in size_panels(found))
    assert list(rate["data"][0]["x"]) == [trial.batch_size for trial in found.trials]
    assert list(rate["data"][0]["y"]) == pytest.approx([trial.rate for trial in found.trials], rel=1e-4)
    top = [y + up for y, up in zip(rate["data"][0]["y"], rate["data"][0]["error_y"]["array"], strict=True)]
    assert top == pytest.approx([trial.rate_high for trial in found.trials], rel=1e-4)
    assert memory["data"][0]["y"][-1] == pytest.approx(found.trials[-1].peak_bytes / 2**20, rel=1e-4)
    assert [trace["name"] for trace in mean["data"]] == ["largest of the layers", "median", "1/√m, median"]
    assert mean["data"][2]["y"][0] == pytest.approx(found.trials[0].noise.layers[0].mean_expected, rel=1e-4)
    assert variance["data"][0]["y"][0] == found.trials[0].noise.variance_largest
    assert len(size_panels(batch_sizes(noisy=False))) == 2


def test_an_interval_without_an_end_is_drawn_without_one() -> None:
    found = batch_sizes((4,))
    endless = dataclasses.replace(found, trials=(dataclasses.replace(found.trials[0], rate_high=math.inf),))
    assert size_panels(endless)[0].figure.data[0].error_y.array == (0.0,)


def test_usable_ranges_are_shaded_where_they_are() -> None:
    found = learning_rates()
    layout = rate_panels(found)[0].figure.to_plotly_json()["layout"]
    shaded = [(shape["x0"], shape["x1"]) for shape in layout["shapes"] if shape["type"] == "rect"]
    assert shaded == [(usable.lower, usable.upper) for usable in found.ranges]
    assert layout["annotations"][0]["x"] == pytest.approx(math.log10(found.recommended))
    assert layout["xaxis"]["type"] == "log"
    unusable = rate_panels(learning_rates(without="not usable"))[0].figure.to_plotly_json()["layout"]
    assert len([shape for shape in unusable["shapes"] if shape["type"] == "rect"]) == 1


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_batch_sizes(batch_sizes(), tmp_path / "sizes.html")
    write_learning_rates(learning_rates(), tmp_path / "rates.html")
    assert (tmp_path / "sizes.html").read_text(encoding="utf-8") == render_batch_sizes(batch_sizes())
    with pytest.raises(StoreError):
        write_batch_sizes(batch_sizes(), tmp_path / "nowhere" / "sizes.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rates.html", "sizes.html"]


@pytest.fixture
def open_page(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page by file://; at the end, no error, dialog and foreign request may have been seen."""
    faults: list[str] = []
    opened: list[Any] = []

    def look(text: str, width: int) -> Any:
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        page = chromium.new_page()
        opened.append(page)
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: faults.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
        page.on("dialog", lambda dialog: (faults.append("a name ran as a script"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: request.url.startswith(("file:", "data:", "blob:")) or faults.append(request.url),
        )
        page.goto(path.as_uri())
        for figure in page.query_selector_all(".figure"):
            figure.scroll_into_view_if_needed()
        expect(page.locator(".figure:not(.js-plotly-plot)")).to_have_count(0)
        return page

    yield look
    for page in opened:
        page.close()
    assert faults == []


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("name", ["sizes", "rates"])
def test_in_a_browser_all_is_drawn_and_nothing_scrolls_sideways(
    name: str, width: int, pages: dict[str, str], open_page: Callable[..., Any]
) -> None:
    page = open_page(pages[name], width)
    content, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert content <= window
    assert HOSTILE in page.locator("h1").text_content()
    assert page.locator(".figure .main-svg").count() > 0
    beyond = "[...document.querySelectorAll('.figure .main-svg')].filter(s => s.clientWidth > innerWidth)"
    assert page.evaluate(f"{beyond}.length") == 0


def test_in_a_browser_the_reason_of_a_size_that_was_not_run_is_in_sight(
    open_page: Callable[..., Any],
) -> None:
    reason = "batch norm 'features.0.normaliser' would take a moment of one element, which has no variance"
    found = dataclasses.replace(batch_sizes(), network="lenet", skipped=(SkippedSize(1, reason),))
    page = open_page(render_batch_sizes(found), 1280)
    table = page.locator("#sizes .scroll")
    content, room = table.evaluate("element => [element.scrollWidth, element.clientWidth]")
    assert content <= room
    assert reason in table.text_content()


def test_in_a_browser_names_of_layers_are_text(pages: dict[str, str], open_page: Callable[..., Any]) -> None:
    page = open_page(pages["sizes"], 1280)
    assert page.locator("#layers tbody th").all_text_contents() == list(LAYERS)
    assert page.locator("#layers b").count() == 0


def test_in_a_browser_a_legend_entry_hides_its_network(
    pages: dict[str, str], open_page: Callable[..., Any]
) -> None:
    page = open_page(pages["rates"], 1280)
    page.locator(".legendtoggle").last.click()
    states = page.query_selector(".figure").evaluate("gd => gd.data.map(t => [t.legendgroup, t.visible])")
    assert dict(states) == {
        "with normalisers": True,
        "without": "legendonly",
    }


@pytest.mark.parametrize(("name", "width"), [("sizes", 326), ("rates", 668)])
def test_the_printed_page_fits_the_paper(
    name: str, width: int, pages: dict[str, str], open_page: Callable[..., Any]
) -> None:
    page = open_page(pages[name], 1280)
    page.emulate_media(media="print")
    expect(page.locator(f'.figure:not(:has(.main-svg[width="{width}"]))')).to_have_count(0)
    assert page.evaluate(
        "[...document.querySelectorAll('.figure')].every(f => f.scrollWidth <= f.clientWidth)"
    )
