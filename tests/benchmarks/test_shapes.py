"""The frozen shapes are those of the networks."""

import pytest
import torch
from torch import nn

from benchmarks.models import MODELS
from benchmarks.shapes import frozen, gather

LIBRARY = {"resnet50": "transformers", "unet3d": "monai", "diffusion": "monai"}


@pytest.mark.parametrize("source", MODELS)
def test_hooks_find_what_is_frozen(source):
    if source in LIBRARY:
        pytest.importorskip(LIBRARY[source])
    with torch.device("meta"):
        found = gather(source, MODELS[source]())
    assert found == {case: count for case, count in frozen() if case.source == source}


class Block(nn.Module):
    def __init__(self, *, in_place):
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
        self.activation, self.in_place = nn.ReLU(), in_place

    def forward(self, x):
        y = self.activation(self.first(x))
        y = self.second(y)
        y = y.add_(x) if self.in_place else y
        return self.activation(y)


@pytest.mark.parametrize("in_place", [False, True])
def test_hooks_see_what_follows(in_place):
    from benchmarks.models import Model

    cases = list(gather("block", Model(Block(in_place=in_place), (torch.randn(2, 4, 3, 3),), "")))
    assert [(case.operator, case.activation, case.residual) for case in cases] == [
        ("batch_norm", "relu", False),
        ("group_norm", "relu", in_place),
    ]
    assert cases[1].groups == 2
