"""Every mechanical fix on real networks with seeded faults: it mends a copy, and spares the rest."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.examining import made_sick
from normwright.doctor.rule import all_rules
from normwright.network.calling import tensors_of

TREATED = [name for name, rule in all_rules().items() if rule.treat is not None]

#: The modes in which a fix must keep what the network computes, where there is one.
KEPT = {
    "averaged_weights_stale": ("training",),
    "bias_before_norm": ("training", "inference"),
    "weight_decay_on_norm": ("training", "inference"),
    "stale_statistics": ("training",),
}

# one fault for each network that a rule has some in
CASES = {(FAULTS[name].rule, FAULTS[name].network): name for name in reversed(FAULTS)}
CASES = {key: name for key, name in CASES.items() if key[0] in TREATED and not FAULTS[name].ranks}


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


@pytest.mark.parametrize(("rule", "network"), sorted(CASES))
def test_a_fix_on_a_real_network(rule, network):
    fault = FAULTS[CASES[rule, network]]
    patient = made_sick(fault, fault.states[0])
    if not fault.after_training:
        patient.train(2)  # so that there is a state to be kept
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
    for mode in KEPT[rule]:
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


def test_every_treatment_is_tried_and_says_what_it_keeps():
    assert {rule for rule, _ in CASES} == set(TREATED)
    assert set(KEPT) >= set(TREATED)
