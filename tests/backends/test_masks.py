"""One bit per element instead of the residual: packed and unpacked by every backend alike."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from normwright.backends import eager, masks

OPERATORS = torch.ops.normwright

SHAPES = [(2, 6, 5, 7), (2, 6, 9, 11), (3, 8, 1, 1), (2, 5, 3), (2, 16, 4, 4, 4), (4, 12)]
ACTIVATIONS = ("relu", "leaky_relu")


def draw(shape, layout, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if layout == "channels-last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.repeat_interleave(2, -1)[..., ::2] if layout == "sliced" else x


LAYOUTS = ("contiguous", "channels-last", "sliced")


def orders(x):
    return {
        "channels": masks.channels_order(x),
        "groups": masks.groups_order(x, 1),
        "rows": masks.rows_order(x, x.dim() - 1),
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_unpack_undoes_pack(shape, layout):
    x = draw(shape, layout)
    for order in orders(x).values():
        mask = masks.pack(x > 0, order)
        assert mask.dtype == torch.uint8
        assert tuple(mask.shape) == masks.mask_shape(x, order)
        assert torch.equal(masks.unpack(mask, x, order), x > 0)


def forward_and_settings(family, x, residual, activation):
    parameter_shape = x.shape[1:] if family == "rows" else x.shape[1:2]
    weight, bias = torch.ones(parameter_shape), torch.zeros(parameter_shape)
    between = {"rows": (x.dim() - 1, True), "groups": (1, True), "channels": (None, None, None, 0.1)}[family]
    return (x, residual, weight, bias, *between, 1e-5, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("family", ["rows", "groups", "channels"])
def test_the_operator_keeps_the_sign_of_what_it_activates(family, shape, layout, activation):
    """Of every element whose sign rounding cannot turn; and eager's mask is the same."""
    x, residual = draw(shape, layout), draw(shape, layout, seed=1)
    call = forward_and_settings(family, x, residual, activation)
    y, *_, mask = getattr(OPERATORS, f"{family}_forward_masked")(*call)
    *_, expected = getattr(eager, f"{family}_forward_masked")(*call)
    assert mask.shape == expected.shape
    order = orders(x)[family]
    clear = y.abs() > 1e-5 if activation == "leaky_relu" else torch.ones_like(y, dtype=torch.bool)
    assert torch.equal(masks.unpack(mask, x, order)[clear], (y > 0)[clear])
    assert torch.equal(masks.unpack(mask, x, order)[clear], masks.unpack(expected, x, order)[clear])


def test_a_masked_activation_does_not_keep_the_residual():
    from normwright.functional import batch_norm

    x, residual = (torch.randn(8, 4, 16, 16, requires_grad=True) for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        batch_norm(x, None, None, training=True, residual=residual, activation="relu")
    assert all(t.data_ptr() != residual.data_ptr() for t in kept if t is not None)
    assert sum(t.numel() * t.element_size() for t in kept) < 1.1 * x.numel() * x.element_size()


@pytest.mark.parametrize("family", ["channels", "groups", "rows"])
def test_a_compiler_may_lay_x_out_anew_before_it_gives_it_back_as_it_was(family):
    """Inductor makes convolutions channels-last, and asks for the backward's sizes with such an x."""
    settings, parameter = {
        "channels": ((None, None, None, 0.1, 1e-5, "relu"), 4),
        "groups": ((2, True, 1e-5, "relu"), 4),
        "rows": ((3, True, 1e-5, "relu"), (4, 7, 7)),
    }[family]
    kept = ("relu",) if family == "channels" else (settings[0], True, "relu")
    with FakeTensorMode():
        x, weight = torch.empty(3, 4, 7, 7), torch.empty(parameter)
        forward = getattr(OPERATORS, f"{family}_forward_masked")
        y, moments, mask = forward(x, torch.empty_like(x), weight, weight, *settings)
        anew = x.to(memory_format=torch.channels_last)
        backward = getattr(OPERATORS, f"{family}_backward")
        assert backward(y, anew, None, weight, weight, mask, moments, *kept, 15)[0].shape == x.shape


@pytest.mark.parametrize("family", ["groups", "channels"])
def test_the_fake_knows_the_mask_of_an_empty_batch(family):
    """Which counts as contiguous, whatever its strides."""

    def mask_of():
        x = torch.empty(0, 9, 9, 4).permute(0, 3, 1, 2)
        call = forward_and_settings(family, x, x, "relu")
        return getattr(OPERATORS, f"{family}_forward_masked")(*call)[-1]

    with FakeTensorMode():
        fake = mask_of()
    assert mask_of().shape == fake.shape
