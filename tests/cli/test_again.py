"""The line that makes a converted network again elsewhere, run there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import normwright
from normwright.cli.again import line_again
from normwright.errors import OptionError
from normwright.network import convert

X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def instance() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True))


def batch() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


CASES = {
    "to group": (batch, "group", {}, None),
    "its options": (batch, "group", {"groups": 2, "names": ("1",)}, None),
    "a shape": (batch, "layer", {}, X),
    # without batches there are no statistics, which load_state_dict brings
    "statistics of batches": (instance, "batch", {"of": ("instance",)}, X),
    "statistics and a shape": (instance, "layer", {"of": ("instance",)}, X),
}


@pytest.mark.parametrize("case", CASES)
def test_the_line_makes_a_network_that_takes_the_weights(case):
    build, to, options, example = CASES[case]
    converted = convert(build().eval(), to, **options, calibrate=[X])
    line = line_again(converted, build, "build()", to, options, example)
    names = {"normwright": normwright, "torch": torch, "build": build}
    exec(line, names)
    network = names["network"].eval()
    network.load_state_dict(converted.state_dict())
    with torch.no_grad():
        assert torch.equal(network(X), converted(X))


def test_a_network_that_becomes_another_is_refused():
    converted = convert(batch(), "group", calibrate=[X])
    with pytest.raises(OptionError, match="becomes another"):
        line_again(converted, instance, "build()", "group", {}, None)
