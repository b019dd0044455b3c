"""`out=`: the result takes the place of another tensor, the input itself if wished."""

import pytest
import torch

from normwright import functional as F
from normwright.errors import OptionError, ShapeError

OPERATORS = torch.ops.normwright
NAMES = ("weight", "bias", "mean", "variance")

CALLS = {
    "batch": lambda x, **kw: F.batch_norm(x, torch.full((6,), 0.5), torch.full((6,), 2.0), **kw),
    "layer": lambda x, **kw: F.layer_norm(x, x.shape[1:], **kw),
    "rms": lambda x, **kw: F.rms_norm(x, x.shape[1:], **kw),
    "group": lambda x, **kw: F.group_norm(x, 3, **kw),
    "instance": lambda x, **kw: F.instance_norm(x, **kw),
}


def draw(layout):
    x = torch.randn(2, 6, 9, 10, generator=torch.Generator().manual_seed(0))
    if layout == "channels-last":
        return x.contiguous(memory_format=torch.channels_last)
    return x.transpose(2, 3) if layout == "transposed" else x


@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "transposed"])
@pytest.mark.parametrize("kind", CALLS)
def test_in_place_is_the_same_to_the_bit(kind, layout):
    x = draw(layout)
    residual = torch.ones_like(x)
    expected = CALLS[kind](x, residual=residual, activation="silu")
    assert CALLS[kind](x, residual=residual, activation="silu", out=x) is x
    assert torch.equal(x, expected)


@pytest.mark.parametrize("kind", CALLS)
def test_another_tensor_in_another_order(kind):
    x, out = draw("contiguous"), draw("channels-last").zero_()
    before = x.clone()
    assert CALLS[kind](x, out=out) is out
    torch.testing.assert_close(out, CALLS[kind](x), rtol=1e-6, atol=1e-6)
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", CALLS)
def test_not_where_a_gradient_is_wanted(kind):
    x = draw("contiguous").requires_grad_()
    with pytest.raises(OptionError, match="no gradient is wanted"):
        CALLS[kind](x, out=torch.empty_like(x))
    with torch.no_grad():
        CALLS[kind](x, out=torch.empty_like(x))


@pytest.mark.parametrize("kind", CALLS)
def test_only_a_tensor_like_the_input(kind):
    x = draw("contiguous")
    for out in (x[:1].clone(), x.double()):
        with pytest.raises(ShapeError, match="out must be like the input"):
            CALLS[kind](x, out=out)


def test_not_in_training():
    x = draw("contiguous")
    with pytest.raises(OptionError, match="must be None in training"):
        F.batch_norm(x, None, None, training=True, out=x)
    with pytest.raises(OptionError, match="running statistics are moved"):
        F.instance_norm(x, torch.zeros(6), torch.ones(6), out=x)


def test_not_into_a_tensor_that_wants_a_gradient():
    x, out = draw("contiguous"), draw("contiguous").requires_grad_()
    with pytest.raises(OptionError, match="no gradient is wanted"):
        F.group_norm(x, 3, out=out)


def test_who_saved_the_input_is_told():
    leaf = draw("contiguous").requires_grad_()
    x = leaf * 1
    y = F.group_norm(x, 3)
    F.group_norm(x.detach(), 3, out=x.detach())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("kind", CALLS)
def test_a_shifted_part_of_the_input(kind):
    base = torch.randn(3, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = CALLS[kind](base[:2].clone())
    assert torch.equal(CALLS[kind](base[:2], out=base[1:]), expected)


@pytest.mark.parametrize("kind", CALLS)
def test_an_expanded_tensor_is_refused(kind):
    x = draw("contiguous")
    for axis in range(x.dim()):
        out = x.narrow(axis, 0, 1).clone().expand_as(x)
        before = out.clone()
        with pytest.raises(ShapeError, match=r"out must have memory for each element.*use its clone\(\)"):
            CALLS[kind](x, out=out)
        assert torch.equal(out, before)
    one = x[:1]
    CALLS[kind](one, out=torch.empty(x.shape[1:]).expand_as(one))  # one sample is not expanded


@pytest.mark.parametrize("kind", ["layer", "group"])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_in_a_compiled_function_of_any_size(kind, layout):
    compiled = torch.compile(CALLS[kind], fullgraph=True, dynamic=True, backend="eager")
    x = draw(layout)
    with torch.no_grad():
        assert torch.equal(compiled(x, out=torch.empty_like(x)), CALLS[kind](x))
        expanded = x[:1].clone().expand_as(x)
        with pytest.raises(RuntimeError, match="out must have memory for each element"):
            compiled(x, out=expanded)


@pytest.mark.parametrize("name", NAMES)
def test_into_the_memory_of_a_parameter(name):
    """What is written for one channel must not be what the next one is multiplied by."""
    x = draw("contiguous")
    given = {each: torch.full((6,), value) for each, value in zip(NAMES, (2.0, 3.0, 0.5, 4.0), strict=True)}
    expected = OPERATORS.channel_affine(x, None, *given.values(), 1e-5, None)
    out = torch.empty_like(x)
    given[name] = out.view(-1)[:6].copy_(given[name])
    OPERATORS.channel_affine_out(x, None, *given.values(), 1e-5, None, out)
    assert torch.equal(out, expected)
