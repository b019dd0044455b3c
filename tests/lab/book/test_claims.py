"""How claims are found, and what is told where a file is not one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from normwright.errors import OptionError, RunError
from normwright.lab.book.claim import Claim, Plot, Prediction, all_claims, chosen_claims

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from made_up import only_claims_of, write_claim  # noqa: E402  # found by the line above


@pytest.fixture
def folder(tmp_path):
    for number in (93, 90, 91):
        write_claim(tmp_path, number)
    with only_claims_of(tmp_path):
        yield tmp_path


def test_claims_come_in_order_and_each_once(folder):
    assert list(all_claims()) == [90, 91, 93]
    assert [claim.number for claim in chosen_claims([93, 90, 93])] == [90, 93]
    assert all_claims()[91].name == "made_up_91"


def test_a_number_that_does_not_exist_names_those_that_do(folder):
    with pytest.raises(OptionError, match="must be one of 90 to 91, 93, but is 92"):
        chosen_claims([90, 92])


def test_no_number_is_an_error(folder):
    with pytest.raises(OptionError, match="at least one claim"):
        chosen_claims([])


def test_a_number_is_one_claims_own(folder):
    write_claim(folder, 90, name="other")
    with only_claims_of(folder), pytest.raises(OptionError, match="other and made_up_90 both have 90"):
        all_claims()


def test_a_file_that_cannot_be_imported_is_named(folder):
    (folder / "broken.py").write_text("import normwright.nonsense\n")
    with only_claims_of(folder), pytest.raises(RunError, match=r"ModuleNotFoundError.*\n.*claims\.broken"):
        all_claims()
    (folder / "broken.py").write_text("1 / 0\n")
    with only_claims_of(folder), pytest.raises(RunError, match=r"ZeroDivisionError.*\n.*claims\.broken"):
        all_claims()


def test_a_package_of_an_extra_stays_a_missing_module(folder):
    (folder / "broken.py").write_text("import no_such_package\n")
    with only_claims_of(folder), pytest.raises(ModuleNotFoundError, match="no_such_package"):
        all_claims()


def test_a_file_without_a_claim_is_named(folder):
    (folder / "empty.py").write_text("CLAIM = 3\n")
    with only_claims_of(folder), pytest.raises(OptionError, match=r"claims\.empty has int"):
        all_claims()


def test_files_that_begin_with_a_line_are_no_claims(folder):
    (folder / "_shared.py").write_text("")
    with only_claims_of(folder):
        assert list(all_claims()) == [90, 91, 93]


@pytest.mark.parametrize("limits", [{}, {"at_least": 1.0, "at_most": 2.0}])
def test_a_prediction_has_one_limit(limits):
    with pytest.raises(OptionError, match="either at_least or at_most"):
        Prediction("key", "says", "unit", **limits)


def test_practice_must_say_what_follows_from_each_verdict():
    prediction = Prediction("key", "says", "unit", at_least=1.0)
    with pytest.raises(OptionError, match="practice must say what follows if it is refuted"):
        Claim(
            1,
            "",
            (),
            (prediction,),
            "",
            "",
            "",
            {"supported": "", "not supported": ""},
            Plot("", "", ""),
            print,
        )
