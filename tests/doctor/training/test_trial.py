"""A few steps of training: as its user's loop has them, whatever comes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from normwright.doctor.subject import Subject
from normwright.doctor.training.trial import train
from normwright.errors import OptionError


class Heard:
    """Notes what an observer is told."""

    def __init__(self):
        self.told = []

    def watching(self, network, step):
        self.told.append(("watching", step))
        return torch.enable_grad()

    def gradients_ready(self, network, step, loss):
        self.told.append(("ready", step))

    def stepped(self, network, step):
        self.told.append(("stepped", step))


def subject(*, batches=None, loss=nn.functional.cross_entropy, optimiser=True, **options):
    torch.manual_seed(0)
    network = options.pop("network", None) or nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
    )
    batches = batches or tuple((torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(3))
    sgd = torch.optim.SGD(network.parameters(), lr=0.1) if optimiser else None
    return Subject(network, batches, loss, sgd, **options)


def test_observers_are_told_in_order():
    heard = Heard()
    course = train(subject(accumulation=2), [heard])
    assert heard.told == [
        ("watching", 0), ("ready", 0), ("watching", 1), ("ready", 1), ("stepped", 1), ("watching", 2),
        ("ready", 2),
    ]  # fmt: skip
    assert len(course.losses) == 3
    assert (course.no_gradients, course.no_updates) == ("", "")


def test_gradients_that_the_copy_came_with_are_dropped():
    twin = subject()
    fresh = twin.twin()
    for parameter in twin.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    for it in (twin, fresh):
        train(it, [])
    assert all(map(torch.equal, twin.network.parameters(), fresh.network.parameters()))


def test_a_loss_that_is_not_finite_ends_the_trial():
    batches = tuple((torch.full((8, 4), scale), torch.randint(2, (8,))) for scale in (1.0, math.nan, 1.0))
    heard = Heard()
    course = train(subject(batches=batches), [heard])
    assert len(course.losses) == 2
    assert math.isnan(course.losses[1])
    assert heard.told[-1] == ("ready", 1)


def test_without_labels_the_network_runs_and_has_no_gradients():
    heard = Heard()
    course = train(subject(batches=(torch.randn(8, 4), torch.randn(8, 4))), [heard])
    assert course == type(course)((), "the batches hold no labels", "")
    assert heard.told == [("watching", 0), ("watching", 1)]


def test_without_a_loss():
    course = train(subject(loss=None), [])
    assert course.no_gradients == "no loss came, and the network returns none as .loss"


def test_a_loss_without_parameters():
    course = train(subject(loss=lambda outputs, target: torch.zeros(())), [])
    assert course.no_gradients == "the loss depends on no parameter that takes a gradient"
    assert course.losses == (0.0,) * 3


@pytest.mark.parametrize("loss", [lambda y, _: y, lambda y, _: 1.0, lambda y, _: y.argmax()])
def test_a_loss_that_is_no_scalar_is_refused(loss):
    with pytest.raises(OptionError, match="the loss must be a scalar tensor"):
        train(subject(loss=loss), [])


def test_what_the_network_raises_comes_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(subject(batches=((torch.randn(8, 5), torch.randint(2, (8,))),)), [])


def test_an_optimiser_that_needs_a_closure_makes_no_step():
    it = subject(optimiser=False)
    lbfgs = torch.optim.LBFGS(it.network.parameters())
    heard = Heard()
    course = train(Subject(it.network, it.batches, it.loss, lbfgs), [heard])
    assert course.no_updates == "LBFGS steps only with a closure"
    assert ("stepped", 0) not in heard.told


def test_a_network_in_inference_mode_is_trained_in_training_mode():
    it = subject()
    it.network.eval()
    train(it, [])
    assert it.network[1].num_batches_tracked == 3


def test_what_is_held_in_inference_mode_inside_stays_so():
    it = subject()
    it.network[1].eval()
    train(it, [])
    assert it.network[1].num_batches_tracked == 0


class Closing(torch.optim.SGD):
    """Takes a closure that its signature does not ask for, as SAM does."""

    def step(self, closure=None):
        assert closure is not None


def test_an_optimiser_that_makes_no_step_of_a_copy_leaves_the_gradients():
    given = subject()
    heard = Heard()
    given = dataclasses.replace(given, optimiser=Closing(given.network.parameters(), lr=0.1))
    course = train(given, [heard])
    assert course.no_updates.startswith("Closing made no step of a copy: AssertionError")
    assert [what for what, _ in heard.told] == ["watching", "ready"] * 3
