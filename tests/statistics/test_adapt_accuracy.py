"""Adapting brings back accuracy that a corruption took, on images of real digits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import normwright as nw
from normwright.lab.data.corruptions import corrupted
from normwright.lab.data.digits import read_digits


@pytest.fixture(scope="module")
def trained():
    """A network with batch norm, recalibrated; the test images, from 0 to 1, and their labels."""
    raw = read_digits()
    x, y = raw.train_x.float() / raw.top, raw.train_y
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2),
        nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 9, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        rows = torch.randint(len(x), (128,))
        optimiser.zero_grad()
        F.cross_entropy(network(x[rows]), y[rows]).backward()
        optimiser.step()
    network.eval()
    nw.recalibrate(network, x.split(128))
    return network, raw.test_x.float() / raw.top, raw.test_y


def accuracy(answer, x, y):
    with torch.no_grad():
        return float((answer(x).argmax(1) == y).float().mean())


# Some 360 test images: an accuracy is known to 2.6 % at worst, and what adapting changes here is tenfold.


@pytest.mark.parametrize("corruption", ["brightness", "contrast"])
def test_accuracy_comes_back(trained, corruption):
    network, x, y = trained
    bad = corrupted(corruption, x)
    before = accuracy(network, bad, y)
    with nw.adapt(network, [bad[:64]]):
        assert accuracy(network, bad, y) > before + 0.2
    assert accuracy(network, bad, y) == before
    with nw.AdaptedStream(network) as adapted:
        answers = torch.cat([adapted(part) for part in bad.split(64)])
    assert adapted.refused == 0
    assert accuracy(lambda _: answers, bad, y) > before + 0.2


def test_little_is_lost_where_nothing_shifted(trained):
    network, x, y = trained
    before = accuracy(network, x, y)
    assert before > 0.9
    with nw.adapt(network, [x[:64]]):
        assert accuracy(network, x, y) >= before - 0.026
