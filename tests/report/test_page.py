"""The page as text: what it says, that it is whole, and that no name gets out of its place."""

from __future__ import annotations

import dataclasses
import html
import html.parser
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from normwright.errors import StoreError
from normwright.lab.records import Band, Comparison, Interval, Lead, Learning
from normwright.report import render, write
from normwright.report.markdown import to_markdown

Make = Callable[..., Comparison]
SECTIONS = ("result", "table", "learning", "rates", "layers", "gradients", "axes")


class _Reader(html.parser.HTMLParser):
    """Collects the text that is shown, the scripts, and every address and handler in the attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.shown: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self._inside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag in ("script", "style", "title"):
            self._inside.append(tag)
        if tag == "script":
            self.scripts.append((named, ""))

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif not self._inside:
            self.shown.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.shown))

    @property
    def figures(self) -> list[dict[str, Any]]:
        blocks = [
            text
            for named, text in self.scripts
            if named.get("type") == "application/json" and "id" not in named
        ]
        return [json.loads(block) for block in blocks]


def test_the_sections_stand_in_order(make_comparison: Make) -> None:
    ids = _Reader(render(make_comparison())).ids
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)


def test_it_is_a_pure_function_of_the_records(make_comparison: Make) -> None:
    assert render(make_comparison()) == render(make_comparison())


def test_plotly_is_inlined_once_and_nothing_is_loaded(make_comparison: Make) -> None:
    page = render(make_comparison())
    reader = _Reader(page)
    assert page.count(get_plotlyjs()) == 1
    assert all("src" not in named for named, _ in reader.scripts)
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert ".figure" in style
    assert not re.search(r"@import|url\(", style)


def test_it_says_what_was_compared_and_what_came_out(make_comparison: Make) -> None:
    comparison = make_comparison()
    text = _Reader(render(comparison)).text
    for part in (comparison.command, comparison.machine, *(words for _, words in comparison.verdicts)):
        assert part in text
    for part in (
        "0.974",
        "0.968 – 0.980",
        "769",
        "609 – 929",
        "9.45×",
        "100 %",
        "2.84",
        "7.5",
        "not reached",
    ):
        assert part in text
    assert "undefined in 2 of 6 places" in text


def test_the_winner_is_marked_or_who_is_highest_where_there_is_none(make_comparison: Make) -> None:
    assert _marked(render(make_comparison())) == [("layer", "level"), ("group", "highest"), ("batch", "best")]
    assert _marked(render(make_comparison(seeds=1))) == [("group", "highest"), ("batch", "highest")]
    for doubt in ("chance", "alone"):
        found = make_comparison(batch_sizes=(32,))
        unclear = Lead(32, "batch", None, ("layer",), (), doubt)
        assert _marked(render(dataclasses.replace(found, leads=(unclear,)))) == []


def test_a_mark_is_never_false_where_seeds_diverged_or_rows_are_equal(make_comparison: Make) -> None:
    found = make_comparison(batch_sizes=(32,))

    def marks(tests: dict[str, float], lead: Lead) -> list[tuple[str, str]]:
        rows = tuple(
            dataclasses.replace(row, test=Interval(tests.get(row.norm, 0.1), None, None, 1))
            for row in found.rows
        )
        return _marked(render(dataclasses.replace(found, rows=rows, leads=(lead,))))

    above = Lead(32, "batch", None, ("group",), ("layer",), "unfinished")
    assert marks({"batch": 0.8, "group": 0.79, "layer": 0.9}, above) == []
    assert marks({"batch": 0.8, "group": 0.79, "layer": 0.7}, above) == [
        ("batch", "highest"),
        ("group", "level"),
    ]
    few = Lead(32, "batch", None, ("group",), ("layer",), "seeds")
    assert marks({"batch": 0.8, "layer": 0.9}, few) == []
    equal = Lead(32, "batch", None, ("layer",), (), "level")
    assert sorted(marks({"batch": 0.1 + 0.2, "layer": 0.3}, equal)) == [
        ("batch", "highest"),
        ("layer", "highest"),
    ]


def test_the_rule_is_told_as_it_is_for_the_metric(make_comparison: Make) -> None:
    accuracy = _Reader(render(make_comparison())).text
    assert "√(h² + 1.96²·v)" in accuracy
    own = _Reader(render(dataclasses.replace(make_comparison(), metric="m.py:f1"))).text
    assert "√(h²" not in own
    assert "the luck of the test set is not counted" in own


def _marked(page: str) -> list[tuple[str, str]]:
    """The rows with a badge, and what it says; only "best" has the colour of the row."""
    rows = re.findall(
        r'<tr( class="best")?>\s*<th scope="row"><span[^>]*></span>(\w+) <span class="badge[^"]*">(\w+)', page
    )
    assert all(bool(coloured) == (mark == "best") for coloured, _, mark in rows)
    return [(norm, mark) for _, norm, mark in rows]


def test_what_times_a_step_is_told_for_the_cpu_and_a_gpu(make_comparison: Make) -> None:
    comparison = make_comparison()
    for text in (html.unescape(render(comparison)), to_markdown(comparison)):
        assert "time for a run of one thread on the CPU; else, as on a GPU, of the time that passed" in text


def test_every_figure_is_valid_plotly(make_comparison: Make) -> None:
    figures = _Reader(render(make_comparison())).figures
    assert len(figures) > 40
    for figure in figures:
        go.Figure(figure)  # raises on an unknown property or a bad value


def test_each_normaliser_has_one_colour_everywhere(make_comparison: Make) -> None:
    colours: dict[str, set[str]] = {}
    for figure in _Reader(render(make_comparison())).figures:
        for trace in figure["data"]:
            if trace.get("showlegend", True) and "legendgroup" in trace:
                colours.setdefault(trace["legendgroup"], set()).add(trace["line"]["color"])
    assert set(colours) == {"none", "batch", "layer", "group", "rms"}
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(colours)


HOSTILE = ("<script>alert(1)</script>", "\"&'", "</script><img src=x onerror=alert(1)>", "%{x}<b>bold</b>")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_stays_text(name: str, make_comparison: Make) -> None:
    harmless = render(make_comparison())
    comparison = dataclasses.replace(
        make_comparison(network=name, data=name, layers=(name, "norm2")),
        metric=name,
        machine=name,
        verdicts=((2, name),),
    )
    comparison = dataclasses.replace(
        comparison,
        gradients=tuple(
            dataclasses.replace(profile, layers=(name, *profile.layers[1:]))
            for profile in comparison.gradients
        ),
    )
    page = render(comparison)
    reader = _Reader(page)
    assert name in reader.text
    assert reader.handlers == []
    assert len(reader.scripts) - len(reader.figures) == len(_Reader(harmless).scripts) - len(
        _Reader(harmless).figures
    )
    for figure in reader.figures:  # what Plotly takes for markup must be escaped once more inside the JSON
        for label in _labels(figure):
            assert "<script" not in label
            assert "<b>" not in label
            assert "<img" not in label


def _labels(figure: dict[str, Any]) -> list[str]:
    axis = figure["layout"]["xaxis"].get("ticktext", [])
    names = [
        name for trace in figure["data"] for name in trace.get("customdata", []) if isinstance(name, str)
    ]
    title = figure["layout"]["title"]["text"]
    return [*axis, *names, title]


def test_no_figure_can_end_its_script_element(make_comparison: Make) -> None:
    scripts = _Reader(render(make_comparison())).scripts
    blocks = [text for named, text in scripts if named.get("type") == "application/json"]
    assert any("\\u003cspan" in text for text in blocks)  # markup is there, the panels' titles, but escaped
    assert not any(character in text for text in blocks for character in "<>&")


def test_its_policy_runs_these_scripts_and_no_others(make_comparison: Make) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render(make_comparison()))
    assert policy is not None
    text = policy.group(1)
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert text.count("sha256-") == 2
    assert "script-src 'unsafe-inline'" not in text


def test_one_seed_gives_no_interval_and_says_so(make_comparison: Make) -> None:
    text = _Reader(render(make_comparison(seeds=1))).text
    assert "There is one seed, so no interval can be given." in text
    assert "There is one seed, so the lines have no band." in text
    assert " – 0.9" not in text


def test_one_batch_size_gives_one_map_and_no_selector(make_comparison: Make) -> None:
    page = render(make_comparison(batch_sizes=(32,), layers=("norm",)))
    assert page.count('<table class="rates">') == 1
    assert "<fieldset>" not in page
    assert '<select data-choose="layer">' not in page


def test_several_batch_sizes_give_a_map_per_normaliser(make_comparison: Make) -> None:
    assert render(make_comparison()).count('<table class="rates">') == 5


def test_no_records_gives_words_instead_of_figures(make_comparison: Make) -> None:
    text = _Reader(render(make_comparison(records=0))).text
    assert text.count("nothing was recorded of the layers (the comparison ran with 0 records)") == 2


@pytest.mark.parametrize("records", [1, 2, 3])
def test_few_records_give_as_many_moments(records: int, make_comparison: Make) -> None:
    figures = _Reader(render(make_comparison(records=records, batch_sizes=(32,)))).figures
    titles = [figure["layout"]["title"]["text"] for figure in figures]
    moments = {1: ["start"], 2: ["start", "end"], 3: ["start", "middle", "end"]}[records]
    assert [title for title in titles if title.startswith("Gradient")] == [
        f"Gradient norm, {m}" for m in moments
    ]


def test_all_diverged_gives_words_instead_of_figures(make_comparison: Make) -> None:
    reader = _Reader(render(make_comparison(diverge_all=True)))
    assert reader.figures == []
    assert reader.text.count("There is nothing to draw here: every run diverged.") == 3
    assert reader.text.count("all diverged") == 10
    assert 'class="best"' not in render(make_comparison(diverge_all=True))


def _cut(comparison: Comparison, *, points: int, of: tuple[str, ...]) -> Comparison:
    """As runs that diverged before the first evaluation leave it: some steps of a loss, and no metric."""

    def until(curve: Learning) -> Learning:
        if curve.norm not in of:
            return curve
        loss = Band(*(values[:points] for values in vars(curve.loss).values()))
        return dataclasses.replace(curve, loss=loss, metric=Band((), (), (), ()))

    return dataclasses.replace(comparison, learning=tuple(map(until, comparison.learning)))


def test_runs_that_diverged_before_an_evaluation_leave_no_empty_figure(make_comparison: Make) -> None:
    comparison = make_comparison(batch_sizes=(32,), records=0)
    norms = tuple(curve.norm for curve in comparison.learning)
    assert len(_Reader(render(comparison)).figures) == 2
    reader = _Reader(render(_cut(comparison, points=3, of=norms)))
    assert [figure["layout"]["title"]["text"] for figure in reader.figures] == ["Training loss"]
    names = "none, batch, layer, group and RMS"
    assert f"No validation accuracy of {names}: the runs diverged before the first evaluation." in reader.text
    reader = _Reader(render(_cut(comparison, points=0, of=norms)))
    assert reader.figures == []
    assert "There is nothing to draw here: no run has a learning curve." in reader.text


def test_one_that_has_no_metric_is_named_beside_the_others(make_comparison: Make) -> None:
    comparison = make_comparison(batch_sizes=(32,), records=0)
    reader = _Reader(render(_cut(comparison, points=3, of=("none",))))
    assert {trace["legendgroup"] for trace in reader.figures[1]["data"]} == {"batch", "layer", "group", "rms"}
    assert "No validation accuracy of none: the runs diverged before the first evaluation." in reader.text


def test_of_a_metric_in_a_file_the_title_has_the_function(make_comparison: Make) -> None:
    asked = dataclasses.replace(make_comparison(batch_sizes=(32,), records=0), metric="/a/long/path/m.py:f1")
    reader = _Reader(render(asked))
    assert reader.figures[1]["layout"]["title"]["text"] == "Validation f1"
    assert "Test /a/long/path/m.py:f1" in reader.text


def test_how_long_and_how_many_runs_there_were(make_comparison: Make) -> None:
    comparison = make_comparison()
    assert "3 seeds each, for 10 epochs: 120 runs in all." in _Reader(render(comparison)).text
    one = dataclasses.replace(comparison, runs=1, epochs=1, max_steps=40)
    assert "3 seeds each, for 1 epoch, 40 steps at most: 1 run in all." in _Reader(render(one)).text


def test_a_normaliser_that_diverged_is_named_where_it_is_missing(make_comparison: Make) -> None:
    text = _Reader(render(make_comparison())).text
    assert "Not drawn: none, for which every run diverged; there is no curve to show." in text


def test_an_empty_comparison_is_still_a_page(make_comparison: Make) -> None:
    empty = dataclasses.replace(
        make_comparison(), rows=(), verdicts=(), learning=(), rate_maps=(), ribbons=(), gradients=(), runs=0
    )
    text = _Reader(render(empty)).text
    assert "There are no results yet" in text
    assert "No learning rate was tried" in text


def test_a_metric_that_is_not_finite_leaves_valid_json(make_comparison: Make) -> None:
    comparison = make_comparison()
    first = comparison.learning[0]
    broken = dataclasses.replace(first.loss, mean=(float("nan"), float("inf"), *first.loss.mean[2:]))
    comparison = dataclasses.replace(
        comparison, learning=(dataclasses.replace(first, loss=broken), *comparison.learning[1:])
    )
    page = render(comparison)
    assert "NaN" not in "".join(json.dumps(figure) for figure in _Reader(page).figures)


def test_write_replaces_the_old_report(make_comparison: Make, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    comparison = make_comparison()
    write(comparison, path)
    assert path.read_text(encoding="utf-8") == render(comparison)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_missing_folder_is_named(make_comparison: Make, tmp_path: Path) -> None:
    path = tmp_path / "absent" / "report.html"
    with pytest.raises(StoreError, match=re.escape(str(path))):
        write(make_comparison(), path)


def test_a_full_disk_leaves_the_old_report(make_comparison: Make, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the kernel then refuses a larger file
    try:
        with pytest.raises(StoreError, match=re.escape(str(path))):
            write(make_comparison(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_a_missing_package_gives_the_command_that_installs_it(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from normwright.errors import MissingExtraError\n"
        "try:\n    import normwright.report\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"{package!r}" in done.stdout
    assert "pip install 'normwright[lab]'" in done.stdout
