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
    watched(randomise(kind()).train(training))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [ModuleActivation, ResidualAfterTheNorm])
def test_of_a_synchronised_one(kind, training):
    watched(nn.SyncBatchNorm.convert_sync_batchnorm(randomise(kind())).train(training), exact=False)


def watched(network, exact=True):
    fast = accelerate(network)
    seen = []
    for part in (network, fast):
        norm = next(
            module for module in part.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))
        )
        expected = run(copy.deepcopy(part), lambda part: part(X))
        handle = watch(norm, lambda x, y: seen.append((x.clone(), y.clone())))
        actual = run(part, lambda part: part(X))
        handle.remove()
        for name, value in expected.items():
            # a synchronised one is not called twice, but once without what is fused
            assert_close(actual[name], value)
            assert not exact or torch.equal(value, actual[name])
    (x, y), (same_x, same_y) = seen
    assert_close(same_x, x)
    assert_close(same_y, y)
