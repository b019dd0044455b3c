"""The text of a diagnosis's page."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from normwright.doctor.diagnosis import Diagnosis
from normwright.doctor.finding import Finding
from normwright.doctor.missing import Missing
from normwright.errors import OptionError, StoreError
from normwright.report import render, write

Make = Callable[..., Diagnosis]
MISCHIEF = "</script><script>alert(1)</script>"


def body(page: str) -> str:
    """The page without its scripts: what is read."""
    return re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)


def test_the_same_records_give_the_same_page(make_diagnosis: Make) -> None:
    assert render(make_diagnosis()) == render(make_diagnosis())


def test_findings_stand_by_severity_with_figure_threshold_and_why(make_diagnosis: Make) -> None:
    rule = "weight_decay_on_norm"
    findings = (
        Finding(rule, "note", "a", "a is small", 0.25, 0.5, "a paper says so", "Do this.", "nets.py:3"),
        Finding(rule, "error", "b", "b is wrong", None, None, "", "Do that."),
    )
    page = body(render(make_diagnosis(findings=findings)))
    assert page.index("b is wrong") < page.index("a is small")
    assert "1 error, 1 note." in page
    for words in ("0.25", "0.5", "Why 0.5: a paper says so.", "Do this.", "Do that.", "nets.py:3"):
        assert words in page
    # the error has no figures, so its card has no columns for them
    assert page.count('data-label="Figure"') == 1


def test_many_layers_of_one_rule_stand_behind_a_click(make_diagnosis: Make) -> None:
    layers = tuple(f"norm{place}" for place in range(30))
    page = body(render(make_diagnosis(layers=layers)))
    assert "30 places" in page
    assert "<summary>22 more</summary>" in page
    assert page.count("decays</td>") == 30


def test_nothing_found_is_said(make_diagnosis: Make) -> None:
    page = body(render(make_diagnosis(findings=())))
    assert "Nothing that these rules look for. Of 1 rule, 1 passed." in page
    assert "Found nothing" in page


def test_rules_that_could_not_judge_say_why(make_diagnosis: Make) -> None:
    skipped = (("bias_before_norm", "the graph is <b>missing</b>"), ("stale_statistics", "no labels"))
    page = body(render(make_diagnosis(skipped=skipped)))
    assert "2 could not judge" in page
    assert "<strong>bias_before_norm</strong>: the graph is &lt;b&gt;missing&lt;/b&gt;" in page
    assert "<strong>stale_statistics</strong>: no labels" in page


def test_names_are_text_everywhere(make_diagnosis: Make) -> None:
    page = render(make_diagnosis(network=MISCHIEF, layers=(f"{MISCHIEF}norm", "plain")), command=MISCHIEF)
    # scripts that the page itself holds: its own three, and one for each figure
    figures = page.count('<div class="figure"')
    assert page.count("</script>") == figures + 3
    assert "<script>alert" not in page


@pytest.mark.parametrize("part", ["activations", "layer_gradients", "moments"])
def test_a_part_that_is_missing_says_why(part: str, make_diagnosis: Make) -> None:
    given = {part: Missing("the batches hold no <i>labels</i>")}
    if part == "layer_gradients":
        given["covariate_shift"] = Missing("no optimiser came")
    page = body(render(make_diagnosis(**given)))
    assert "There is nothing to draw here: the batches hold no &lt;i&gt;labels&lt;/i&gt;." in page


def test_what_the_modes_come_to_is_said_in_words(make_diagnosis: Make) -> None:
    page = body(render(make_diagnosis()))
    assert "differ by 42.0%" in page
    assert "The loss is 2 in training mode and 2.5 in inference mode." in page
    assert "The accuracy is 90.0% and 70.0%, over 256 samples." in page


def test_mending_is_shown_before_and_after(make_diagnosis: Make) -> None:
    diagnosis = make_diagnosis()
    before, other = diagnosis.findings
    mended = (
        SimpleNamespace(before=before, after=None, because="", gone=True),
        SimpleNamespace(before=other, after=None, because="a <b>reason</b>", gone=False),
    )
    mending: Any = SimpleNamespace(mended=mended, left=(other,), new=(before,))
    page = body(render(diagnosis, mending=mending))
    assert 'class="gone">nothing found</td>' in page
    assert 'class="left">a &lt;b&gt;reason&lt;/b&gt;</td>' in page
    assert page.index("Still found on the copy") < page.index("Found on the copy alone")
    assert 'id="mending"' not in render(diagnosis)


def test_every_figure_has_words_for_who_cannot_see_it(make_diagnosis: Make) -> None:
    page = render(make_diagnosis())
    labels = re.findall(r'<div class="figure" role="group" aria-label="([^"]+)"', page)
    assert len(labels) == page.count('<div class="figure"') > 5
    assert all(len(label) > 20 for label in labels)


def test_a_diagnosis_is_written_and_nothing_else_is(make_diagnosis: Make, tmp_path: Any) -> None:
    write(make_diagnosis(), str(tmp_path / "a.html"))
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    with pytest.raises(StoreError):
        write(make_diagnosis(), tmp_path / "no" / "a.html")
    with pytest.raises(OptionError, match=r"nw\.compare or nw\.diagnose.*dict came"):
        render({})  # type: ignore[arg-type]
