"""Networks that cannot be looked into are told so; those that can are, wherever they are asked about."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import normwright as nw
from normwright.doctor.subject import Subject
from normwright.errors import OptionError

BATCHES = [(torch.randn(8, 4), torch.randint(2, (8,)))] * 2


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def scripted_within():
    whole = network()
    whole[1] = torch.jit.script(whole[1])
    return whole


def on_meta():
    with torch.device("meta"):
        return network()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "because"),
    [
        (lambda: torch.jit.script(network()), "but it is compiled by torch.jit"),
        (scripted_within, "but its module '1' is compiled by torch.jit"),
        (lambda: nn.Sequential(nn.LazyLinear(2), nn.ReLU()), "but its module '0' is lazy"),
        (on_meta, "'0.weight' is on the device meta"),
    ],
)
def test_a_network_that_hides_or_is_not_there_is_refused(make, because):
    with pytest.raises(OptionError, match=because):
        nw.diagnose(make(), BATCHES, F.cross_entropy)


def test_a_lazy_network_is_examined_after_its_first_batch():
    lazy = nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))
    lazy(BATCHES[0][0])
    assert nw.diagnose(lazy, BATCHES, F.cross_entropy).evidence.losses


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_read_where_the_caller_has_them_off(mode):
    with mode():
        found = nw.diagnose(network(), BATCHES, F.cross_entropy, rules=["vanishing_gradient"])
    assert len(found.evidence.gradients) == 6


class Counting(torch.optim.Optimizer):
    """Keeps more than groups and state, as Lookahead and its like do."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})
        self.steps = itertools.count(1)
        self.inner = torch.optim.SGD(self.param_groups, lr=lr)
        self.inner.own = torch.ones(1)
        self.lock = threading.Lock()  # which cannot be copied

    @torch.no_grad()
    def step(self, closure=None):
        self.rate = next(self.steps) * float(self.inner.own)
        self.inner.step()


def test_an_optimiser_is_copied_with_what_its_class_keeps():
    whole = network()
    optimiser = Counting(whole.parameters(), 0.1)
    torch.optim.lr_scheduler.StepLR(optimiser, 1)  # which puts its own step over the class's
    twin = Subject(whole, (), optimiser=optimiser).twin()
    copied = twin.optimiser
    assert copied.inner is not optimiser.inner
    assert copied.inner.param_groups[0]["params"][0] is next(twin.network.parameters())
    next(twin.network.parameters()).grad = torch.ones(6, 4)
    copied.step()
    assert not torch.equal(next(twin.network.parameters()), next(whole.parameters()))
    assert next(optimiser.steps) == 1
