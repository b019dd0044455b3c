"""Advice on a network of Transformers: batches are mappings, and the network returns its own loss."""

from __future__ import annotations

import pytest
import torch
from advised import same, whole_state

import normwright as nw
from normwright.network import find_normalisers


@pytest.fixture(scope="module")
def resnet():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=2
    )
    return transformers.ResNetForImageClassification(config)


@pytest.fixture(scope="module")
def batches():
    x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (x.mean((1, 2, 3)) > 0).long()
    return [{"pixel_values": x[:32], "labels": labels[:32]}, {"pixel_values": x[32:], "labels": labels[32:]}]


@pytest.mark.parametrize("loss", [None, "cross_entropy"])
def test_batch_sizes(resnet, batches, loss):
    before = whole_state(resnet)
    found = nw.find_batch_size(resnet, batches, loss, sizes=(1, 2, 32), seconds=0.002, optimiser="adamw")
    assert same(whole_state(resnet), before)
    assert [trial.batch_size for trial in found.trials] == [2, 32]
    assert len(found.trials[0].noise.layers) == len(find_normalisers(resnet))


def test_learning_rates_with_normalisers_and_without(resnet, batches):
    before = whole_state(resnet)
    found = nw.lr_range_test(resnet, batches, None, batch_size=32, steps=20, seeds=1)
    assert same(whole_state(resnet), before)
    assert [usable.label for usable in found.ranges] == ["with normalisers", "without"]
    assert found.ranges[0].curves[0].losses != found.ranges[1].curves[0].losses
