"""Folding programs of torch.export, and exporting folded networks to ONNX."""

from __future__ import annotations

import itertools

import pytest
import torch
from same import randomise
from torch import nn

import normwright as nw
from normwright.errors import OptionError
from normwright.network import fold_with_report
from normwright.network.folding import fold as fold_module
from normwright.network.folding.sites import find_sites
from normwright.network.trace import flow_of

# PyTorch's own, of its exported programs
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning"),
]

EXACT = 1e-12


@pytest.fixture(autouse=True)
def _no_long_timing(monkeypatch):
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)


def network():
    """One norm to be folded into the layer before, one into the layer after, one left."""
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    return randomise(made).eval()


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_a_layer_of_a_program_is_given_a_bias():
    made = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU())
    x = draw(5, 3)
    program = torch.export.export(randomise(made).eval(), (x,), strict=False)
    folded = nw.fold(program, None)
    assert set(folded.state_dict) == {"0.weight", "0.bias", "1.num_batches_tracked"}
    with torch.no_grad():
        assert float((folded.module()(x) - made(x)).abs().max()) <= EXACT * float(made(x).abs().max())


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_program_without_batch_norm(decomposed):
    # PEERS: torch.export has nothing (#141116)
    x = draw(2, 3, 5, 5)
    program = torch.export.export(
        network(), (x,), strict=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    if decomposed:
        program = program.run_decompositions()
    before = {name: value.clone() for name, value in program.state_dict.items()}
    graph = str(program.graph)
    folded, report = fold_with_report(program, None)
    assert [record.place for record in report.normalisers] == ["before", "multiply-add", "after"]
    assert not [node for node in folded.graph.nodes if "norm" in node.name and node.op == "call_function"]
    assert "0.bias" in folded.state_dict
    assert not [name for name in folded.state_dict if "running" in name]
    assert str(program.graph) == graph
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict.items())
    for batch in (2, 5):
        y = draw(batch, 3, 5, 5)
        with torch.no_grad():
            expected, actual = program.module()(y), folded.module()(y)
        assert float((expected - actual).abs().max()) <= EXACT * float(expected.abs().max())


class Last(nn.Module):
    """Two norms, each returned: one is folded into the layer before it, one becomes a multiply-add."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return {"other": self.other(y.relu()), "norm": y}


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_program_that_returns_what_is_normalised(decomposed, tmp_path):
    x = draw(2, 3, 5, 5)
    program = torch.export.export(randomise(Last()).eval(), (x,), strict=False)
    if decomposed:
        program = program.run_decompositions()
    with torch.no_grad():
        expected = program.module()(x)
    folded, report = fold_with_report(program, None)
    assert [record.place for record in report.normalisers] == ["before", "multiply-add"]
    torch.export.save(folded, tmp_path / "folded.pt2")
    loaded = torch.export.load(tmp_path / "folded.pt2")
    for module in (folded.module(), loaded.module(), torch.export.unflatten(folded)):
        actual = module(x)
        assert list(actual) == list(expected)
        for name, value in expected.items():
            assert float((value - actual[name]).detach().abs().max()) <= EXACT * float(value.abs().max())


def test_the_signatures_of_a_program_s_modules_stay():
    x = draw(2, 3, 5, 5)
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.ReLU())
    program = torch.export.export(
        randomise(network).eval(), (x,), strict=False, preserve_module_call_signature=("0",)
    )
    folded = nw.fold(program, None)
    actual, expected = torch.export.unflatten(folded)(x).detach(), program.module()(x).detach()
    assert float((expected - actual).abs().max()) <= EXACT * float(expected.abs().max())


@pytest.mark.parametrize("trained", [False, True])
def test_what_a_program_is_given_is_trained_if_the_rest_is(trained):
    made = network().requires_grad_(trained)
    folded = nw.fold(torch.export.export(made, (draw(2, 3, 5, 5),), strict=False), None)
    assert "0.bias" in dict(folded.named_parameters())
    assert {parameter.requires_grad for parameter in folded.parameters()} == {trained}


def test_a_weight_that_is_a_buffer_which_is_not_saved():
    x = draw(2, 3, 5, 5)
    made = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    weight = made[0].weight.detach()
    del made[0].weight
    made[0].register_buffer("weight", weight, persistent=False)
    made = randomise(made).eval()
    folded, report = fold_with_report(torch.export.export(made, (x,), strict=False), None)
    assert report.normalisers[0].place == "before"
    with torch.no_grad():
        assert float((folded.module()(x) - made(x)).abs().max()) <= EXACT * float(made(x).abs().max())


class Frozen(nn.Module):
    """As detectron2's and Transformers' DETR's: arithmetic, and no batch norm."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels, dtype=torch.float64) + 0.5)

    def forward(self, x):
        weight, bias, mean, variance = (
            part.reshape(1, -1, 1, 1)
            for part in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight * (variance + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class Squaring(Frozen):
    def forward(self, x):
        return super().forward(x) ** 2


@pytest.mark.parametrize("decomposed", [False, True])
def test_frozen_norms_of_a_program_are_folded(decomposed):
    made = nn.Sequential(nn.Conv2d(3, 4, 3), Frozen(4), nn.ReLU(), Frozen(4), nn.ReLU(), Squaring(4))
    made = made.double().eval()
    x = draw(2, 3, 6, 6)
    program = torch.export.export(made, (x,), strict=False)
    program = program.run_decompositions({}) if decomposed else program
    folded, report = fold_with_report(program, None)
    found = [(record.name, record.kind, record.place, record.into) for record in report.normalisers]
    assert found == [
        ("1", "Frozen", "before", ("0",)),
        ("3", "Frozen", "multiply-add", ()),
        ("5", "Squaring", "", ()),
    ]
    assert "does more than normalise" in report.normalisers[2].reason
    assert not {"1.weight", "1.running_mean"} & set(folded.state_dict)
    computing = [node for node in folded.graph.nodes if "rsqrt" in str(node.target)]
    assert len(computing) == 1  # of the one that stays
    with torch.no_grad():
        assert float((folded.module()(x) - made(x)).abs().max()) <= EXACT * float(made(x).abs().max())


@pytest.mark.parametrize("decomposed", [False, True])
def test_norms_in_a_row_in_a_program(decomposed):
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    made.extend([nn.ReLU(), nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
    x = draw(2, 3, 6, 6)
    program = torch.export.export(randomise(made).eval(), (x,), strict=False)
    program = program.run_decompositions({}) if decomposed else program
    folded, report = fold_with_report(program, None)
    assert [record.place for record in report.normalisers] == ["before"] * 2 + ["multiply-add"] * 2
    with torch.no_grad():
        assert float((folded.module()(x) - made(x)).abs().max()) <= EXACT * float(made(x).abs().max())


class Ungraded(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        with torch.no_grad():
            y = self.norm(self.conv(x))
        return self.last(y)


def test_a_norm_without_gradients_in_a_program_is_told_and_folded_once_it_is_taken_apart():
    made, x = randomise(Ungraded()).eval(), draw(2, 3, 6, 6)
    program = torch.export.export(made, (x,), strict=False)
    records = {record.name: record for record in fold_with_report(program, None)[1].normalisers}
    assert records["norm"].place == ""
    assert "gradients are switched around it" in records["norm"].reason
    assert "run_decompositions" in records["norm"].reason
    folded, report = fold_with_report(program.run_decompositions({}), None)
    assert [record.place for record in report.normalisers] == ["before", "before"]
    with torch.no_grad():
        assert float((folded.module()(x) - made(x)).abs().max()) <= EXACT * float(made(x).abs().max())


def test_a_program_is_saved_and_loaded(tmp_path):
    x = draw(2, 3, 5, 5)
    folded = nw.fold(torch.export.export(network(), (x,), strict=False), x)
    torch.export.save(folded, tmp_path / "folded.pt2")
    loaded = torch.export.load(tmp_path / "folded.pt2")
    assert torch.equal(loaded.module()(x), folded.module()(x))


def test_a_program_is_not_folded_in_place():
    x = draw(2, 3, 5, 5)
    with pytest.raises(OptionError, match="in place"):
        nw.fold(torch.export.export(network(), (x,), strict=False), x, inplace=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_has_no_batch_normalization():
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    x = draw(2, 3, 5, 5).float()
    folded = nw.fold(network().float(), x)
    exported = torch.onnx.export(folded, (x,), dynamo=True, verbose=False)
    nodes = [node.op_type for node in exported.model.graph]
    assert "Conv" in nodes
    assert "BatchNormalization" not in nodes
    session = runtime.InferenceSession(exported.model_proto.SerializeToString())
    actual = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    with torch.no_grad():
        expected = folded(x)
    # float32 both, of some hundred roundings of 2^-24 in sums of up to 27 products
    assert float((actual - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_a_program_that_runs_in_no_other_dtype():
    # decomposed, whitening takes its root of what it casts to float64
    # and so its own error in float64 is unknown: of three folds that of some weights is 5 ulps
    torch.manual_seed(0)
    x = draw(2, 3, 6, 6)
    blocks = [[nn.Conv2d(c, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()] for c in (3, 4, 4)]
    network = nn.Sequential(*itertools.chain(*blocks), nw.nn.WhiteningNorm2d(4, group_size=2))
    network.double()(x)
    program = torch.export.export(network.eval(), (x,), strict=True).run_decompositions()
    folded, report = fold_with_report(program, None)
    assert [record.place for record in report.normalisers] == ["before", "before", "before", ""]
    with torch.no_grad():
        actual, expected = folded.module()(x), network(x)
    assert float((expected - actual).abs().max()) <= EXACT * float(expected.abs().max())


def test_a_tolerance_that_is_none_for_a_program():
    x = draw(2, 3, 5, 5)
    with pytest.raises(OptionError, match=r"tolerance= must be a number, 0 or more"):
        nw.fold(torch.export.export(network(), (x,), strict=False), x, tolerance=-1.0)


@pytest.mark.parametrize("root", ["__dict__['_modules']['_export_root']", "_export_root"])
def test_norms_are_found_by_name_where_dynamo_put_the_root_before_it(root):
    """As it does in a strict program, after what nobody has found out, and around gradients that are off."""
    x = draw(2, 3, 6, 6)
    made = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nw.nn.FrozenBatchNorm2d(4), nn.ReLU())).eval()
    program = torch.export.export(made, (x,), strict=False)
    for node in program.graph.nodes:
        node.meta["nn_module_stack"] = {
            call: (f"{root}.{name}" if name else root, kind)
            for call, (name, kind) in node.meta.get("nn_module_stack", {}).items()
        }
    folded, report = fold_with_report(program, None)
    assert [(one.name, one.place, one.into) for one in report.normalisers] == [("1", "before", ("0",))]
    with torch.no_grad():
        assert float((folded.module()(x) - made(x)).abs().max()) <= EXACT * float(made(x).abs().max())


def test_whitening_in_a_program_is_found_and_said_to_stay():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nw.nn.WhiteningNorm2d(4), nn.ReLU()).eval()
    program = torch.export.export(network, (torch.zeros(2, 3, 6, 6),))
    [site] = find_sites(flow_of(program), None)
    assert (site.name, site.kind) == ("1", "WhiteningNorm2d")
    assert "fold the network, then export it" in site.reason
