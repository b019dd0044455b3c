"""What a trial depends on: the text of a claim and of the book's modules that it measures by."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from normwright.lab import book
from normwright.lab.book.claim import all_claims
from normwright.lab.book.run import run_claims
from normwright.lab.book.source import source_of

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from made_up import calls, only_claims_of, write_claim  # noqa: E402  # found by the line above

SHARED, BELOW = "normwright.lab.book.made_up_shared", "normwright.lab.book.made_up_below"


def modules_in(text):
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# normwright.")]


def test_modules_are_followed_from_the_claim_by_their_imports():
    found = modules_in(source_of("normwright.lab.claims.decay_is_no_norm"))
    assert {"normwright.lab.claims.decay_is_no_norm", "normwright.lab.book.sides"} <= set(found)
    assert "normwright.lab.book.choice" in found  # which the bench imports, and not the claim
    assert "normwright.lab.book.gaussian" not in found
    assert found == sorted(found)


@pytest.mark.parametrize(
    "name", ["claim", "words", "rate_words", "verdict", "record", "trials", "run", "alone"]
)
def test_what_words_judges_or_runs_is_part_of_no_claim(name):
    for claim in all_claims().values():
        assert f"normwright.lab.book.{name}" not in modules_in(claim.source), claim.name


@pytest.mark.parametrize(
    "name", ["bench", "race", "entrant", "sides", "along", "batch_sizes", "deep_mlp", "small_set"]
)
def test_what_measures_is_part_of_a_claim(name):
    assert any(f"normwright.lab.book.{name}" in modules_in(claim.source) for claim in all_claims().values())


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A claim that measures by a module of the book's, which imports another; both may be written anew."""
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.setattr(book, "__path__", [*book.__path__, str(below)])

    def write(more):
        (below / "made_up_shared.py").write_text("from normwright.lab.book import made_up_below\n")
        (below / "made_up_below.py").write_text(f"MORE = {more}\n")
        for name in [SHARED, BELOW]:
            sys.modules.pop(name, None)
            vars(book).pop(name.rpartition(".")[2], None)

    write_claim(
        tmp_path / "claims",
        90,
        measure="from normwright.lab.book.made_up_shared import made_up_below; made_up_below.MORE",
    )
    yield tmp_path, write
    write(0)


def test_a_trial_is_measured_anew_after_a_change_of_what_measures(shared):
    folder, write = shared
    asked = {"quick": True, "seeds": 1, "jobs": 1, "out": folder / "out"}
    for more, measured in ((1, 1), (1, 1), (2, 2), (1, 2)):
        write(more)
        with only_claims_of(folder / "claims"):
            assert {SHARED, BELOW} <= set(modules_in(all_claims()[90].source))
            run_claims(**asked)
        assert len(calls(folder / "claims")) == measured
