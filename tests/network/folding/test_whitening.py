"""Folding whitening: where it goes, what stays of it, and that it computes what the reference does."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from same import randomise
from tolerances import UNIT, depth
from torch import nn
from torch.nn import functional as F

import normwright as nw
from normwright import reference
from normwright.network import fold_with_report
from normwright.network import trace as trace_module
from normwright.network.folding import fold as fold_module
from normwright.network.folding.affine import Affine
from normwright.network.folding.block_affine import BlockAffine, composed, joined_with_identity
from normwright.network.folding.channel_mixing import ChannelMixing
from normwright.network.folding.whitening import whitening_map

EXACT = 1e-12  # as in test_fold.py

W1, W2, W3 = nw.nn.WhiteningNorm1d, nw.nn.WhiteningNorm2d, nw.nn.WhiteningNorm3d


@pytest.fixture(autouse=True)
def _no_long_timing(monkeypatch):
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)


def draw(*shape, seed=2):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def settled(network, *shape):
    """Random weights, and statistics of correlated data."""
    randomise(network).train()
    with torch.no_grad():
        for seed in range(4):
            network(draw(*shape, seed=seed).cumsum(1) + 1)
    return network.eval()


def folded(network, *shape, **options):
    """The folded network and what became of each normaliser; the outputs are the same, the network too."""
    settled(network, *shape)
    before, x = copy.deepcopy(network.state_dict()), draw(*shape)
    result, report = fold_with_report(network, x, **options)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        expected, actual = network(x), result(x)
    assert float((expected - actual).abs().max()) <= EXACT * float(expected.abs().max())
    return result, {record.name: (record.place, record.into) for record in report.normalisers}, report


BEFORE = {
    "1d": (nn.Conv1d(4, 6, 3, padding=1), W1(6, group_size=3), (4, 4, 9)),
    "2d": (nn.Conv2d(4, 6, 3, bias=False), W2(6, group_size=2), (4, 4, 7, 7)),
    "all channels": (nn.Conv2d(4, 6, 3), W2(6, group_size=6), (4, 4, 7, 7)),
    "iterative": (nn.Conv2d(4, 6, 3), W2(6, group_size=3, method="iterative"), (4, 4, 7, 7)),
    "grouped": (nn.Conv2d(4, 8, 3, groups=2), W2(8, group_size=2), (4, 4, 7, 7)),
    "depthwise, groups of one": (nn.Conv2d(4, 4, 3, groups=4), W2(4, group_size=1), (4, 4, 7, 7)),
    "3d strided": (nn.Conv3d(2, 6, 3, stride=2), W3(6, group_size=3), (4, 2, 7, 7, 7)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), W2(6, group_size=3), (4, 4, 5, 5)),
    "transposed grouped": (nn.ConvTranspose2d(4, 8, 3, groups=2), W2(8, group_size=4), (4, 4, 5, 5)),
    "linear": (nn.Linear(4, 6), W1(6, group_size=3), (32, 4)),
    "not affine": (nn.Linear(4, 6), W1(6, group_size=3, affine=False), (32, 4)),
}
AFTER = {
    "linear": (W1(6, group_size=3), nn.Linear(6, 4), (32, 6)),
    "1d": (W1(6, group_size=3), nn.Conv1d(6, 4, 3), (4, 6, 9)),
    "border": (W2(6, group_size=3), nn.Conv2d(6, 4, 3, padding=1), (4, 6, 7, 7)),
    "grouped": (W2(8, group_size=2), nn.Conv2d(8, 4, 3, groups=2), (4, 8, 7, 7)),
    "transposed": (W2(6, group_size=2), nn.ConvTranspose2d(6, 4, 1), (4, 6, 7, 7)),
}


@pytest.mark.parametrize("name", BEFORE)
def test_into_the_layer_before(name):
    layer, norm, shape = BEFORE[name]
    network = nn.Sequential(layer, norm, nn.ReLU()).double()
    result, places, _ = folded(network, *shape)
    assert places == {"1": ("before", ("0",))}
    assert type(result[1]) is nn.Identity


@pytest.mark.parametrize("name", AFTER)
def test_into_the_layer_after(name):
    norm, layer, shape = AFTER[name]
    network = nn.Sequential(nn.ReLU(), norm, layer).double()
    assert folded(network, *shape)[1] == {"1": ("after", ("2",))}


@pytest.mark.parametrize("shape", [(32, 6), (8, 6, 5), (8, 6, 4, 4), (8, 6, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("size", [1, 2, 6])
def test_between_activations_it_becomes_one_convolution_that_is_the_reference(shape, size):
    kind = {2: W1, 3: W1, 4: W2, 5: W3}[len(shape)]
    network = nn.Sequential(nn.ReLU(), kind(6, group_size=size), nn.ReLU()).double()
    result, places, report = folded(network, *shape)
    norm, x = network[1], draw(*shape).relu()
    assert places == {"1": ("multiply-add" if size == 1 else "convolution", ())}
    if size > 1:
        assert type(result[1]) is ChannelMixing
        assert "1 one grouped 1×1 convolution" in str(report)
    statistics = (norm.running_mean, norm.running_covariance, norm.weight, norm.bias)
    expected = reference.whiten_by(x.numpy(), *(part.detach().numpy() for part in statistics))
    with torch.no_grad():
        error = np.abs(result[1](x).numpy() - expected).max()
    assert error <= EXACT * np.abs(expected).max()


STAYS = {
    "kept apart": (nn.Conv2d(6, 6, 3, groups=3), W2(6, group_size=6), nn.Sigmoid(), "0 keeps groups of 2 "),
    "a maximum": (
        nn.ReLU(),
        W2(6, group_size=3),
        nn.MaxPool2d(2),
        "max_pool2d, of a map that mixes channels",
    ),
    "space": (nn.ReLU(), W2(6, group_size=3), nn.Flatten(), "flatten from [4, 6, 7, 7] to [4, 294]"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_it_does_not_commute_with_is_said(name):
    *layers, reason = STAYS[name]
    network = nn.Sequential(*layers, nn.LazyConv2d(4, 1) if name != "space" else nn.LazyLinear(4)).double()
    network(draw(4, 6, 7, 7))
    _, places, report = folded(network, 4, 6, 7, 7)
    assert places == {"1": ("convolution", ())}
    assert reason in report.normalisers[0].reason


def test_through_means_and_a_flattening_of_one_pixel():
    network = nn.Sequential(
        nn.ReLU(), W2(6, group_size=3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ).double()
    assert folded(network, 4, 6, 7, 7)[1] == {"1": ("after", ("4",))}


def test_several_in_a_row_with_groups_of_different_sizes():
    network = nn.Sequential(
        nn.Conv2d(3, 12, 3), W2(12, group_size=4), W2(12, group_size=6), nn.BatchNorm2d(12)
    ).double()
    assert set(folded(network, 8, 3, 7, 7)[1].values()) == {("before", ("0",))}


def test_one_before_and_one_after_a_padded_convolution():
    network = nn.Sequential(
        W2(4, group_size=2), nn.Conv2d(4, 12, 3, padding=1), W2(12, group_size=4)
    ).double()
    assert folded(network, 8, 4, 7, 7)[1] == {"0": ("after", ("1",)), "2": ("before", ("1",))}


class Concatenated(nn.Module):
    def __init__(self, first, second, size):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, first, 1), nn.Conv2d(3, second, 1)
        self.norm = W2(first + second, group_size=size)

    def forward(self, x):
        return self.norm(torch.cat([self.one(x), self.two(x)], 1))


def test_over_a_concatenation_of_whole_groups_alone():
    assert folded(Concatenated(4, 2, 2).double(), 4, 3, 7, 7)[1] == {"norm": ("before", ("one", "two"))}
    _, places, report = folded(Concatenated(3, 3, 2).double(), 4, 3, 7, 7)
    assert places == {"norm": ("convolution", ())}
    assert "a concatenation within a group of channels" in report.normalisers[0].reason


class PreActivation(nn.Module):
    """What is whitened goes past the layer too."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3), W2(6, group_size=3), nn.Conv2d(6, 6, 1)

    def forward(self, x):
        y = self.first(x)
        return y + self.second(self.norm(y).relu())


def test_what_is_also_read_past_the_layer_keeps_its_values():
    _, places, report = folded(PreActivation().double(), 4, 3, 7, 7)
    assert places == {"norm": ("convolution", ())}
    assert "is also read by add" in report.normalisers[0].reason


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.fused = W2(6, activation="relu")
        self.bare = W2(6, track_running_stats=False)
        self.residual = W2(6)
        self.own = type("Own", (W2,), {"forward": lambda self, x: W2.forward(self, x)})(6)

    def forward(self, x):
        return self.own(self.residual(self.bare(self.fused(x)) + 1, residual=x))


def test_what_is_more_than_whitening_stays_and_says_why():
    reasons = {
        "fused": "its activation, relu",
        "bare": "it keeps no running statistics",
        "residual": "it is given more than its input",
        "own": "its class has a forward of its own",
    }
    _, places, report = folded(Several().double(), 4, 6, 5, 5)
    assert set(places.values()) == {("", ())}
    for record in report.normalisers:
        assert reasons[record.name] in record.reason


def test_in_training_mode_it_stays_with_a_warning():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), W2(6)).double().train()
    with pytest.warns(UserWarning, match=r"1 normaliser in training mode .* call network.eval\(\) first"):
        report = fold_with_report(network, draw(4, 3, 7, 7))[1]
    assert report.normalisers[0].place == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_statistics_that_are_not_finite_are_left_as_they_are(value):
    network = nn.Sequential(nn.Conv2d(3, 6, 3), W2(6, group_size=3)).double().eval()
    network[1].running_covariance[1, 0, 0] = value
    record = fold_with_report(network, draw(4, 3, 7, 7))[1].normalisers[0]
    assert (record.place, "in group 1 of 3 channels" in record.reason) == ("", True)


def test_a_network_that_nothing_traces_keeps_a_convolution(monkeypatch):
    def untraceable(*_):
        raise trace_module.UntraceableError("as a test has it")

    monkeypatch.setattr(fold_module, "trace_without_hooks", untraceable)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), W2(6, group_size=3), W2(6, group_size=1)).double()
    assert folded(network, 4, 3, 7, 7)[1] == {"1": ("convolution", ()), "2": ("multiply-add", ())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_error_is_one_rounding_of_each_weight(dtype):
    network = settled(nn.Sequential(nn.Conv2d(4, 6, 3), W2(6, group_size=3)).double(), 4, 4, 7, 7).to(dtype)
    wide = copy.deepcopy(network).double()
    result = fold_with_report(network, draw(4, 4, 7, 7).to(dtype))[0].double()
    x = draw(4, 4, 7, 7).to(dtype).double()
    sizes = F.conv2d(x.abs(), result[0].weight.abs(), result[0].bias.abs())
    with torch.no_grad():
        error = (result(x) - wide(x)).abs()
    assert bool((error <= (UNIT[dtype] + depth(40) * UNIT[torch.float64]) * sizes).all())


@pytest.mark.parametrize("affine", [True, False])
def test_whitening_in_float32_among_layers_of_bfloat16(affine):
    network = nn.Sequential(nn.ReLU(), W2(6, group_size=3, affine=affine), nn.ReLU())
    settled(network.double(), 4, 6, 7, 7).to(torch.bfloat16)[1].float()
    x = draw(4, 6, 7, 7).to(torch.bfloat16)
    result, report = fold_with_report(network, x)
    assert report.normalisers[0].place == "convolution"
    assert result[1].weight.dtype is torch.float32
    assert result(x).dtype is network(x).dtype is torch.bfloat16


# PyTorch's exporter uses what PyTorch deprecates.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_onnx_has_convolutions_alone(tmp_path):
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), W2(6, group_size=3), nn.ReLU(), W2(6, group_size=2, method="iterative"), nn.ReLU()
    ).double()
    result = folded(network, 4, 3, 9, 9)[0].float()
    x, path = draw(4, 3, 9, 9).float(), str(tmp_path / "folded.onnx")
    torch.onnx.export(result, (x,), path, dynamo=True, verbose=False)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert sorted(set(operators) - {"Reshape", "Constant"}) == ["Conv", "Relu"]
    assert operators.count("Conv") == 2  # neither roots nor their iterations
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [actual] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = result.double()(x.double()).numpy()
    assert np.abs(actual - expected).max() <= depth(60) * UNIT[torch.float32] * np.abs(expected).max()


def test_a_map_is_its_matrix():
    norm = settled(W1(6, group_size=3).double(), 32, 6)
    affine, x = whitening_map(norm), draw(5, 6)
    dense = torch.block_diag(*affine.matrix)
    with torch.no_grad():
        assert torch.allclose(x @ dense.T + affine.shift, norm(x), rtol=0, atol=EXACT)
    first = Affine(draw(6, seed=3), draw(6, seed=4))
    scaled = torch.diag(first.scale)
    for one, other, matrix in ((first, affine, dense @ scaled), (affine, first, scaled @ dense)):
        both = composed(one, other)
        assert torch.allclose(torch.block_diag(*both.matrix), matrix, rtol=0, atol=EXACT)
        assert torch.allclose(both.shift, other.times(one.shift) + other.shift, rtol=0, atol=EXACT)
    joined = joined_with_identity(affine, [(False, 3), (True, 6)])
    assert torch.equal(torch.block_diag(*joined.matrix), torch.block_diag(torch.eye(3).double(), dense))
    assert joined_with_identity(affine, [(False, 2), (True, 6)]) is None
    with pytest.raises(nw.errors.ShapeError, match=r"matrix must be \(G, d, d\)"):
        BlockAffine(affine.matrix, affine.shift[:3])


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2), (3, 4, 2, 3), (3, 4, 2, 3, 2)], ids=str)
def test_a_mixing_is_a_module(shape):
    module = ChannelMixing.of(BlockAffine(draw(2, 2, 2), draw(4, seed=5)), dtype=torch.float64)
    x = draw(*shape)
    expected = (torch.block_diag(*module.weight.detach().view(2, 2, 2)) @ x.movedim(1, 0).flatten(1)).view(
        4, 3, *shape[2:]
    ).movedim(0, 1) + module.bias.detach().view(-1, *[1] * (len(shape) - 2))
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.allclose(twin(x), expected, rtol=0, atol=EXACT)
    assert list(module.state_dict()) == ["weight", "bias"]
    assert repr(module) == "ChannelMixing(4, groups=2)"
    with torch.autocast("cpu", torch.bfloat16):
        assert module.float()(x.float()).dtype is torch.bfloat16
