"""Gathering what a trial shows: what it leaves alone, and what it does with bad input."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from normwright.doctor.gathering import gather
from normwright.doctor.missing import SkipError
from normwright.doctor.subject import Subject, subject_of
from normwright.errors import OptionError

PARTS = ("losses", "gradients", "layer_gradients", "covariate_shift")


def network_of():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 6), nn.LayerNorm(6),
        nn.Linear(6, 2),
    )  # fmt: skip


def batches_of(count=3, samples=8):
    return [(torch.randn(samples, 4), torch.randint(2, (samples,))) for _ in range(count)]


def subject(network, batches=None, loss=nn.functional.cross_entropy, **options):
    return subject_of(network, batches or batches_of(), most=8, loss=loss, **options)


def plain(value):
    """A state dict (of an optimiser too) with its tensors as lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


class Breaking(nn.Module):
    """Raises in its second forward, in the middle of things."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 2:
            torch.rand(1), np.random.rand(), random.random()
            raise ArithmeticError("second call")
        return x


@pytest.mark.parametrize("breaking", [False, True])
def test_network_optimiser_and_random_states_stay_as_they_were(breaking):
    network = network_of()
    if breaking:
        network.insert(2, Breaking())
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    nn.functional.cross_entropy(network(torch.randn(8, 4)), torch.randint(2, (8,))).backward()
    optimiser.step()
    if breaking:
        network[2].calls = 0
    network[1].eval()
    state, of_optimiser = copy.deepcopy(network.state_dict()), copy.deepcopy(optimiser.state_dict())
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    modes = [module.training for module in network.modules()]
    it = subject(network, optimiser=optimiser)
    random_states = torch.get_rng_state(), plain(list(np.random.get_state()[1])), random.getstate()
    if breaking:
        with pytest.raises(ArithmeticError, match="second call"):
            gather(it)
    else:
        gather(it)
    assert plain(state) == plain(network.state_dict())
    assert plain(of_optimiser) == plain(optimiser.state_dict())
    assert all(map(torch.equal, gradients, (parameter.grad for parameter in network.parameters())))
    assert modes == [module.training for module in network.modules()]
    assert torch.equal(random_states[0], torch.get_rng_state())
    assert random_states[1:] == (plain(list(np.random.get_state()[1])), random.getstate())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_equal_subjects_give_equal_evidence():
    """The network draws its dropout from the random state, and so must be gathered from the same one."""
    found = []
    for _ in range(2):
        it = subject(network_of(), optimiser=None)
        torch.manual_seed(1)
        evidence = gather(it)
        found.append((evidence.losses, evidence.gradients, evidence.activations, evidence.covariate_shift))
    assert found[0] == found[1]


def because(evidence, part):
    with pytest.raises(SkipError) as caught:
        getattr(evidence, part)
    return str(caught.value)


def test_without_labels_activations_are_there_and_gradients_skipped():
    evidence = gather(subject(network_of(), [torch.randn(8, 4)]))
    assert evidence.activations
    assert evidence.inputs
    assert {because(evidence, part) for part in PARTS} == {"the batches hold no labels"}


def test_without_a_loss():
    evidence = gather(subject(network_of(), loss=None))
    assert "no loss came" in because(evidence, "gradients")
    assert evidence.activations


def test_one_batch_is_enough():
    evidence = gather(subject(network_of(), batches_of(1)))
    assert len(evidence.losses) == 1
    assert all(len(facts.norms) == 1 for facts in evidence.gradients)
    assert evidence.covariate_shift


def test_a_frozen_network_has_no_gradients():
    evidence = gather(subject(network_of().requires_grad_(False)))
    assert because(evidence, "gradients") == "the loss depends on no parameter that takes a gradient"


def test_fewer_batches_than_a_step_takes():
    evidence = gather(subject(network_of(), batches_of(2), accumulation=4))
    assert because(evidence, "gradients") == "a step takes 4 mini-batches, but only 2 came"
    assert len(evidence.losses) == 2


def test_nan_does_not_end_the_examination():
    batches = batches_of()
    batches[1][0][3, 2] = math.nan
    evidence = gather(subject(network_of(), batches))
    assert math.isnan(evidence.losses[-1])
    assert evidence.gradients
    assert evidence.inputs[0].nonfinite == 1


def test_a_loss_that_is_no_scalar_is_an_error():
    with pytest.raises(OptionError, match="scalar"):
        gather(subject(network_of(), loss=lambda outputs, target: outputs))


def test_what_cannot_be_copied_is_an_error():
    class Uncopied(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("not me")

    with pytest.raises(OptionError, match="must be copied"):
        gather(Subject(Uncopied(4, 2), tuple(batches_of()), nn.functional.cross_entropy))


def test_a_network_that_returns_its_own_loss():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x, labels):
            logits = self.linear(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    batches = [{"x": x, "labels": y} for x, y in batches_of()]
    assert len(gather(subject(Own(), batches, loss=None)).losses) == 3
