"""The table of a diagnosis, its JSON, and what stands where a part is missing."""

from __future__ import annotations

import json
import math

import pytest
import torch

from normwright import diagnose
from normwright.doctor import Diagnosis, Evidence, Finding, Outcome, all_rules
from normwright.doctor.diagnose import examine
from normwright.errors import OptionError

RULE = "weight_decay_on_norm"


@pytest.fixture(scope="module")
def sick() -> Diagnosis:
    """A real examination, of one rule."""
    torch.manual_seed(0)
    return examine(all_rules()[RULE].sick(), [all_rules()[RULE]])


def of(evidence: Evidence, *findings: Finding, outcomes: tuple[Outcome, ...] = ()) -> Diagnosis:
    return Diagnosis("net", findings, outcomes, evidence)


def many(count: int, **given: object) -> list[Finding]:
    usual = {"threshold": 0.5, "because": "a paper", "advice": "Do this."} | given
    return [
        Finding(RULE, "warning", f"layer{n}", "small", value=0.5 / (n + 1), **usual) for n in range(count)
    ]


def test_many_layers_of_a_rule_are_the_worst_three_and_how_many_more(sick):
    table = of(sick.evidence, *many(20)).table()
    assert [row[2] for row in table.rows] == ["layer19", "layer18", "layer17", "and 17 more"]
    assert table.rows[3][4] == "0.5 to 0.0294"
    assert len(of(sick.evidence, *many(20)).table(None).rows) == 20


def test_one_more_is_shown_rather_than_counted(sick):
    assert len(of(sick.evidence, *many(4)).table().rows) == 4


def test_the_gravest_stands_first(sick):
    note, error = Finding(RULE, "note", "a", "x"), Finding("bias_before_norm", "error", "b", "y")
    found = of(sick.evidence, note, error, *many(2))
    assert [row[0] for row in found.table().rows] == ["error", "warning", "warning", "note"]
    assert found.table().summary.startswith("net: 1 error, 2 warnings, 1 note;")


@pytest.mark.parametrize(
    ("values", "threshold", "worst"),
    [
        ((0.6, 40.0, 2.0), 0.5, 40.0),
        ((0.1, 1e-9, 1e-3), 0.5, 1e-9),
        ((0.1, 0.0, 1e-3), 0.5, 0.0),
        ((0.1, math.inf), 0.5, math.inf),
        ((1e-4, 3e-4), 0.0, 3e-4),
        ((-5.0, 2.0), 0.0, -5.0),
    ],
)
def test_the_worst_is_the_farthest_beyond_the_threshold(sick, values, threshold, worst):
    findings = [Finding(RULE, "note", str(value), "x", value, threshold) for value in values]
    assert of(sick.evidence, *findings).grouped()[0][0].value == worst


def test_nan_is_worst_of_all(sick):
    findings = [Finding(RULE, "note", str(value), "x", value, 0.5) for value in (9e9, math.nan, 1.0)]
    assert of(sick.evidence, *findings).grouped()[0][0].layer == "nan"


def test_advice_and_the_reason_of_a_threshold_are_told_once_for_a_rule(sick):
    (note,) = of(sick.evidence, *many(20)).table().notes
    assert note == f"{RULE}: Do this. Threshold 0.5: a paper."


def test_rules_that_skip_for_one_reason_share_a_line(sick):
    outcomes = (
        Outcome("a", "skipped", "no labels"),
        Outcome("b", "pass"),
        Outcome("c", "skipped", "no labels"),
        Outcome("d", "skipped", "no optimiser came"),
    )
    table = of(sick.evidence, outcomes=outcomes).table()
    assert table.notes == ("skipped a, c: no labels", "skipped d: no optimiser came")
    assert table.summary.endswith("1 of 4 rules passed.")


def test_json_holds_the_findings_and_the_evidence_in_short(sick):
    found = of(sick.evidence, Finding(RULE, "note", "a", "x", math.nan, math.inf))
    record = json.loads(found.to_json(more=3))
    assert record["findings"][0]["value"] is record["findings"][0]["threshold"] is None
    assert record["more"] == 3
    parts = record["evidence"]
    assert [part["name"] for part in parts["parameters"]] == ["0.weight", "1.weight", "1.bias"]
    assert parts["optimiser"] == "SGD"


def test_without_labels_the_reason_is_told():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    found = diagnose(network, [torch.randn(8, 3)], torch.nn.functional.cross_entropy)
    record = json.loads(found.to_json())
    assert record["evidence"]["layer_gradients"] == {"missing": "the batches hold no labels"}


def test_a_loss_by_its_name_is_told_what_to_be():
    network = torch.nn.Linear(3, 2)
    with pytest.raises(OptionError, match=r"the loss must be callable .*, but is 'mse'"):
        diagnose(network, [(torch.randn(8, 3), torch.randn(8, 2))], "mse")


def test_a_cause_stands_before_what_follows_from_it():
    torch.manual_seed(0)
    x = torch.randn(16, 4)
    x[3, 2] = math.nan
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3))
    batch = x, torch.arange(16) % 3
    found = diagnose(network, [batch] * 2, torch.nn.functional.cross_entropy, rules=["nonfinite_values"])
    assert [row[2] for row in found.table().rows] == ["(network)", "0"]
    ((first, second),) = found.grouped()
    assert "input 0 holds 1" in first.message
    assert second.value > first.value
