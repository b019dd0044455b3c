"""Internal covariate shift, against the definition written out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from normwright.doctor.missing import SkipError
from normwright.doctor.subject import Subject
from normwright.doctor.training.covariate_shift import covariate_shift_of

REL = 2.0**-16  # gradients in float32, whose difference is taken


def subject_of(*layers, optimiser=None, **options):
    torch.manual_seed(0)
    network = nn.Sequential(*layers) if layers else nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)
    )  # fmt: skip
    batch = torch.randn(16, 4), torch.randint(2, (16,))
    made = None if optimiser is None else optimiser(network.parameters())
    return Subject(network, (batch,), nn.functional.cross_entropy, made, **options)


ORDER = ("0", "1", "2", "3", "4", "5")


def test_as_the_definition_says():
    subject = subject_of(optimiser=lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9))
    ((x, y),) = subject.batches
    before, after, mixed = (copy.deepcopy(subject.network) for _ in range(3))
    nn.functional.cross_entropy(after(x), y).backward()
    nn.functional.cross_entropy(before(x), y).backward()
    torch.optim.SGD(after.parameters(), lr=0.5, momentum=0.9).step()
    found = {facts.layer: facts for facts in covariate_shift_of(subject, ORDER)}
    assert list(found) == ["3", "5"]
    for layer in (3, 5):
        mixed.load_state_dict(before.state_dict())
        for below in range(layer):
            mixed[below].load_state_dict(after[below].state_dict())
        mixed.zero_grad()
        nn.functional.cross_entropy(mixed(x), y).backward()
        old, new = (
            torch.cat([p.grad.flatten() for p in network[layer].parameters()]).double()
            for network in (before, mixed)
        )
        facts = found[str(layer)]
        assert facts.distances == pytest.approx([float((new - old).norm())], rel=REL)
        assert facts.relative == pytest.approx([float((new - old).norm() / old.norm())], rel=REL)
        assert facts.cosines == pytest.approx([float(new @ old / new.norm() / old.norm())], rel=REL)
        with torch.no_grad():
            was, now = (network[:layer](x).double() for network in (before, mixed))
        moves = (now.mean(0) - was.mean(0)) / was.std(0, unbiased=False)
        assert facts.drift == pytest.approx([float(moves.square().mean().sqrt())], rel=REL)
        assert facts.rule == "SGD"
    assert found["3"].depth == 2


def test_nothing_below_moves_without_a_learning_rate():
    for facts in covariate_shift_of(subject_of(optimiser=lambda p: torch.optim.SGD(p, lr=0.0)), ORDER):
        assert (facts.distances, facts.relative, facts.drift) == ((0.0,), (0.0,), (0.0,))
        assert facts.cosines == pytest.approx((1.0,))


class Growing(nn.Module):
    """Its forward depends on how often it ran, as spectral norm's does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.ones(()))

    def forward(self, x):
        self.calls += 1
        return x * self.calls.clone()


def test_buffers_are_the_same_before_and_after():
    layers = nn.Linear(4, 6), Growing(), nn.Linear(6, 2)
    subject = subject_of(*layers, optimiser=lambda p: torch.optim.SGD(p, lr=0.0))
    assert [facts.distances for facts in covariate_shift_of(subject, ("0", "1", "2"))] == [(0.0,)]


def test_dropout_draws_the_same_before_and_after():
    layers = nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2)
    for facts in covariate_shift_of(
        subject_of(*layers, optimiser=lambda p: torch.optim.SGD(p, lr=0.0)), ("0", "2")
    ):
        assert facts.distances == (0.0,)


def test_without_an_optimiser_plain_sgd_is_named():
    assert {facts.rule for facts in covariate_shift_of(subject_of(), ORDER)} == {"plain SGD, lr 0.1"}


def test_at_most_five_layers_the_last_among_them():
    layers = [nn.Linear(4, 4) for _ in range(12)]
    found = covariate_shift_of(subject_of(*layers), tuple(map(str, range(12))))
    assert [facts.layer for facts in found] == ["2", "4", "6", "8", "11"] or len(found) == 5
    assert found[-1].layer == "11"


def test_the_subject_stays_as_it_is():
    subject = subject_of(optimiser=lambda p: torch.optim.Adam(p))
    before = copy.deepcopy(subject.network.state_dict())
    covariate_shift_of(subject, ORDER)
    assert all(map(torch.equal, before.values(), subject.network.state_dict().values()))
    assert not subject.optimiser.state


@pytest.mark.parametrize(
    ("layers", "options", "because"),
    [((nn.Linear(4, 2),), {}, "it takes two layers"), ((), {"loss": None}, "no loss came"),
     ((), {"batches": (torch.randn(8, 4),)}, "no labels"),
     ((), {"batches": ((torch.full((8, 4), math.nan), torch.zeros(8, dtype=torch.long)),)}, "not finite")],
)  # fmt: skip
def test_why_it_cannot_be_measured(layers, options, because):
    import dataclasses

    subject = dataclasses.replace(subject_of(*layers), **options)
    with pytest.raises(SkipError, match=because):
        covariate_shift_of(subject, ORDER[: len(layers) or None])
