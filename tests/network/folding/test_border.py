"""An affine map before a zero-padded convolution: exact where its shift ends at the border."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import onnxruntime
import pytest
import torch
from layers import mapped, spread
from tolerances import UNIT, assert_within, depth
from torch import Tensor, nn

from normwright.errors import OptionError, ShapeError
from normwright.network.calling import call_of
from normwright.network.folding.affine import Affine
from normwright.network.folding.algebra import fold_before
from normwright.network.folding.border import shift_of
from normwright.network.folding.layers import layer_of
from normwright.network.folding.shifted_convolution import ShiftedConv2d, shift_by
from normwright.network.trace import trace

# PyTorch's exporter uses what PyTorch deprecates.
EXPORTS = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

SPACE = (6, 5, 4)


def affine(channels: int) -> Affine:
    draw = torch.Generator().manual_seed(1)
    scale = torch.rand(channels, generator=draw, dtype=torch.float64) + 0.5
    scale[1] = 0.0  # its shift is all that is left of a channel
    return Affine(-scale, torch.rand(channels, generator=draw, dtype=torch.float64) + 1)


def image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def fold(convolution: nn.Module, before: Affine) -> nn.Module:
    """The convolution with the map before it folded in, and its shift where that is no bias."""
    folded = copy.deepcopy(convolution)
    groups, transposed = convolution.groups, convolution.transposed
    if convolution.padding_mode == "zeros" and any(convolution._reversed_padding_repeated_twice):
        shift_by(folded, shift_of(convolution.weight, before, groups=groups))
        before = Affine(before.scale, torch.zeros_like(before.shift))
    weight, bias = fold_before(
        convolution.weight, convolution.bias, before, groups=groups, transposed=transposed
    )
    folded.weight, folded.bias = nn.Parameter(weight), nn.Parameter(bias)
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
    (2, {"kernel_size": 9, "padding": 5, "stride": 3}),  # wider than the image
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
    x, before = image(2, 4, *[7] * space), affine(4)
    [seen] = filter(None, map(layer_of, trace(layer, call_of(x)).graph.nodes))
    assert seen.sums_whole_kernel is whole
    expected = layer(mapped(x, before)).detach()
    weight, bias = fold_before(layer.weight, layer.bias, before, groups=2, transposed=True)
    with torch.no_grad():
        layer.weight.copy_(weight), layer.bias.copy_(bias)
    error = float((layer(x).detach() - expected).abs().max())
    assert (error <= float(bound(layer, x, before).max())) is whole


def test_the_memory_format_stays_and_gradients_flow() -> None:
    convolution, x = shifted_convolution(), image(2, 3, 4, 5).float()
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    y = convolution(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    plain = nn.Conv2d(3, 4, 3, padding=1)
    plain.weight = convolution.weight
    (expected,) = torch.autograd.grad(plain(x).sum(), x)
    torch.testing.assert_close(x.grad, expected)
    assert convolution.bias.grad is not None


def test_it_goes_through_vmap() -> None:
    convolution, x = shifted_convolution(), image(3, 2, 3, 4, 5).float()
    together = torch.func.vmap(convolution)(x)
    torch.testing.assert_close(together, torch.stack([convolution(one) for one in x]))


def shift_like(convolution: nn.Module) -> Tensor:
    shape = (convolution.out_channels, 1, *convolution.kernel_size)
    return torch.arange(1.0, 1 + math.prod(shape)).view(shape) / 8


def shifted_convolution() -> nn.Module:
    convolution = spread(nn.Conv2d(3, 4, 3, padding=1))
    shift_by(convolution, shift_like(convolution))
    return convolution


def test_parameters_hooks_and_references_stay() -> None:
    convolution = spread(nn.Conv2d(3, 4, 3, padding="same"))
    parameters, seen = dict(convolution.named_parameters()), []
    convolution.register_forward_hook(lambda *_: seen.append(1))
    shift_by(convolution, shift_like(convolution))
    assert isinstance(convolution, nn.Conv2d)
    assert list(convolution.state_dict()) == ["weight", "bias", "shift"]
    assert all(convolution.get_parameter(name) is value for name, value in parameters.items())
    convolution(torch.ones(1, 3, 4, 4))
    assert seen == [1]


@pytest.mark.parametrize("space", [1, 2, 3])
def test_one_is_built_and_loads_the_state(space: int) -> None:
    convolution, x = spread(getattr(nn, f"Conv{space}d")(3, 4, 3, padding=1)), torch.ones(1, 3, *[4] * space)
    shift_by(convolution, shift_like(convolution))
    twin = type(convolution)(3, 4, 3, padding=1)
    twin.load_state_dict(convolution.state_dict())
    assert torch.equal(twin(x), convolution(x))
    plain = spread(getattr(nn, f"Conv{space}d")(3, 4, 3, padding=1))
    fresh = type(convolution)(3, 4, 3, padding=1)
    fresh.load_state_dict({**plain.state_dict(), "shift": torch.zeros_like(fresh.shift)})
    torch.testing.assert_close(fresh(x), plain(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies(copied) -> None:
    convolution, x = shifted_convolution(), torch.ones(1, 3, 4, 4)
    twin = copied(convolution)
    assert type(twin) is ShiftedConv2d
    assert torch.equal(twin(x), convolution(x))


def test_compiles_whole_and_traces() -> None:
    convolution, x = shifted_convolution(), image(1, 3, 4, 4).float()
    compiled = torch.compile(convolution, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), convolution(x))
    assert torch.equal(torch.fx.symbolic_trace(nn.Sequential(convolution))(x), convolution(x))


@EXPORTS
def test_exports_to_onnx(tmp_path) -> None:
    convolution, x = shifted_convolution().eval(), image(2, 3, 6, 7).float()
    session = onnx_session(convolution, x, tmp_path)
    actual = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    # two orders of the same sum of 27 products, 9 shifts and a bias in float32
    sizes = convolution.weight.detach().abs().sum((1, 2, 3)) * float(x.abs().max())
    sizes += convolution.shift.abs().sum((1, 2, 3)) + convolution.bias.detach().abs()
    with torch.no_grad():
        error = (actual - convolution(x)).abs().amax((0, 2, 3))
    assert (error <= 2 * 37 * UNIT[torch.float32] * sizes).all()


def onnx_session(module: nn.Module, x: Tensor, folder) -> onnxruntime.InferenceSession:
    torch.onnx.export(module, (x,), folder / "module.onnx", dynamo=True, verbose=False)
    return onnxruntime.InferenceSession(folder / "module.onnx")


class OwnPadding(nn.Conv2d):
    pass


ONES = torch.ones(4, 1, 3, 3)


@pytest.mark.parametrize(
    ("convolution", "shift", "kind", "says"),
    [
        (OwnPadding(3, 4, 3, padding=1), ONES, OptionError, "exactly one of .* but is OwnPadding"),
        (nn.ConvTranspose2d(3, 4, 3), ONES, OptionError, "exactly one of"),
        (nn.Conv2d(3, 4, 3, padding_mode="reflect"), ONES, OptionError, "must be 'zeros'"),
        (nn.Conv2d(3, 5, 3), ONES, ShapeError, r"must be \(5, 1, 3, 3\)"),
        (nn.Conv2d(1, 4, 3, dtype=torch.float16), 1e6 * ONES, OptionError, "must fit in torch.float16"),
    ],
)
def test_bad_input_changes_nothing(convolution: nn.Module, shift: Tensor, kind: type, says: str) -> None:
    before = type(convolution)
    with pytest.raises(kind, match=says):
        shift_by(convolution, shift)
    assert type(convolution) is before
    assert not list(convolution.buffers())
