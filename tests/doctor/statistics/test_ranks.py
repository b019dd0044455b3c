"""Ranks that hold the same network, and such that do not, in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import run_ranks

from normwright.doctor.diagnose import examine
from normwright.doctor.rule import all_rules


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank saved."""
    return run_ranks(Path(__file__).with_name("examined_rank.py"), tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", ["healthy", "sick", "of their own", "within noise", "other settings"])
def test_all_ranks_are_told_the_same(ranks, case):
    first, second = (rank[case]["facts"] for rank in ranks)
    assert first == second


def test_ranks_take_every_look_whatever_the_rule_reads(ranks):
    """One that saw what the others did not would leave them waiting for it."""
    assert {len(set(rank["healthy"]["stages"])) for rank in ranks} == {4}


def test_the_same_network_passes(ranks):
    assert ranks[0]["healthy"]["outcome"] == "pass"


def test_weights_drawn_by_each_rank_are_an_error(ranks):
    [finding] = ranks[0]["sick"]["findings"]
    assert finding["severity"] == "error"
    assert "6 parameters differ between the 2 ranks: 0.weight, 0.bias, 1.weight, …" in finding["message"]


def test_statistics_that_noise_does_not_explain_are_a_warning(ranks):
    [finding] = ranks[0]["of their own"]["findings"]
    assert (finding["severity"], finding["layer"]) == ("warning", "1")
    # means 3 apart, of variance 1 + eps
    assert ranks[0]["of their own"]["facts"]["statistics"] == (("1", pytest.approx(3.0, rel=1e-4)),)


def test_statistics_within_the_noise_are_a_note(ranks):
    assert [finding["severity"] for finding in ranks[0]["within noise"]["findings"]] == ["note"]


def test_settings_that_differ_are_told(ranks):
    [finding] = ranks[0]["other settings"]["findings"]
    assert finding["severity"] == "error"
    assert finding["layer"] == "1"
    assert "eps=1e-05" in finding["message"]
    assert "eps=0.001" in finding["message"]


def test_a_loss_of_one_rank_that_is_not_finite_stops_all(ranks):
    """The others waited for that rank in their next forward."""
    for rank in ranks:
        assert rank["one loss is not finite"] == {"losses": 2, "skipped": "the loss is not finite"}


def test_a_rank_that_is_called_wrongly_is_named_in_the_others(ranks):
    """They waited for it to the end of the group's time limit."""
    assert ranks[1]["unknown rule"].startswith("OptionError: unknown rule 'nonesuch'")
    assert "rank 1 failed: OptionError: unknown rule 'nonesuch'" in ranks[0]["unknown rule"]


def test_without_a_group_the_rule_says_why_it_cannot_judge():
    subject = all_rules()["stale_statistics"].healthy()
    [outcome] = examine(subject, [all_rules()["ranks_disagree"]]).outcomes
    assert (outcome.outcome, outcome.because) == ("skipped", "no process_group came")
