"""A diagnosis as SARIF, which code review tools show beside the lines of code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from normwright.doctor.diagnosis import Diagnosis
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Rule, all_rules

VERSION = "2.1.0"
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_FINGERPRINT = "normwright/layer/v1"


def to_sarif(diagnosis: Diagnosis, *, version: str, root: Path, otherwise: str = "") -> str:
    """The findings of the static rules, those that code and optimiser alone tell, as SARIF 2.1.0.

    Args:
        diagnosis: of any rules; findings of those that need a run are left out, as no line holds them.
        version: of the program.
        root: folder of the code; files below it are named from there, as review tools want them.
        otherwise: file and line for a finding without any ("nets.py:12"), or "".
    References:
        OASIS, Static Analysis Results Interchange Format 2.1.0.
    """
    asked = [rule for outcome in diagnosis.outcomes if (rule := all_rules()[outcome.rule]).static]
    places = {rule.name: place for place, rule in enumerate(asked)}
    found = [finding for group in diagnosis.grouped() for finding in group if finding.rule in places]
    run = {
        "tool": {
            "driver": {"name": "normwright", "version": version, "rules": list(map(_rule, asked))},
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {"executionSuccessful": True, "toolExecutionNotifications": _skipped(diagnosis, places)}
        ],
        "results": [_result(finding, places[finding.rule], root, otherwise) for finding in found],
    }
    return json.dumps({"$schema": SCHEMA, "version": VERSION, "runs": [run]}, indent=2, allow_nan=False)


def _rule(rule: Rule) -> dict[str, Any]:
    references = "; ".join(rule.references)
    return {
        "id": rule.name,
        "name": "".join(word.capitalize() for word in rule.name.split("_")),
        "shortDescription": {"text": rule.what},
        "fullDescription": {"text": f"{rule.what} {rule.why}"},
        "help": {
            "text": f"{rule.advice} See {references}.",
            "markdown": f"{rule.why}\n\n**{rule.advice}**\n\nSee {references}.",
        },
        "defaultConfiguration": {"level": rule.severity},
        "properties": {"tags": ["normalisation"], "treatable": rule.treat is not None},
    }


def _result(finding: Finding, place: int, root: Path, otherwise: str) -> dict[str, Any]:
    layer = finding.layer or "(network)"
    key = hashlib.sha256(f"{finding.rule}\0{finding.layer}".encode()).hexdigest()
    return {
        "ruleId": finding.rule,
        "ruleIndex": place,
        "level": finding.severity,
        "message": {"text": f"{layer}: {_sentence(finding.message)} {finding.advice}".rstrip()},
        "locations": [
            {
                **_physical(finding.where or otherwise, root),
                "logicalLocations": [{"fullyQualifiedName": layer, "kind": "member"}],
            }
        ],
        "partialFingerprints": {_FINGERPRINT: key},
    }


def _physical(where: str, root: Path) -> dict[str, Any]:
    file, _, line = where.rpartition(":")
    if not file or not line.isdigit():
        return {}
    path = Path(file)
    absolute = path if path.is_absolute() else root / path
    if absolute.is_relative_to(root):
        artifact = {"uri": quote(absolute.relative_to(root).as_posix()), "uriBaseId": "%SRCROOT%"}
    else:
        artifact = {"uri": absolute.as_uri()}
    # Lines begin at 1.
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": max(int(line), 1)}}}


def _skipped(diagnosis: Diagnosis, places: dict[str, int]) -> list[dict[str, Any]]:
    """A rule that could not judge is no pass: the file says so."""
    return [
        {
            "associatedRule": {"id": outcome.rule, "index": places[outcome.rule]},
            "level": "note",
            "message": {"text": f"{outcome.rule} could not judge: {_sentence(outcome.because)}"},
        }
        for outcome in diagnosis.outcomes
        if outcome.outcome == "skipped" and outcome.rule in places
    ]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
