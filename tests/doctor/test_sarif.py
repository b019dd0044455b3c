"""What code review tools are given, held against what SARIF 2.1.0 asks for."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from normwright.doctor import Diagnosis, Finding, Outcome, all_rules
from normwright.doctor.diagnose import examine
from normwright.doctor.sarif import to_sarif

STATIC = "weight_decay_on_norm"
RUNS = next(name for name, rule in all_rules().items() if not rule.static)
HERE = Path("/code/project")


@pytest.fixture(scope="module")
def evidence():
    torch.manual_seed(0)
    return examine(all_rules()[STATIC].sick(), [all_rules()[STATIC]]).evidence


@pytest.fixture
def sarif(evidence):
    """The log of some findings, as read back."""

    def make(*findings: Finding, outcomes: tuple[Outcome, ...] | None = None, otherwise: str = ""):
        told = outcomes or tuple(Outcome(name, "finding") for name in (STATIC, RUNS))
        text = to_sarif(
            Diagnosis("net", findings, told, evidence), version="1.2.3", root=HERE, otherwise=otherwise
        )
        log = json.loads(text)
        check(log)
        return log["runs"][0]

    return make


def check(log):
    """The requirements of the standard (sections 3.13 to 3.58) on the properties that are used."""
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    for run in log["runs"]:
        driver = run["tool"]["driver"]
        assert driver["name"]
        assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
        names = [rule["id"] for rule in driver["rules"]]
        assert len(set(names)) == len(names)
        for rule in driver["rules"]:
            for text in (rule["shortDescription"], rule["fullDescription"], rule["help"]):
                assert text["text"].endswith(".")
            assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        for invocation in run["invocations"]:
            assert isinstance(invocation["executionSuccessful"], bool)
            for told in invocation["toolExecutionNotifications"]:
                assert told["message"]["text"]
                assert told["level"] in ("none", "note", "warning", "error")
                assert names[told["associatedRule"]["index"]] == told["associatedRule"]["id"]
        for result in run["results"]:
            assert names[result["ruleIndex"]] == result["ruleId"]
            assert result["level"] in ("none", "note", "warning", "error")
            assert result["message"]["text"]
            assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
            for location in result["locations"]:
                check_location(location)


def check_location(location):
    for logical in location["logicalLocations"]:
        assert logical["fullyQualifiedName"]
    if physical := location.get("physicalLocation"):
        uri = physical["artifactLocation"]["uri"]
        assert not any(character in uri for character in ' <>"\\^`{|}')
        # a URI relative to a base must be relative
        assert ("uriBaseId" in physical["artifactLocation"]) == (urlsplit(uri).scheme == "")
        assert physical["region"]["startLine"] >= 1


def test_a_finding_stands_at_its_line(sarif):
    run = sarif(Finding(STATIC, "warning", "a.norm", "it decays", advice="Stop.", where="nets/my net.py:12"))
    (result,) = run["results"]
    assert result["message"]["text"] == "a.norm: it decays. Stop."
    assert result["level"] == "warning"
    physical = result["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"] == {"uri": "nets/my%20net.py", "uriBaseId": "%SRCROOT%"}
    assert physical["region"] == {"startLine": 12}
    assert result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == "a.norm"


@pytest.mark.parametrize(
    ("where", "uri"),
    [
        ("/code/project/a.py:3", "a.py"),
        ("/elsewhere/a b.py:3", "file:///elsewhere/a%20b.py"),
        ("", "build.py"),
    ],
)
def test_files_are_named_from_the_project(sarif, where, uri):
    run = sarif(Finding(STATIC, "note", "a", "x", where=where), otherwise="build.py:7")
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_without_any_line_the_layer_alone_is_named(sarif):
    (location,) = sarif(Finding(STATIC, "note", "", "x"))["results"][0]["locations"]
    assert location == {"logicalLocations": [{"fullyQualifiedName": "(network)", "kind": "member"}]}


def test_what_a_run_showed_is_left_out(sarif):
    run = sarif(Finding(RUNS, "error", "a", "x"), Finding(STATIC, "note", "b", "y"))
    assert [result["ruleId"] for result in run["results"]] == [STATIC]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [STATIC]


def test_a_rule_that_could_not_judge_is_told(sarif):
    run = sarif(outcomes=(Outcome(STATIC, "skipped", "no optimiser came"), Outcome(RUNS, "skipped", "why")))
    (told,) = run["invocations"][0]["toolExecutionNotifications"]
    assert told["message"]["text"] == f"{STATIC} could not judge: no optimiser came."
    assert run["results"] == []


def test_a_finding_is_known_again_when_its_line_moves(sarif):
    first, moved, other = (
        sarif(Finding(STATIC, "note", layer, "x", where=where))["results"][0]["partialFingerprints"]
        for layer, where in (("a", "n.py:1"), ("a", "n.py:2"), ("b", "n.py:1"))
    )
    assert first == moved != other


def test_every_rule_can_be_told(evidence):
    outcomes = tuple(Outcome(name, "pass") for name in all_rules())
    log = json.loads(to_sarif(Diagnosis("net", (), outcomes, evidence), version="1", root=HERE))
    check(log)
    static = [name for name, rule in all_rules().items() if rule.static]
    assert [rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]] == static
