"""Who watches a normaliser sees what it alone returns, and changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from same import assert_close, randomise, run
from small_networks import ModuleActivation, ResidualAfterTheNorm, ThroughContainers
from torch import nn

from normwright.network import accelerate
from normwright.network.acceleration.fused_call import watch

X = torch.randn(3, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [ModuleActivation, ResidualAfterTheNorm, ThroughContainers])
def test_a_watcher_sees_the_normaliser_alone_and_changes_no_bit(kind, training):
    network = randomise(kind()).train(training)
    fast = accelerate(network)
    seen = []
    for part in (network, fast):
        norm = next(module for module in part.modules() if isinstance(module, nn.BatchNorm2d))
        expected = run(copy.deepcopy(part), lambda part: part(X))
        handle = watch(norm, lambda x, y: seen.append((x.clone(), y.clone())))
        actual = run(part, lambda part: part(X))
        handle.remove()
        assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    (x, y), (same_x, same_y) = seen
    assert_close(same_x, x)
    assert_close(same_y, y)
