"""Normalisers are built for a shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import normwright.nn as fused
from normwright.errors import OptionError, ShapeError
from normwright.lab.normalisers import make
from normwright.lab.recipe import NORMS

MAKES = [
    ("none", (2, 6), nn.Identity()),
    ("batch", (2, 6), fused.BatchNorm1d(6)),
    ("batch", (2, 6, 5), fused.BatchNorm1d(6)),
    ("batch", (2, 6, 5, 4), fused.BatchNorm2d(6)),
    ("batch", (2, 6, 5, 4, 3), fused.BatchNorm3d(6)),
    ("layer", (2, 6), fused.LayerNorm((6,))),
    ("layer", (2, 6, 5, 4), fused.LayerNorm((6, 5, 4))),
    ("layer", (2, 1, 5), fused.LayerNorm((1, 5))),
    ("rms", (2, 6, 5, 4), fused.RMSNorm((6, 5, 4))),
    ("instance", (2, 6, 5), fused.InstanceNorm1d(6, affine=True)),
    ("instance", (2, 6, 5, 4), fused.InstanceNorm2d(6, affine=True)),
    ("instance", (2, 6, 5, 4, 3), fused.InstanceNorm3d(6, affine=True)),
    ("instance", (2, 6, 1, 2), fused.InstanceNorm2d(6, affine=True)),
    ("group", (2, 6), fused.GroupNorm(3, 6)),
    ("group", (2, 16), fused.GroupNorm(8, 16)),
    ("group", (2, 84), fused.GroupNorm(7, 84)),
    ("group", (2, 7, 3, 3), fused.GroupNorm(1, 7)),
    ("group", (2, 1, 3, 3), fused.GroupNorm(1, 1)),
    ("lrn", (2, 6, 5, 4), fused.LocalResponseNorm(5)),
    ("lrn", (2, 6, 1, 1), fused.LocalResponseNorm(5)),
    ("renorm", (2, 6, 5), fused.BatchRenorm1d(6, r_max_steps=(100, 800), d_max_steps=(100, 500))),
    ("ghost", (2, 6), fused.GhostBatchNorm1d(6, ghost_size=32, ragged=True)),
    ("ghost", (2, 6, 5, 4, 3), fused.GhostBatchNorm3d(6, ghost_size=32, ragged=True)),
    ("whitening", (2, 6, 5, 4), fused.WhiteningNorm2d(6, group_size=6)),
    ("whitening", (2, 20, 5, 4), fused.WhiteningNorm2d(20, group_size=5)),
    ("whitening", (20, 16), fused.WhiteningNorm1d(16, group_size=8)),
    ("frn", (2, 6, 5, 4), fused.FilterResponseNorm(6, tlu=False)),
    ("dyt", (2, 6, 5, 4), fused.DynamicTanh(6, axis=1)),
    ("dyt", (2, 6), fused.DynamicTanh(6, axis=1)),
    ("ws", (2, 6, 5, 4), fused.GroupNorm(3, 6)),
    ("weight", (2, 6), nn.Identity()),
    ("recurrent-batch", (2, 6), nn.Identity()),
    ("recurrent-layer", (2, 6), nn.Identity()),
]

UNDEFINED = [
    ("instance", (2, 6)),
    ("instance", (2, 6, 1, 1)),
    ("group", (2, 1)),
    ("group", (2, 1, 1, 1)),
    ("layer", (2, 1)),
    ("rms", (2, 1, 1)),
    ("lrn", (2, 6)),
    ("frn", (2, 6)),
    ("frn", (2, 6, 1, 1)),
    ("ws", (2, 1)),
]

IDENTITIES = ("none", "weight", "recurrent-batch", "recurrent-layer")


@pytest.mark.parametrize(("norm", "shape", "expected"), MAKES, ids=str)
def test_makes_what_the_shape_asks_for(norm: str, shape: tuple[int, ...], expected: nn.Module) -> None:
    made = make(norm, torch.Size(shape), groups=8)
    assert made is not None
    assert type(made) is type(expected)
    assert repr(made) == repr(expected)
    assert made(torch.randn(shape)).shape == shape


@pytest.mark.parametrize(
    ("norm", "shape"), [case[:2] for case in MAKES if case[0] not in IDENTITIES], ids=str
)
def test_without_weight_and_bias(norm: str, shape: tuple[int, ...]) -> None:
    made = make(norm, shape, groups=8, affine=False)
    assert made is not None
    assert [name for name, _ in made.named_parameters()] == (["alpha"] if norm == "dyt" else [])
    assert made(torch.randn(shape)).shape == shape


@pytest.mark.parametrize(("norm", "shape"), UNDEFINED)
def test_is_undefined_over_a_single_element(norm: str, shape: tuple[int, ...]) -> None:
    assert make(norm, shape, groups=8) is None


@pytest.mark.parametrize(("groups", "expected"), [(1, 1), (2, 2), (3, 3), (5, 4), (6, 6), (11, 6), (99, 6)])
def test_groups_divide_the_channels_and_keep_two_each(groups: int, expected: int) -> None:
    made = make("group", (2, 12, 4, 4), groups=groups)
    assert isinstance(made, nn.GroupNorm)
    assert made.num_groups == expected


@pytest.mark.parametrize("norm", NORMS)
def test_making_draws_no_random_numbers(norm: str) -> None:
    state = torch.get_rng_state()
    make(norm, (2, 6, 5, 4), groups=8)
    assert torch.equal(state, torch.get_rng_state())


def test_an_unknown_normaliser_suggests_the_nearest() -> None:
    with pytest.raises(OptionError, match="unknown normaliser 'bacth': did you mean 'batch'"):
        make("bacth", (2, 6), groups=8)


@pytest.mark.parametrize(("norm", "shape"), [("layer", (6,)), ("none", ()), ("batch", (2, 3, 1, 1, 1, 2))])
def test_a_shape_that_cannot_be_normalised(norm: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="shape"):
        make(norm, shape, groups=8)


@pytest.mark.parametrize("norm", ["weight", "recurrent-batch", "recurrent-layer"])
def test_one_that_is_nothing_without_its_gains(norm: str) -> None:
    with pytest.raises(OptionError, match=f"affine must be True for {norm} norm"):
        make(norm, (2, 6), groups=8, affine=False)
