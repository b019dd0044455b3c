"""What the rule about a loss that diverges says, and where it cannot judge."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwright.doctor.diagnose import examine
from normwright.doctor.rule import all_rules
from normwright.doctor.subject import Subject

CROSS_ENTROPY = nn.functional.cross_entropy
RULE = all_rules()["diverging_loss"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def drawn(batches, samples=64):
    inputs = torch.randn(batches, samples, 8).unbind()
    return [(x, (x.sum(1) > 0).long()) for x in inputs]


def trained(steps=60):
    network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    for x, y in drawn(steps):
        optimiser.zero_grad()
        CROSS_ENTROPY(network(x), y).backward()
        optimiser.step()
    return network


def examined(network, batches, *, loss=CROSS_ENTROPY, rate=0.1, **options):
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    return examine(Subject(network, tuple(batches), loss, optimiser, **options), [RULE])


def reason(found):
    [outcome] = found.outcomes
    assert outcome.outcome == "skipped"
    return outcome.because


def test_what_a_trained_network_forgets_is_told_with_its_figures():
    network, batches = trained(), drawn(3)
    [finding] = examined(network, batches, rate=50.0).findings

    with torch.no_grad():
        outputs = [network(x) for x, _ in batches]
        others = [(answers.sum(0) - answers) / 63 for answers in outputs]
        before, nothing = (
            sum(float(CROSS_ENTROPY(answers, y)) for answers, (_, y) in zip(of, batches, strict=True)) / 3
            for of in (outputs, others)
        )
    after = []
    optimiser = torch.optim.SGD(network.parameters(), lr=50.0)
    for x, y in batches:
        optimiser.zero_grad()
        loss = CROSS_ENTROPY(network(x), y)
        loss.backward()
        optimiser.step()
        after.append(float(loss.detach()))
    mean = sum(after[1:]) / 2
    assert before < nothing / 2
    assert finding.threshold == 1
    assert finding.value == pytest.approx(mean / nothing, rel=1e-4)
    for figure in (before, nothing, mean):
        assert f"{figure:.3g}" in finding.message


def test_a_loss_of_next_to_nothing_may_well_double():
    network = trained(300)
    network[2].weight.data *= 5  # sure of itself: of a loss of 0.0065 this rate makes 0.16
    found = examined(network, drawn(4), rate=1.0)
    assert [outcome.outcome for outcome in found.outcomes] == ["pass"]


def test_steps_before_the_optimisers_first_are_not_counted():
    """Of three mini-batches that are accumulated the third is the last before the step."""
    network, batches = trained(), drawn(3)
    assert "no mini-batch followed" in reason(examined(network, batches, rate=50.0, accumulation=3))
    assert examined(network, drawn(4), rate=50.0, accumulation=3).findings


def test_without_an_optimiser_nothing_is_said():
    assert "no optimiser" in reason(examine(Subject(trained(), tuple(drawn(2)), CROSS_ENTROPY), [RULE]))


def test_a_loss_below_0_says_nothing():
    found = examined(trained(), drawn(3), loss=lambda outputs, y: CROSS_ENTROPY(outputs, y) - 10)
    assert "below 0" in reason(found)


class WithItsLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = trained()

    def forward(self, x, labels):
        logits = self.inner(x)
        return {"loss": CROSS_ENTROPY(logits, labels), "logits": logits}


def _two_samples_at_least(outputs, y):
    if float(outputs.detach().std(0).max()) < 0.1:
        raise ValueError("answers must differ")
    return CROSS_ENTROPY(outputs, y)


@pytest.mark.parametrize(
    ("network", "batches", "loss"),
    [
        (WithItsLoss, lambda: [{"x": x, "labels": y} for x, y in drawn(3)], None),
        (trained, lambda: drawn(3, samples=1), CROSS_ENTROPY),
        (trained, lambda: drawn(3), _two_samples_at_least),
    ],
    ids=["a loss of the network's own", "one sample", "a loss that refuses such answers"],
)
def test_where_the_loss_of_knowing_nothing_is_unknown(network, batches, loss):
    assert "unknown" in reason(examined(network(), batches(), loss=loss))
