"""Every mechanical fix on real networks with seeded faults: it mends a copy, and spares the rest."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.examination import made_sick
from normwright.doctor.rule import all_rules
from normwright.errors import OptionError
from normwright.network.calling import tensors_of

TREATED = {name for name, rule in all_rules().items() if rule.treat is not None}

#: Faults whose findings are mended, at least one of each rule that can.
MENDED = (
    "small batches, accumulated",
    "moving average of weights",
    "one sample",
    "four samples",
    "biases forgotten",
    "biased head",
    "every scale zero",
    "checkpointed stages",
    "dropout from an old network",
    "first half frozen",
    "a group for each unit",
    "no running statistics",
    "momentum zero",
    "norm last in the block",
    "norm in the loop",
    "buffers left out",
    "AdamW as it comes",
    "decay on everything",
)

CASES = [(name, FAULTS[name].rule) for name in MENDED] + [("buffers left out", "train_eval_gap")]

#: Faults in a forward of somebody's own, which nobody else can rewrite.
BY_HAND = ("two calls swapped", "dropout in a forward", "always training", "copy and paste")

#: The modes in which a fix must keep what the network computes.
KEPT = {
    "averaged_weights_stale": ("training",),
    "bias_before_norm": ("training", "inference"),
    "double_update": ("training", "inference"),
    "dropout_before_norm": ("inference",),
    "frozen_but_updating": ("inference",),
    "leak_across_batch": ("training",),
    "momentum_extreme": ("training", "inference"),
    "stale_statistics": ("training",),
    "train_eval_gap": ("training",),
    "weight_decay_on_norm": ("training", "inference"),
}


def sick(name):
    """The patient, examined by few batches, and the first finding of the fault's rule."""
    fault = FAULTS[name]
    patient = made_sick(fault, fault.states[0])
    patient.options = {**patient.options, "steps": 4}
    return fault, patient


def outputs(network, batch, *, training):
    """What a copy computes, with the random numbers of a fixed seed."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        return tensors_of(copy.deepcopy(network).train(training)(batch[0]))


def states(network, optimiser):
    """The optimiser's state by the parameters' names."""
    return {name: optimiser.state.get(parameter, {}) for name, parameter in network.named_parameters()}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) if isinstance(one[key], torch.Tensor) else one[key] == other[key]
        for key in one
    )


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_a_fix_on_a_real_network(name, rule):
    fault, patient = sick(name)
    if not fault.after_training:
        patient.train(1)  # so that there is a state to be kept
    found = [it for it in patient.diagnose([rule]).findings if it.treatable]
    assert found, "nothing that can be mended was found"
    batch = next(iter(patient.loader))
    network_before = {name: value.clone() for name, value in patient.network.state_dict().items()}
    optimiser_before = copy.deepcopy(patient.optimiser.state_dict())

    treatment = found[0].fix()

    assert treatment.mended, treatment.after
    # the user's own are as they were, to the bit
    assert same(patient.network.state_dict(), network_before)
    assert optimiser_before["param_groups"] == patient.optimiser.state_dict()["param_groups"]
    for key, state in patient.optimiser.state_dict()["state"].items():
        assert same(state, optimiser_before["state"][key])
    # what the optimiser remembers of parameters that are still there
    before, after = states(patient.network, patient.optimiser), states(treatment.network, treatment.optimiser)
    kept = before.keys() & after.keys()
    assert len(kept) >= len(before) - 2
    assert all(same(before[name], after[name]) for name in kept)
    # every parameter that was trained and is still there is trained on
    assert (
        trained(treatment.network, treatment.optimiser) >= trained(patient.network, patient.optimiser) & kept
    )
    for mode in KEPT.get(rule, ()):
        for one, other in zip(
            outputs(patient.network, batch, training=mode == "training"),
            outputs(treatment.network, batch, training=mode == "training"),
            strict=True,
        ):
            # what is left is the rounding of float32, which a network of 20 layers amplifies
            assert (one - other).abs().max() <= 1e-4 * one.abs().max()
    patient.but(network=treatment.network, _optimiser=treatment.optimiser).train(1)


def trained(network, optimiser):
    """Names of the parameters that the optimiser steps."""
    held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    return {name for name, parameter in network.named_parameters() if id(parameter) in held}


@pytest.mark.parametrize("name", BY_HAND)
def test_what_is_mended_by_hand_says_how(name):
    fault, patient = sick(name)
    found = patient.diagnose([fault.rule]).findings
    assert found
    for finding in found:
        assert not finding.treatable
        with pytest.raises(OptionError, match="must be fixed by hand"):
            finding.fix()


def test_every_treatment_is_tried():
    assert {rule for _, rule in CASES} == TREATED
