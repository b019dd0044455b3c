"""A fault of each rule, as people make them: it is found in its place, and nothing else is cried out.

All faults, in both states, are in docs/faults.md, which `python -m benchmarks.faults` writes.
"""

from __future__ import annotations

import functools

import pytest

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.examination import Examination, Said
from benchmarks.faults.examining import Verdict, healthy, sick, verdict
from benchmarks.faults.page import page
from benchmarks.faults.patients import PATIENTS
from benchmarks.faults.seeded import STATES
from normwright.doctor.rule import all_rules

#: At least one fault for each rule, in the state and on the network in which it is quickest to see.
QUICK = {
    "norm last in the block": "fresh",
    "dropout from an old network": "fresh",
    "biased head": "fresh",
    "copy and paste": "fresh",
    "a group for each unit": "fresh",
    "norm in the loop": "fresh",
    "batch norm over steps": "fresh",
    "AdamW as it comes": "fresh",
    "Adam at SGD's rate": "trained",
    "every scale zero": "fresh",
    "small batches, accumulated": "fresh",
    "checkpointed stages": "fresh",
    "first half frozen": "trained",
    "buffers left out": "trained",
    "momentum zero": "fresh",
    "scaled twice": "fresh",
    "averaged without statistics": "trained",
    "statistics of their own": "trained",
    "raw pixels": "fresh",
    "one sample": "fresh",
    "four samples": "fresh",
    "one left over": "fresh",
    "sorted by class": "trained",
    "padding counted": "fresh",
    "batch_first forgotten": "fresh",
    "large weights": "fresh",
    "biases far below zero": "fresh",
    "pruned by zeroing": "trained",
    "each row standardised": "fresh",
    "small weights and sigmoids": "fresh",
    "detached": "fresh",
    "no norm, large weights": "fresh",
    "squashed below the output": "fresh",
    "no norm, large steps": "fresh",
    "contiguous, to be safe": "fresh",
    "batch norm by hand": "fresh",
}

_healthy = functools.cache(healthy)


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_found_and_nothing_else(name):
    fault, state = FAULTS[name], QUICK[name]
    came = verdict(fault, state, sick(name, state), _healthy(fault.network, "SGD", state))
    assert came.found, came.missed
    assert not came.false_alarms


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("network", PATIENTS)
def test_a_healthy_network_has_nothing_above_a_note(network, state):
    came = _healthy(network, "SGD", state)
    assert not came.error
    assert not [said for said in came.findings if said.grave]


def test_every_rule_has_a_fault():
    assert {fault.rule for fault in FAULTS.values()} == set(all_rules())
    assert {FAULTS[name].rule for name in QUICK} == set(all_rules())
    assert all(state in FAULTS[name].states for name, state in QUICK.items())
    assert set().union(*(fault.explains for fault in FAULTS.values())) <= set(all_rules())


def said(rule, severity="warning", layer="norm1"):
    return Said(rule, severity, layer, 2.0, 1.0)


TWICE = FAULTS["copy and paste"]


def test_what_the_healthy_has_or_the_fault_explains_is_no_false_alarm():
    came = Examination(
        (said("norm_used_twice"), said("train_eval_gap"), said("dead_units"), said("batch_too_small")), {}
    )
    without = Examination((said("dead_units"),), {})
    assert verdict(TWICE, "fresh", came, without) == Verdict(
        TWICE.name,
        "fresh",
        (said("norm_used_twice"),),
        "",
        (said("train_eval_gap"),),
        (said("batch_too_small"),),
    )


def test_a_miss_says_why():
    nothing = Examination((), {})
    for came, why in [
        (Examination((said("norm_used_twice", layer="stem"),), {}), "elsewhere only"),
        (Examination((), {"norm_used_twice": ""}), "passed"),
        (Examination((), {"norm_used_twice": "no graph"}), "skipped: no graph"),
        (Examination((), {}, "ValueError: no"), "the examination raised ValueError: no"),
        (nothing, "no such rule"),
    ]:
        assert why in verdict(TWICE, "fresh", came, nothing).missed


def test_the_page_tells_misses_and_false_alarms():
    missed = Verdict(TWICE.name, "fresh", (), "passed", (), (said("dead_units", layer="stem"),))
    ill = {("lenet", "SGD", "fresh"): Examination((said("dead_units"), said("dead_units", "note")), {})}
    made = page([missed], ill, "python -m benchmarks.faults")
    assert "**0 of 1 faults were found" in made
    assert "Missed: *copy and paste* (norm_used_twice, fresh): passed" in made
    assert "**1 false alarms** on the sick networks; **1 findings above a note** in 1" in made
    assert "| lenet | SGD | fresh | 1 | warning `dead_units` at `norm1` |" in made
