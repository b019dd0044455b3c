"""Moments of each feature of what a network is fed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from normwright.doctor.subject import Subject
from normwright.doctor.training.inputs import FEATURES, InputObserver
from normwright.doctor.training.trial import train

REL = 2.0**-40  # float64 throughout, over at most a thousand elements


def facts_of(network, *batches, **options):
    observer = InputObserver()
    train(Subject(network, batches, **options), [observer])
    return observer.facts()


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [(nn.Linear(5, 2), (8, 5), 1), (nn.Conv2d(5, 2, 1), (8, 5, 3, 4), 1), (nn.Linear(5, 2), (8, 3, 5), 2),
     (nn.Conv1d(5, 2, 1), (8, 5, 3), 1), (nn.LSTM(5, 2), (8, 3, 5), 2),
        (nn.Sequential(nn.Flatten(), nn.Linear(60, 2)), (8, 5, 3, 4), 1)],
)  # fmt: skip
def test_as_numpy_says(layer, shape, axis):
    torch.manual_seed(0)
    batches = [torch.randn(shape) * 3 + 1, torch.randn(shape) + 1000]
    (found,) = facts_of(nn.Sequential(layer), *batches)
    values = np.concatenate(
        [np.moveaxis(x.numpy().astype(np.float64), axis, 0).reshape(5, -1) for x in batches], 1
    )
    assert (found.name, found.shape, found.axis, found.nonfinite) == ("0", shape, axis, 0)
    assert found.means == pytest.approx(values.mean(1), rel=REL)
    assert found.deviations == pytest.approx(values.std(1), rel=REL)


def test_nan_is_counted_and_left_out():
    x = torch.tensor([[1.0, 2.0], [3.0, math.nan], [5.0, math.inf]])
    (found,) = facts_of(nn.Linear(2, 2), x)
    assert found.nonfinite == 2
    assert found.means == (3.0, 2.0)
    assert found.deviations[1] == 0.0


def test_of_many_features_some_are_kept():
    (found,) = facts_of(nn.Linear(3 * FEATURES, 1), torch.randn(2, 3 * FEATURES))
    assert len(found.means) == FEATURES


def test_arguments_by_their_names_and_tokens_left_out():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.embedding = nn.Linear(4, 4), nn.Embedding(3, 4)

        def forward(self, features, tokens):
            return self.linear(features) + self.embedding(tokens)

    (found,) = facts_of(Two(), {"features": torch.randn(8, 4), "tokens": torch.zeros(8, dtype=torch.long)})
    assert found.name == "features"
