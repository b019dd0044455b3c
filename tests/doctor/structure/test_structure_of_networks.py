"""What the structural rules say of networks as their libraries have them: known defects, and no other."""

from __future__ import annotations

import pytest
import torch
from graphs import structure_of

from benchmarks.real_networks import REAL_NETWORKS
from normwright.doctor.rule import all_rules, judge
from normwright.doctor.subject import Subject
from normwright.lab.networks import build_network
from normwright.lab.recipe import NetworkRecipe

STRUCTURAL = (
    "bias_before_norm",
    "dropout_before_norm",
    "group_of_one",
    "momentum_extreme",
    "norm_after_activation",
    "norm_used_twice",
    "recurrent_shared_statistics",
    "slow_kernel",
    "slow_layout",
)


def _found(network: torch.nn.Module, x: torch.Tensor) -> dict[str, set[str]]:
    """Severities by rule."""
    evidence = structure_of(Subject(network, (x,)))
    judged = {name: judge(all_rules()[name], evidence) for name in STRUCTURAL}
    assert {outcome.outcome for outcome, _ in judged.values()} <= {"pass", "finding"}
    return {name: {finding.severity for finding in found} for name, (_, found) in judged.items() if found}


@pytest.mark.parametrize(
    ("name", "norm", "shape", "noted"),
    [
        ("lenet", "batch", (1, 28, 28), {"bias_before_norm"}),
        ("resnet20", "batch", (3, 32, 32), set()),
        ("vgg", "group", (3, 32, 32), set()),
        # (N, T, width) of an LSTM lies as (T, N, width), and all its steps share statistics
        ("lstm", "batch", (1, 8, 8), {"recurrent_shared_statistics", "slow_layout"}),
    ],
)
def test_networks_of_the_lab(name, norm, shape, noted):
    network = build_network(NetworkRecipe(name=name), norm, shape, 10).module
    assert _found(network, torch.randn(4, *shape)) == {rule: {"note"} for rule in noted}


@pytest.mark.parametrize(
    ("name", "noted"),
    [
        ("ResNet", set()),
        ("SegFormer", {"slow_layout"}),
        ("ConvNeXt", {"slow_layout"}),
        ("MONAI UNet", {"bias_before_norm"}),
    ],
)
def test_networks_of_other_libraries(name, noted):
    real = REAL_NETWORKS[name](small=True)
    assert _found(real.network, real.example) == {rule: {"note"} for rule in noted}


def test_transformers_mobilenet_has_tensorflows_momentum():
    # Its batch norms are built with momentum=0.997, which TensorFlow's have for the share of the old value.
    real = REAL_NETWORKS["MobileNetV2"](small=True)
    assert _found(real.network, real.example) == {"momentum_extreme": {"warning"}}
