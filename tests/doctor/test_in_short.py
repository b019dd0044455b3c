"""The evidence in short."""

from __future__ import annotations

import dataclasses
import json

import torch

from normwright.doctor.gathering import gather
from normwright.doctor.in_short import finite_json, in_short
from normwright.doctor.rule import all_rules

RULE = all_rules()["weight_decay_on_norm"]


def test_every_part_is_there_as_plain_values():
    torch.manual_seed(0)
    evidence = gather(RULE.sick())
    parts = in_short(evidence)
    assert list(parts) == [part.name for part in dataclasses.fields(evidence)]
    assert json.loads(finite_json(parts)).keys() == parts.keys()


def test_a_long_row_of_numbers_is_told_in_short():
    @dataclasses.dataclass
    class Evidence:
        short: tuple[float, ...] = (1 / 3, float("nan"))
        long: tuple[float, ...] = (float("inf"), *map(float, range(99)))
        names: tuple[str, ...] = tuple(map(str, range(50)))

    parts = in_short(Evidence())  # type: ignore[arg-type]
    assert parts["short"][0] == 0.33333
    assert parts["long"] == {"count": 100, "not_finite": 1, "least": 0.0, "median": 49.0, "greatest": 98.0}
    assert len(parts["names"]) == 50
    assert json.loads(finite_json(parts))["short"] == [0.33333, None]
