"""An affine map before a zero-padded convolution: exact where each channel is padded with its own value."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import onnxruntime
import pytest
import torch
from layers import mapped, spread
from tolerances import UNIT, assert_within, depth
from torch import Tensor, nn
from torch.nn import functional as F

from normwright.errors import OptionError, ShapeError
from normwright.network.folding.algebra import Affine, fold_before
from normwright.network.folding.padded_convolution import ChannelPaddedConv2d, pad_with
from normwright.network.folding.padding import (
    meets_whole_kernel,
    pad_by_channel,
    padding_amounts,
    zero_points,
)

# PyTorch's exporter uses what PyTorch deprecates.
EXPORTS = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

SPACE = (6, 5, 4)


def affine(channels: int) -> Affine:
    draw = torch.Generator().manual_seed(1)
    scale = torch.rand(channels, generator=draw, dtype=torch.float64) + 0.5
    return Affine(-scale, torch.rand(channels, generator=draw, dtype=torch.float64) + 1)


def image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def fold(convolution: nn.Module, before: Affine) -> nn.Module:
    """The convolution with the map before it folded in, and its padding where it needs any."""
    folded = copy.deepcopy(convolution)
    groups, transposed = convolution.groups, convolution.transposed
    weight, bias = fold_before(
        convolution.weight, convolution.bias, before, groups=groups, transposed=transposed
    )
    folded.weight, folded.bias = nn.Parameter(weight), nn.Parameter(bias)
    if not meets_whole_kernel(convolution):
        pad_with(folded, zero_points(before))
    return folded


def bound(convolution: nn.Module, x: Tensor, before: Affine) -> np.ndarray:
    """Both sides are sums of at most `terms` products, each with 6 roundings besides."""
    absolute = copy.deepcopy(convolution)
    with torch.no_grad():
        for parameter in absolute.parameters():
            parameter.abs_()
        # nothing is larger than the map's largest value, at the border too
        size = mapped(x.abs(), Affine(before.scale.abs(), before.shift.abs()))
        sizes = absolute(size.amax().expand_as(size)) + absolute(2 * size.amax().expand_as(size))
    terms = convolution.weight[0].numel() + 1
    return 2 * (depth(terms) + 6) * UNIT[torch.float64] * sizes.amax().expand_as(sizes).numpy()


CONVOLUTIONS = [
    (1, {"kernel_size": 3, "padding": 1}),
    (1, {"kernel_size": 4, "padding": "same"}),
    (2, {"kernel_size": 3, "padding": 1}),
    (2, {"kernel_size": 3, "padding": 1, "stride": 2, "groups": 2}),
    (2, {"kernel_size": (2, 5), "padding": "same", "dilation": (3, 1)}),
    (2, {"kernel_size": (3, 1), "padding": (2, 0), "groups": 4, "bias": False}),
    (2, {"kernel_size": 3, "padding": "valid"}),
    (2, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
    (2, {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"}),
    (2, {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}),
    (3, {"kernel_size": 3, "padding": (1, 0, 2)}),
    (3, {"kernel_size": 2, "padding": "same"}),
]


def convolution_of(space: int, options: dict) -> nn.Module:
    return spread(getattr(nn, f"Conv{space}d")(4, 8, dtype=torch.float64, **options))


@pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel"
)  # PyTorch's own way is the slow one
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "no batch"])
@pytest.mark.parametrize(("space", "options"), CONVOLUTIONS, ids=str)
def test_a_map_before_a_convolution_is_exact(space: int, options: dict, batched: bool) -> None:
    """PEERS, folding: norm before convolution is refused wherever there is zero padding."""
    convolution, before = convolution_of(space, options), affine(4)
    x = image(2, 4, *SPACE[:space])
    expected, limit = convolution(mapped(x, before)), bound(convolution, x, before)
    folded = fold(convolution, before)
    if batched:
        assert_within(folded(x), expected.detach().numpy(), limit, "output")
    else:
        assert_within(folded(x[0]), expected[0].detach().numpy(), limit[0], "output")


@pytest.mark.parametrize(
    ("options", "whole"),
    [
        ({"kernel_size": 1}, True),
        ({"kernel_size": 3, "padding": 2}, True),
        ({"kernel_size": 3, "padding": 4, "dilation": 2}, True),
        ({"kernel_size": 3, "padding": 1}, False),
        ({"kernel_size": 3, "padding": 2, "dilation": 2}, False),
        ({"kernel_size": 1, "stride": 2}, False),
        ({"kernel_size": 2, "stride": 2}, False),
        ({"kernel_size": 3, "padding": 2, "stride": 2, "output_padding": 1}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("space", [1, 2, 3])
def test_a_transposed_convolution_is_exact_where_it_crops_what_meets_less(
    space: int, options: dict, whole: bool
) -> None:
    layer = spread(getattr(nn, f"ConvTranspose{space}d")(4, 6, groups=2, dtype=torch.float64, **options))
    assert meets_whole_kernel(layer) is whole
    x, before = image(2, 4, *[7] * space), affine(4)
    expected = layer(mapped(x, before)).detach()
    weight, bias = fold_before(layer.weight, layer.bias, before, groups=2, transposed=True)
    with torch.no_grad():
        layer.weight.copy_(weight), layer.bias.copy_(bias)
    error = float((layer(x).detach() - expected).abs().max())
    assert (error <= float(bound(layer, x, before).max())) is whole


def test_linear_layers_meet_all() -> None:
    assert meets_whole_kernel(nn.Linear(2, 3))
    with pytest.raises(OptionError, match="must be a convolution or linear, but is ReLU"):
        meets_whole_kernel(nn.ReLU())


def test_the_amounts_are_pytorchs() -> None:
    for space, options in CONVOLUTIONS:
        convolution = convolution_of(space, options)
        flat = [amount for pair in reversed(padding_amounts(convolution)) for amount in pair]
        assert flat == list(convolution._reversed_padding_repeated_twice)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_padding_by_channel_is_exact_and_keeps_the_memory_format(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    x = image(2, 3, 4, 5).to(dtype).contiguous(memory_format=memory_format).requires_grad_()
    value = torch.tensor([1.5, -2.0, 1e4])
    padded = pad_by_channel(x, ((1, 0), (2, 3)), value)
    assert padded.is_contiguous(memory_format=memory_format)
    for channel in range(3):
        expected = F.pad(x[:, channel], (2, 3, 1, 0), value=float(value[channel]))
        assert torch.equal(padded[:, channel], expected)
    padded.square().sum().backward()
    assert torch.equal(x.grad, 2 * x)


def test_padding_goes_through_vmap() -> None:
    x, value = image(3, 2, 4, 5), torch.ones(2, dtype=torch.float64)
    padded = torch.func.vmap(lambda one: pad_by_channel(one, ((1, 1), (1, 1)), value))(x)
    assert torch.equal(padded, pad_by_channel(x, ((1, 1), (1, 1)), value))


def test_zero_points() -> None:
    found = zero_points(Affine(*(torch.tensor(v).double() for v in ([2.0, -4.0, 0.0], [1.0, 1.0, 0.0]))))
    assert found.tolist() == [-0.5, 0.25, 0.0]
    with pytest.raises(OptionError, match=r"must not be 0, but it is in channel 1, whose shift is 3\.0"):
        zero_points(Affine(*(torch.tensor(v).double() for v in ([1.0, 0.0], [0.0, 3.0]))))


def padded_convolution() -> nn.Module:
    convolution = spread(nn.Conv2d(3, 4, 3, padding=1))
    pad_with(convolution, torch.tensor([1.0, 2.0, 3.0]))
    return convolution


def test_parameters_hooks_and_references_stay() -> None:
    convolution = spread(nn.Conv2d(3, 4, 3, padding="same"))
    parameters, seen = dict(convolution.named_parameters()), []
    convolution.register_forward_hook(lambda *_: seen.append(1))
    pad_with(convolution, torch.tensor([1.0, 2.0, 3.0]))
    assert isinstance(convolution, nn.Conv2d)
    assert list(convolution.state_dict()) == ["weight", "bias", "padding_value"]
    assert all(convolution.get_parameter(name) is value for name, value in parameters.items())
    convolution(torch.ones(1, 3, 4, 4))
    assert seen == [1]


@pytest.mark.parametrize("space", [1, 2, 3])
def test_one_is_built_and_loads_the_state(space: int) -> None:
    convolution, x = spread(getattr(nn, f"Conv{space}d")(3, 4, 3, padding=1)), torch.ones(1, 3, *[4] * space)
    pad_with(convolution, torch.tensor([1.0, 2.0, 3.0]))
    twin = type(convolution)(3, 4, 3, padding=1)
    twin.load_state_dict(convolution.state_dict())
    assert torch.equal(twin(x), convolution(x))
    plain = spread(getattr(nn, f"Conv{space}d")(3, 4, 3, padding=1))
    fresh = type(convolution)(3, 4, 3, padding=1)
    fresh.load_state_dict({**plain.state_dict(), "padding_value": torch.zeros(3)})
    torch.testing.assert_close(fresh(x), plain(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies(copied) -> None:
    convolution, x = padded_convolution(), torch.ones(1, 3, 4, 4)
    twin = copied(convolution)
    assert type(twin) is ChannelPaddedConv2d
    assert torch.equal(twin(x), convolution(x))


def test_compiles_whole_and_traces() -> None:
    convolution, x = padded_convolution(), image(1, 3, 4, 4).float()
    compiled = torch.compile(convolution, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), convolution(x))
    assert torch.equal(torch.fx.symbolic_trace(nn.Sequential(convolution))(x), convolution(x))


@EXPORTS
def test_exports_to_onnx(tmp_path) -> None:
    convolution, x = padded_convolution().eval(), image(2, 3, 6, 7).float()
    session = onnx_session(convolution, x, tmp_path)
    actual = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    # two orders of the same sum of 27 products and a bias in float32
    largest = max(float(x.abs().max()), float(convolution.padding_value.max()))
    sizes = convolution.weight.detach().abs().sum((1, 2, 3)) * largest + convolution.bias.detach().abs()
    with torch.no_grad():
        error = (actual - convolution(x)).abs().amax((0, 2, 3))
    assert (error <= 2 * 28 * UNIT[torch.float32] * sizes).all()


def onnx_session(module: nn.Module, x: Tensor, folder) -> onnxruntime.InferenceSession:
    torch.onnx.export(module, (x,), folder / "module.onnx", dynamo=True, verbose=False)
    return onnxruntime.InferenceSession(folder / "module.onnx")


class OwnPadding(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    ("convolution", "value", "kind", "says"),
    [
        (OwnPadding(3, 4, 3, padding=1), torch.ones(3), OptionError, "exactly one of .* but is OwnPadding"),
        (nn.ConvTranspose2d(3, 4, 3), torch.ones(3), OptionError, "exactly one of"),
        (nn.Conv2d(3, 4, 3, padding_mode="reflect"), torch.ones(3), OptionError, "must be 'zeros'"),
        (nn.Conv2d(3, 4, 3), torch.ones(4), ShapeError, "3 channels in"),
        (
            nn.Conv2d(1, 4, 3, dtype=torch.float16),
            torch.full((1,), 1e6),
            OptionError,
            "must fit in torch.float16",
        ),
    ],
)
def test_bad_input_changes_nothing(convolution: nn.Module, value: Tensor, kind: type, says: str) -> None:
    before = type(convolution)
    with pytest.raises(kind, match=says):
        pad_with(convolution, value)
    assert type(convolution) is before
    assert not list(convolution.buffers())
