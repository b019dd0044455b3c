"""Normalisers are placed in networks that nobody here wrote."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

import normwright.nn as fused
from normwright.errors import OptionError
from normwright.lab.placement import Placement, place


class Strange(nn.Module):
    """As users write them: normalisers of four kinds, one shared, a container, and keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.late = nn.LayerNorm(8)  # registered before what comes earlier in the forward
        self.convolutions = nn.ModuleList([nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
        self.norms = nn.ModuleList([nn.SyncBatchNorm(8), nn.GroupNorm(2, 8)])
        self.again = self.norms[1]
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(input=convolution(x)).relu()
        x = self.dropout(self.again(x)).mean((2, 3))
        result: Tensor = self.head(self.late(x))
        return result


EXAMPLE = torch.zeros(2, 1, 6, 6)
STRANGE_PLACES = ("norms.0", "norms.1", "late")


@pytest.mark.parametrize(
    ("norm", "kinds"),
    [
        ("none", (nn.Identity, nn.Identity, nn.Identity)),
        ("batch", (fused.BatchNorm2d, fused.BatchNorm2d, fused.BatchNorm1d)),
        ("layer", (fused.LayerNorm, fused.LayerNorm, fused.LayerNorm)),
        ("rms", (fused.RMSNorm, fused.RMSNorm, fused.RMSNorm)),
        ("group", (fused.GroupNorm, fused.GroupNorm, fused.GroupNorm)),
        ("instance", (fused.InstanceNorm2d, fused.InstanceNorm2d, nn.Identity)),
        ("lrn", (fused.LocalResponseNorm, fused.LocalResponseNorm, nn.Identity)),
        ("renorm", (fused.BatchRenorm2d, fused.BatchRenorm2d, fused.BatchRenorm1d)),
        ("ghost", (fused.GhostBatchNorm2d, fused.GhostBatchNorm2d, fused.GhostBatchNorm1d)),
        ("frn", (fused.FilterResponseNorm, fused.FilterResponseNorm, nn.Identity)),
        ("dyt", (fused.DynamicTanh, fused.DynamicTanh, fused.DynamicTanh)),
        ("weight", (nn.Identity, nn.Identity, nn.Identity)),
        ("ws", (fused.GroupNorm, fused.GroupNorm, nn.Identity)),
    ],
)
def test_places_in_a_network_of_the_user(norm: str, kinds: tuple[type, ...]) -> None:
    network = Strange()
    placement = place(network, norm, EXAMPLE, groups=8)
    # The last has no layer right before it: the dropout's input is the second normaliser's.
    left_out = ("late",) if norm in ("instance", "lrn", "frn", "weight", "ws") else ()
    assert placement == Placement(STRANGE_PLACES, left_out)
    assert tuple(type(network.get_submodule(name)) for name in STRANGE_PLACES) == kinds
    assert network.again is network.norms[1]
    loss = network(torch.randn(4, 1, 6, 6)).square().sum()
    loss.backward()
    assert torch.isfinite(loss)


def state_of(network: nn.Module) -> tuple[list[tuple[str, type, bool]], dict[str, Tensor], Tensor, list[int]]:
    modules = [(name, type(module), module.training) for name, module in network.named_modules()]
    hooks = [len(module._forward_pre_hooks) for module in network.modules()]
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return modules, tensors, torch.get_rng_state(), hooks


def assert_unchanged(network: nn.Module, before: tuple[object, ...], act: Callable[[], object]) -> None:
    act()
    after = state_of(network)
    assert before[0] == after[0]
    assert before[3] == after[3]
    torch.testing.assert_close((before[1], before[2]), (after[1], after[2]), rtol=0, atol=0)


class FailsLate(Strange):
    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        raise KeyError("mine")


class NeverCalls(Strange):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.BatchNorm1d(3)
        self.other_spare = nn.LayerNorm(3)


class SharedOverSizes(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.norm(x)
        second: Tensor = self.norm(self.dropout(x)[..., 1:])
        return first[..., 1:] + second


FAILURES = [
    (FailsLate(), "batch", KeyError, "mine"),
    (NeverCalls(), "batch", OptionError, r"never\s+calls spare, other_spare: "),
    (NeverCalls(), "none", OptionError, r"never\s+calls spare, other_spare: "),
    (SharedOverSizes(nn.BatchNorm2d(1)), "layer", OptionError, r"'norm'.*\(2, 1, 6, 6\), \(2, 1, 6, 5\)"),
    (SharedOverSizes(nn.BatchNorm2d(1)), "rms", OptionError, "one normaliser per shape"),
    (Strange(), "bacth", OptionError, "did you mean 'batch'"),
    (
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36)),
        "instance",
        OptionError,
        r"none of 1 \(inputs \(2, 36\)\)",
    ),
    (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36)), "lrn", OptionError, "leave it out for this network"),
    (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), "batch", OptionError, "holds none: put one of torch.nn"),
    (nn.Sequential(nn.Flatten(), nn.ReLU()), "none", OptionError, "holds none: put one of torch.nn"),
    (nn.BatchNorm2d(1), "layer", OptionError, r"wrap it in nn\.Sequential"),
]


@pytest.mark.parametrize(("network", "norm", "error", "message"), FAILURES)
def test_a_placement_that_fails_changes_nothing(
    network: nn.Module, norm: str, error: type[Exception], message: str
) -> None:
    network = copy.deepcopy(network)
    network.eval()
    next(network.children(), network).train()  # modes that differ within the network

    def act() -> None:
        with pytest.raises(error, match=message):
            place(network, norm, EXAMPLE, groups=8)

    assert_unchanged(network, state_of(network), act)


def test_a_placement_keeps_modes_buffers_random_state_and_hooks() -> None:
    network = Strange()
    network.eval()
    network.dropout.train()
    network.norms[1].train()
    modes = {name: module.training for name, module in network.named_modules()}
    state = torch.get_rng_state()
    place(network, "batch", EXAMPLE, groups=8)
    assert {name: network.get_submodule(name).training for name in modes} == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert network.seen == 0
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("norm", ["batch", "group", "instance", "lrn", "none"])
def test_a_normaliser_that_keeps_no_shape_serves_several(norm: str) -> None:
    network = SharedOverSizes(nn.GroupNorm(2, 4))
    placement = place(network, norm, torch.zeros(2, 4, 6, 6), groups=8)
    assert placement == Placement(("norm",), ())
    assert network(torch.randn(2, 4, 6, 6)).shape == (2, 4, 6, 5)


def test_left_out_where_one_of_several_shapes_leaves_it_undefined() -> None:
    network = SharedOverSizes(nn.BatchNorm1d(4))
    placement = place(
        nn.Sequential(network, nn.BatchNorm1d(4), nn.Flatten()), "none", torch.zeros(2, 4, 2), groups=8
    )
    assert placement.places == ("0.norm", "1")
    network = nn.Sequential(nn.BatchNorm1d(4), SharedOverSizes(nn.BatchNorm1d(4)))
    assert place(network, "instance", torch.zeros(2, 4, 2), groups=8).left_out == ("1.norm",)


def transformer(batch_first: bool = True) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first)


TOKENS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "rms", "group"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_keeps_working_in_both_modes(norm: str, batch_first: bool) -> None:
    network = transformer(batch_first)
    placement = place(network, norm, TOKENS, groups=4)
    assert len(placement.places) == 4
    assert not placement.left_out
    loss = network(TOKENS).square().sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert network.eval()(TOKENS[:, :4]).shape == (3, 4, 8)


@pytest.mark.parametrize("norm", ["none", "batch", "rms", "group"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_transformer_uses_the_new_normalisers_in_inference_too(norm: str, padded: bool) -> None:
    network = transformer()
    place(network, norm, TOKENS, groups=4)
    network.eval()
    padding = torch.zeros(3, 5, dtype=torch.bool) if padded else None
    with_gradient = network(TOKENS, src_key_padding_mask=padding)
    with torch.no_grad():  # where torch would take its fast path
        without = network(TOKENS, src_key_padding_mask=padding)
    torch.testing.assert_close(without, with_gradient)


@pytest.mark.parametrize("norm", ["instance", "lrn"])
def test_instance_norm_has_no_place_in_a_transformer(norm: str) -> None:
    with pytest.raises(OptionError, match=rf"^{norm} norm .*layers\.0\.norm1.*\(3, 5, 8\)"):
        place(transformer(), norm, TOKENS, groups=4)


def test_layer_norm_in_the_place_of_layer_norm_computes_what_was_there() -> None:
    network = transformer().eval()
    before = network(TOKENS)
    place(network, "layer", TOKENS, groups=4)
    assert type(network.layers[0].norm1) is fused.LayerNorm
    torch.testing.assert_close(network(TOKENS), before)


def test_batch_norm_in_the_place_of_layer_norm_takes_every_position_as_a_sample() -> None:
    network = nn.Sequential(nn.LayerNorm(8))
    place(network, "batch", TOKENS, groups=4)
    expected = nn.BatchNorm1d(8)(TOKENS.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(network(TOKENS), expected)


def test_group_norm_in_the_place_of_layer_norm_stays_within_a_position() -> None:
    network = nn.Sequential(nn.LayerNorm(8))
    place(network, "group", TOKENS, groups=2)
    expected = nn.functional.layer_norm(TOKENS.reshape(3, 5, 2, 4), (4,)).reshape(3, 5, 8)
    torch.testing.assert_close(network(TOKENS), expected)


class LayerNorm2d(nn.LayerNorm):
    """As torchvision's: (N, C, H, W) in and out, normalised over C."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class LayerNormInFloat(nn.LayerNorm):
    """As CLIP's: the last axis, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type_as(x)


def test_a_subclass_that_moves_the_axes_has_its_channels_second() -> None:
    network = nn.Sequential(LayerNorm2d(8))
    place(network, "batch", torch.zeros(2, 8, 5, 5), groups=4)
    assert repr(network[0]) == repr(fused.BatchNorm2d(8))


def test_a_subclass_that_does_not_has_them_last() -> None:
    network = nn.Sequential(LayerNormInFloat(8))
    place(network, "layer", TOKENS, groups=4)
    assert repr(network[0]) == repr(fused.LayerNorm(8))


def test_a_subclass_whose_channels_cannot_be_told_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"'0' \(LayerNorm2d\).*\(2, 8, 8, 8\)"):
        place(nn.Sequential(LayerNorm2d(8)), "batch", torch.zeros(2, 8, 8, 8), groups=4)


def test_a_layer_norm_of_torch_has_its_channels_last_though_other_axes_have_their_size() -> None:
    network = nn.Sequential(nn.LayerNorm(8))
    place(network, "layer", torch.zeros(2, 8, 8), groups=4)
    assert repr(network[0]) == repr(fused.LayerNorm(8))


class Switch(nn.LayerNorm):
    """A normaliser that holds another."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.inner = nn.RMSNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.inner(x)


def test_only_the_outermost_of_nested_normalisers_is_replaced() -> None:
    network = nn.Sequential(nn.Linear(8, 8), Switch(8))
    assert place(network, "batch", torch.zeros(2, 8), groups=4) == Placement(("1",), ())
    assert repr(network[1]) == repr(fused.BatchNorm1d(8))


def test_a_lazy_normaliser_takes_its_shape_from_the_example() -> None:
    network = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    place(network, "layer", EXAMPLE, groups=4)
    assert repr(network[1]) == repr(fused.LayerNorm((4, 4, 4)))


class AuxiliaryHead(nn.Module):
    """As Inception's: a head with a normaliser that acts in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.BatchNorm2d(1)
        self.auxiliary = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        result: Tensor = x + self.auxiliary(x) if self.training else x
        return result


def test_normalisers_that_act_in_training_alone_are_replaced_in_a_network_that_is_not_training() -> None:
    assert place(AuxiliaryHead().eval(), "layer", EXAMPLE, groups=4) == Placement(("body", "auxiliary"), ())


def test_the_new_normaliser_has_the_dtype_of_the_old_one() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).double()
    place(network, "layer", EXAMPLE.double(), groups=4)
    assert network[1].weight.dtype == torch.float64


def test_weight_norm_changes_what_is_trained_and_not_what_is_computed() -> None:
    torch.manual_seed(0)
    convolutions = (nn.ConvTranspose2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    bare = copy.deepcopy(network)
    place(bare, "none", EXAMPLE, groups=8)
    state = torch.get_rng_state()
    assert place(network, "weight", EXAMPLE, groups=8) == Placement(("1", "6"), ())
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.randn(3, 1, 6, 6)
    torch.testing.assert_close(network(x), bare(x))
    assert [is_parametrized(network[at]) for at in (0, 3, 5, 7)] == [True, False, True, False]
    assert network[0].parametrizations.weight.original0.shape == (1, 4, 1, 1)
    assert network[5].parametrizations.weight.original0.shape == (5, 1)


def test_a_weight_that_is_computed_already_is_left_out() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(36, 4))
    network = nn.Sequential(nn.Flatten(), layer, nn.BatchNorm1d(4), nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert place(network, "ws", EXAMPLE, groups=8).left_out == ("2",)


@pytest.mark.parametrize("norm", ["recurrent-batch", "recurrent-layer"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_recurrent_normaliser_takes_the_place_of_an_lstm(norm: str, bidirectional: bool) -> None:
    network = Sequence(bidirectional)
    weights = {name: parameter.clone() for name, parameter in network.lstm.named_parameters()}
    state = torch.get_rng_state()
    assert place(network, norm, torch.zeros(2, 7, 3), groups=8) == Placement(("norm",), ())
    assert torch.equal(torch.get_rng_state(), state)
    assert (
        type(network.lstm)
        is {"recurrent-batch": fused.BatchNormLSTM, "recurrent-layer": fused.LayerNormLSTM}[norm]
    )
    for name, weight in weights.items():
        assert torch.equal(network.lstm.get_parameter(name), weight)
    assert network(torch.randn(4, 7, 3)).shape == (4, 2)


class Sequence(nn.Module):
    def __init__(self, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.norm = nn.BatchNorm1d(10 if bidirectional else 5)
        self.head = nn.Linear(10 if bidirectional else 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        result: Tensor = self.head(self.norm(y[:, -1]))
        return result


@pytest.mark.parametrize(
    ("network", "norm", "message"),
    [
        (Sequence(False), "weight", "must have a linear or convolution layer to act on right before"),
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), "recurrent-batch", "must have an LSTM to act on"),
        (nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 4)), "ws", "has none before 0: leave it out"),
    ],
)
def test_a_network_without_the_layer_that_a_normaliser_acts_on(
    network: nn.Module, norm: str, message: str
) -> None:
    before = state_of(network)

    def act() -> None:
        with pytest.raises(OptionError, match=message):
            place(network, norm, torch.zeros(2, 7, 3), groups=8)

    assert_unchanged(network, before, act)
