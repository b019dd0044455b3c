"""Each rule by its own examples: it finds its defect in the sick one, and nothing in the healthy one."""

from __future__ import annotations

import pytest
import torch

from normwright.doctor.diagnose import examine
from normwright.doctor.rule import all_rules
from normwright.doctor.thresholds import THRESHOLDS

RULES = all_rules()
# its examples take several processes: test_ranks.py
ALONE = [name for name in RULES if name != "ranks_disagree"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ALONE)
def test_the_sick_example_is_found(name):
    found = examine(RULES[name].sick(), [RULES[name]])
    assert found.findings, found.outcomes
    assert all(finding.rule == name and finding.message and finding.advice for finding in found.findings)


@pytest.mark.parametrize("name", ALONE)
def test_the_healthy_example_passes(name):
    found = examine(RULES[name].healthy(), [RULES[name]])
    assert [outcome.outcome for outcome in found.outcomes] == ["pass"], found.outcomes + found.findings


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.treat is not None])
def test_the_treatment_mends_a_copy(name):
    subject = RULES[name].sick()
    before = [tensor.clone() for tensor in subject.network.state_dict().values()]
    for finding in examine(subject, [RULES[name]]).findings:
        assert finding.fix().mended
    assert all(map(torch.equal, before, subject.network.state_dict().values()))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_what_it_is(name):
    rule = RULES[name]
    assert rule.name == name
    assert rule.what.endswith(".")
    assert rule.why.endswith(".")
    assert rule.advice.endswith(".")
    assert rule.references
    assert rule.severity in ("error", "warning", "note")


def test_every_threshold_has_a_source():
    assert all(len(threshold.source) > 20 for threshold in THRESHOLDS.values())
