"""Folding an affine map into a layer is exact: every kind of layer, groups, axes of space and dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from layers import DTYPES, KINDS, Kind, Layer, mapped
from tolerances import UNIT, assert_within, rounded
from torch import Tensor

from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.network.folding.affine import Affine, affine_of
from normwright.network.folding.algebra import fold_after, fold_before
from normwright.reference import inference_map

EVERY = pytest.mark.parametrize("kind", KINDS, ids=str)


def affine(scale: list[float], shift: list[float]) -> Affine:
    return Affine(torch.tensor(scale, dtype=torch.float64), torch.tensor(shift, dtype=torch.float64))


def assert_exact(layer: Layer, fold: Any, beside: Affine, expected: Tensor) -> None:
    """The folded layer gives the expected output, but for the rounding of its weight and bias."""
    weight, bias = fold(layer.weight, layer.bias, beside, **layer.options)
    assert (weight.dtype, bias.dtype, weight.shape) == (layer.dtype, layer.dtype, layer.weight.shape)
    wide, absolute = (
        [None if part is None else change(part.double()) for part in (layer.weight, layer.bias)]
        for change in (torch.clone, torch.abs)
    )
    exact = fold(*wide, beside, **layer.options)
    size = fold(*absolute, Affine(beside.scale.abs(), beside.shift.abs()), **layer.options)[1]
    actual = layer.run(layer.x, weight, bias)
    assert_within(actual, expected.numpy(), layer.bound(layer.x, *exact, size), "output")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@EVERY
def test_after(kind: Kind, bias: bool, dtype: torch.dtype) -> None:
    """PEERS, folding: a grouped transposed convolution scaled along the wrong axis (error 2.71)."""
    layer = Layer(kind, dtype, bias=bias)
    after = layer.affine(kind.out)
    assert_exact(layer, fold_after, after, mapped(layer.run(layer.x, layer.weight, layer.bias), after))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@EVERY
def test_before(kind: Kind, bias: bool, dtype: torch.dtype) -> None:
    layer = Layer(kind, dtype, bias=bias)
    before = layer.affine(kind.into)
    if kind.transposed:  # whose border meets less than the kernel: see test_border.py
        before = Affine(before.scale, torch.zeros_like(before.shift))
    assert_exact(layer, fold_before, before, layer.run(mapped(layer.x, before), layer.weight, layer.bias))


@pytest.mark.parametrize("fold", [fold_after, fold_before])
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@EVERY
def test_each_result_is_rounded_once(fold: Any, kind: Kind, dtype: torch.dtype) -> None:
    """PEERS, folding: bf16 weights folded in bf16 (an error of 0.016 became 0.12)."""
    layer = Layer(kind, dtype)
    beside = layer.affine(kind.out if fold is fold_after else kind.into)
    folded = fold(layer.weight, layer.bias, beside, **layer.options)
    exact = fold(layer.weight.double(), layer.bias.double(), beside, **layer.options)
    for one, other in zip(folded, exact, strict=True):
        assert torch.equal(one, other.to(dtype))


def test_the_bias_keeps_a_dtype_of_its_own() -> None:
    weight, bias = torch.ones(2, 2, dtype=torch.bfloat16), torch.full((2,), 1 / 3)
    assert fold_after(weight, bias, Affine.identity(2))[1].dtype is torch.float32
    assert torch.equal(fold_before(weight, bias, Affine.identity(2))[1], bias)


@EVERY
def test_the_identity_changes_no_bit(kind: Kind) -> None:
    layer = Layer(kind, torch.float16)
    for fold, channels in ((fold_after, kind.out), (fold_before, kind.into)):
        weight, bias = fold(layer.weight, layer.bias, Affine.identity(channels), **layer.options)
        assert torch.equal(weight, layer.weight)
        assert torch.equal(bias, layer.bias)


def test_what_is_folded_is_left_alone_and_no_gradient_follows() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 2, 3, 3).to(memory_format=torch.channels_last))
    folded, bias = fold_after(weight, None, affine([2.0] * 4, [1.0] * 4))
    assert not folded.requires_grad
    assert not bias.requires_grad
    assert folded.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, torch.ones(4, 2, 3, 3))
    assert torch.equal(folded, 2 * weight)


@pytest.mark.parametrize("given", ["weight and bias", "weight", "bias", "neither"])
def test_affine_of_is_the_references_inference_map(given: str) -> None:
    """PEERS, folding: `affine=False` without a guard."""
    draw = np.random.default_rng(0)
    mean, variance = draw.normal(3, 1, 7), draw.uniform(0.1, 2, 7)
    weight = draw.normal(0, 1, 7) if "weight" in given else None
    bias = draw.normal(0, 1, 7) if "bias" in given else None
    found = affine_of(
        *(None if part is None else torch.from_numpy(part) for part in (mean, variance, weight, bias)), 1e-3
    )
    scale, shift = inference_map(mean, variance, weight, bias, eps=1e-3)
    # a sum, a root, a quotient and a product, on both sides, and for the shift another product and a sum
    u = UNIT[torch.float64]
    assert_within(found.scale, scale, 8 * u * np.abs(scale), "scale")
    assert_within(found.shift, shift, 12 * u * (np.abs(mean * scale) + np.abs(shift)), "shift")


def test_affine_of_takes_half_statistics_in_float64() -> None:
    half = torch.tensor([1 / 3], dtype=torch.bfloat16)
    wide = half.double()
    found, exact = affine_of(half, half, half, half, 1e-5), affine_of(wide, wide, wide, wide, 1e-5)
    assert torch.equal(found.scale, exact.scale)
    assert torch.equal(found.shift, exact.shift)


def test_two_maps_are_one() -> None:
    one, other = affine([2.0, 3.0], [1.0, -1.0]), affine([0.5, -4.0], [8.0, 2.0])
    x = torch.tensor([[5.0, 7.0]], dtype=torch.float64)
    assert torch.equal(mapped(x, one.then(other)), mapped(mapped(x, one), other))
    assert torch.equal(one.then(Affine.identity(2)).shift, one.shift)


def test_a_float64_weight_errs_by_a_rounding_or_two() -> None:
    layer = Layer(Kind(2, False, 2, 4, 6), torch.float64)
    after = layer.affine(6)
    weight, _ = fold_after(layer.weight, layer.bias, after, groups=2)
    expected = (after.scale.numpy().astype(np.longdouble)[:, None, None, None]) * layer.weight.numpy()
    assert_within(weight, expected.astype(np.float64), rounded(expected, torch.float64), "weight")


BAD = [
    (lambda: fold_after(torch.ones(4, 3), None, Affine.identity(3)), ShapeError, "go out, 4, but has 3"),
    (lambda: fold_before(torch.ones(4, 3), None, Affine.identity(4)), ShapeError, "go in, 3, but has 4"),
    (
        lambda: fold_after(torch.ones(4, 3, 2), None, Affine.identity(4), groups=2, transposed=True),
        ShapeError,
        "go out, 6, but has 4",
    ),
    (lambda: fold_after(torch.ones(4, 3), torch.ones(3), Affine.identity(4)), ShapeError, "4 channels out"),
    (lambda: fold_after(torch.ones(4), None, Affine.identity(4)), ShapeError, "an axis out and an axis in"),
    (
        lambda: fold_after(torch.ones(4, 3), None, Affine.identity(4), groups=3),
        ShapeError,
        "must divide the 4",
    ),
    (
        lambda: fold_after(torch.ones(4, 3), None, Affine.identity(4), groups=0),
        ShapeError,
        "must divide the 4",
    ),
    (
        lambda: fold_after(torch.ones(4, 3, dtype=torch.int8), None, Affine.identity(4)),
        DtypeError,
        "weight must be floating point",
    ),
    (
        lambda: fold_after(torch.ones(1, 3), torch.ones(1, dtype=torch.int8), Affine.identity(1)),
        DtypeError,
        "bias must be floating point",
    ),
    (
        lambda: fold_after(torch.ones(2, 2), None, affine([1.0, float("nan")], [0.0, 0.0])),
        OptionError,
        "must be finite, but in channel 1 are nan",
    ),
    (
        lambda: fold_after(torch.full((1, 1), 6e4, dtype=torch.float16), None, affine([2.0], [0.0])),
        OptionError,
        "folded weight must fit in torch.float16",
    ),
    (
        lambda: fold_after(torch.ones(1, 1, dtype=torch.float16), None, affine([1.0], [1e5])),
        OptionError,
        "folded bias must fit in torch.float16",
    ),
    (lambda: affine([1.0], [1.0]).then(affine([1.0, 1.0], [1.0, 1.0])), ShapeError, "but have 1 and 2"),
    (lambda: Affine(torch.ones(2), torch.ones(2)), DtypeError, "scale must be float64"),
    (lambda: Affine(torch.ones(2).double(), torch.ones(1).double()), ShapeError, r"must both be \(C,\)"),
    (lambda: affine_of(torch.ones(2), torch.ones(3), None, None, 0.1), ShapeError, "variance must be one"),
    (
        lambda: affine_of(torch.ones(2), torch.ones(2), None, torch.ones(1), 0.1),
        ShapeError,
        "bias must be one",
    ),
    (
        lambda: affine_of(torch.ones(2), torch.tensor([1.0, 0.0]), None, None, 0.0),
        OptionError,
        "above 0 in every channel, but is 0.0 in channel 1",
    ),
    (
        lambda: affine_of(torch.tensor([float("nan")]), torch.ones(1), None, None, 0.1),
        OptionError,
        "must be finite, but in channel 0",
    ),
]


@pytest.mark.parametrize(("call", "kind", "says"), BAD, ids=[says for _, _, says in BAD])
def test_an_error_says_what_must_hold(call: Any, kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        call()


def test_a_weight_that_is_not_finite_already_is_no_reason_to_refuse() -> None:
    weight = torch.tensor([[float("inf")], [1.0]])
    assert fold_after(weight, None, affine([2.0, 2.0], [0.0, 0.0]))[0].tolist() == [[float("inf")], [2.0]]


def test_no_channels() -> None:
    weight, bias = fold_after(torch.ones(0, 3), None, Affine.identity(0))
    assert (weight.shape, bias.shape) == ((0, 3), (0,))
