"""A freeze that train() does not undo, and what it leaves as it was."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from processes import run_ranks
from same import assert_same, randomise
from torch import Tensor, nn

import normwright as nw
from normwright.errors import OptionError
from normwright.network import accelerate_with_report, freeze, freeze_with_report, unfreeze
from normwright.network.frozen_class import is_frozen


class Scaled(nn.BatchNorm2d):
    """A subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Dropping(nn.BatchNorm2d):
    """A subclass that holds a module."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x))


def tracked(space: int, library=nn) -> nn.Module:
    return getattr(library, f"InstanceNorm{space}d")(4, affine=True, track_running_stats=True)


FROZEN = {
    **{
        f"batch {space}d": (lambda space=space: getattr(nn, f"BatchNorm{space}d")(4), space)
        for space in (1, 2, 3)
    },
    **{f"instance {space}d": (lambda space=space: tracked(space), space) for space in (1, 2, 3)},
    "batch without space": (lambda: nn.BatchNorm1d(4), 0),
    "synchronised": (lambda: nn.SyncBatchNorm(4), 2),
    "cumulative": (lambda: nn.BatchNorm2d(4, momentum=None), 2),
    "without weight": (lambda: nn.BatchNorm2d(4, affine=False), 2),
    "fused batch": (lambda: nw.nn.BatchNorm2d(4, activation="relu"), 2),
    "fused instance": (lambda: tracked(3, nw.nn), 3),
    "subclass": (lambda: Scaled(4), 2),
}
EVERY = pytest.mark.parametrize("kind", FROZEN)


def network_of(kind: str) -> tuple[nn.Module, Tensor]:
    """A network with the normaliser at "1", its statistics moved, and an input."""
    make, space = FROZEN[kind]
    torch.manual_seed(0)
    layer = getattr(nn, f"Conv{space}d")(3, 4, 1) if space else nn.Linear(3, 4)
    network = randomise(nn.Sequential(layer, make(), nn.Tanh()))
    x = torch.randn(5, 3, *[4] * space, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network(x)
    return network, x


@EVERY
def test_pytorchs_averaging_leaves_the_statistics(kind: str) -> None:
    """It resets all batch norms, and refills those that are in training mode."""
    network, x = network_of(kind)
    frozen = freeze(network)
    torch.optim.swa_utils.update_bn([x], frozen)
    assert_bits(buffers(frozen), buffers(network))
    frozen[1].reset_running_stats()
    assert_bits(buffers(frozen), buffers(network))
    frozen[1].reset_parameters()
    assert float(frozen[1].running_mean.abs().max()) == 0.0
    released = unfreeze(freeze(network))
    released[1].reset_running_stats()
    assert float(released[1].running_mean.abs().max()) == 0.0


def buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.named_buffers()}


def assert_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@EVERY
def test_train_does_not_undo_it(kind: str) -> None:
    """PEERS, population statistics: `train()` undoes a freeze (#86590), in any dimension."""
    network, x = network_of(kind)
    expected = copy.deepcopy(network).eval()(x)
    frozen = freeze(network)
    before = buffers(frozen)
    for mode in (True, False, True):
        assert torch.equal(frozen.train(mode)(x), expected)
        assert frozen[1].training is False
        assert frozen[0].training is mode
    assert_bits(before, buffers(frozen))


@EVERY
def test_the_network_given_is_left_alone(kind: str) -> None:
    network, _ = network_of(kind)
    classes, modes = [type(m) for m in network.modules()], [m.training for m in network.modules()]
    attributes = [set(vars(m)) for m in network.modules()]
    before = buffers(network)
    freeze(network)
    assert [type(m) for m in network.modules()] == classes
    assert [m.training for m in network.modules()] == modes
    assert [set(vars(m)) for m in network.modules()] == attributes
    assert_bits(before, buffers(network))


@EVERY
@pytest.mark.parametrize("mode", [True, False])
def test_unfreezing_gives_back_class_mode_and_momentum(kind: str, mode: bool) -> None:
    network, x = network_of(kind)
    network.train(mode)
    twin = copy.deepcopy(network)
    thawed = unfreeze(freeze(network), inplace=True)
    assert type(thawed[1]) is type(twin[1])
    assert [m.training for m in thawed.modules()] == [m.training for m in twin.modules()]
    assert thawed[1].momentum == twin[1].momentum
    assert vars(thawed[1]).keys() == vars(twin[1]).keys()
    assert repr(thawed) == repr(twin)
    assert torch.equal(thawed.train()(x), twin.train()(x))
    assert_bits(buffers(thawed), buffers(twin))


def test_the_mode_given_back_is_the_last_asked_for() -> None:
    network = freeze(network_of("batch 2d")[0]).eval()
    assert not any(module.training for module in unfreeze(network).modules())
    assert all(module.training for module in unfreeze(network.train()).modules())


@EVERY
def test_inplace_keeps_parameters_buffers_hooks_and_references(kind: str) -> None:
    network, x = network_of(kind)
    norm, seen = network[1], []
    norm.register_forward_hook(lambda *_: seen.append(1))
    state = {name: id(value) for name, value in network.state_dict(keep_vars=True).items()}
    assert freeze(network, inplace=True) is network
    assert network[1] is norm
    assert {name: id(value) for name, value in network.state_dict(keep_vars=True).items()} == state
    assert isinstance(norm, FROZEN[kind][0]().__class__)
    network(x)
    assert seen == [1]


@EVERY
def test_gradients_are_those_of_inference(kind: str) -> None:
    network, x = network_of(kind)
    results = []
    for module in (copy.deepcopy(network).eval(), freeze(network).train()):
        leaf = x.clone().requires_grad_()
        results.append(torch.autograd.grad(module(leaf).square().sum(), [leaf, *module.parameters()]))
    assert all(map(torch.equal, *results))


@EVERY
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_stay_frozen(kind: str, copied) -> None:
    network, x = network_of(kind)
    frozen = freeze(network)
    twin = copied(frozen).train()
    assert type(twin[1]) is type(frozen[1])
    assert torch.equal(twin(x), frozen(x))
    assert_bits(buffers(twin), buffers(frozen))
    assert type(unfreeze(twin)[1]) is type(network[1])


@EVERY
def test_the_state_goes_both_ways(kind: str) -> None:
    network, x = network_of(kind)
    frozen = freeze(network)
    assert list(frozen.state_dict()) == list(network.state_dict())
    other, _ = network_of(kind)
    other(2 * x)
    frozen.load_state_dict(other.state_dict(), strict=True)
    assert torch.equal(frozen.train()(x), other.eval()(x))
    network.load_state_dict(frozen.state_dict(), strict=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["batch 2d", "instance 2d", "fused batch", "subclass"])
def test_compiles_whole(kind: str) -> None:
    torch._dynamo.reset()
    network, x = network_of(kind)
    frozen = freeze(network).train()
    before = buffers(frozen)
    compiled = torch.compile(frozen, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), frozen(x), rtol=1e-12, atol=1e-12)
    compiled.eval(), compiled.train()
    compiled(x)
    assert_bits(before, buffers(frozen))
    torch._dynamo.reset()


def test_what_a_subclass_holds_takes_the_mode() -> None:
    network = freeze(nn.Sequential(Dropping(4))).train()
    assert network[0].training is False
    assert network[0].drop.training is True
    assert network.eval()[0].drop.training is False


def test_a_shared_normaliser_is_frozen_once() -> None:
    shared = nn.BatchNorm1d(4)
    network, report = freeze_with_report(nn.Sequential(shared, nn.ReLU(), shared))
    assert network[0] is network[2]
    assert len(report.normalisers) == 1
    assert type(unfreeze(network)[2]) is nn.BatchNorm1d


def test_a_network_that_is_a_normaliser() -> None:
    frozen = freeze(nn.BatchNorm1d(4))
    assert is_frozen(frozen.train())
    assert repr(frozen).startswith("FrozenBatchNorm1d(4, eps=1e-05, momentum=0.1, affine=True")


def nested() -> nn.Module:
    return nn.ModuleDict(
        {
            "body": nn.Sequential(nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4))),
            "head": nn.BatchNorm2d(4),
            "last": nn.LayerNorm(4),
        }
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["head"], {"head"}),
        ("head", {"head"}),
        (["body"], {"body.0", "body.1.0"}),
        (["body.1", "head"], {"body.1.0", "head"}),
        (None, {"body.0", "body.1.0", "head"}),
    ],
)
def test_names(names, expected: set[str]) -> None:
    network, report = freeze_with_report(nested(), names=names)
    assert {name for name, module in network.named_modules() if is_frozen(module)} == expected
    assert {record.name for record in report.normalisers if record.frozen} == expected
    thawed = unfreeze(freeze(nested()), names=names)
    assert {name for name, module in thawed.named_modules() if is_frozen(module)} == {
        "body.0",
        "body.1.0",
        "head",
    } - expected


def test_freezing_twice_and_unfreezing_twice_is_once() -> None:
    network = freeze(nested())
    again, report = freeze_with_report(network)
    assert [type(m) for m in again.modules()] == [type(m) for m in network.modules()]
    assert not any(record.changed for record in report.normalisers)
    once = unfreeze(again)
    assert [type(m) for m in unfreeze(once).modules()] == [type(m) for m in nested().modules()]
    assert type(once["head"]) is nn.BatchNorm2d


def parametrized() -> nn.Module:
    module = nn.BatchNorm2d(4)
    nn.utils.parametrize.register_parametrization(module, "weight", nn.Softplus())
    return module


LEFT = {
    "untracked": (lambda: nn.BatchNorm2d(4, track_running_stats=False), "does not track its statistics"),
    "instance": (lambda: nn.InstanceNorm2d(4), "does not track its statistics"),
    "layer": (lambda: nn.LayerNorm(4), "no running statistics"),
    "group": (lambda: nn.GroupNorm(2, 4), "no running statistics"),
    "parametrized": (parametrized, "parametrized"),
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_left_alone_says_why(kind: str) -> None:
    make, reason = LEFT[kind]
    network = nn.Sequential(make(), nn.BatchNorm2d(4))
    frozen, report = freeze_with_report(network)
    assert type(frozen[0]) is type(make()) or kind == "parametrized"
    assert [record.frozen for record in report.normalisers] == [False, True]
    assert reason in report.normalisers[0].reason
    for names in (None, ["0"]):
        with pytest.raises(OptionError, match=rf"must have running statistics.*{reason}"):
            freeze(nn.Sequential(make()), names=names, inplace=True)


def test_a_lazy_one_is_left_alone() -> None:
    network = nn.Sequential(nn.LazyBatchNorm2d(), nn.BatchNorm2d(4))
    _, report = freeze_with_report(network, inplace=True)
    assert report.normalisers[0].reason == "it is lazy: freeze the network after its first batch"


def test_a_subclass_is_noted() -> None:
    _, report = freeze_with_report(nn.Sequential(Scaled(4), nn.BatchNorm2d(4)))
    assert [record.reason for record in report.normalisers] == ["its own forward runs as in inference", ""]


def test_the_report_is_a_table_and_json() -> None:
    _, report = freeze_with_report(nested(), names=["head"])
    assert str(report).splitlines()[0] == "1 of 4 normalisers have frozen statistics, 1 of them changed now."
    assert str(report) == str(report.table())
    assert json.loads(json.dumps(dataclasses.asdict(report)))["normalisers"][2]["name"] == "head"


def test_names_may_be_read_once() -> None:
    assert is_frozen(freeze(nested(), names=(name for name in ["head"]))["head"])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda network: freeze(network, names=["tail"], inplace=True), "no module 'tail'"),
        (lambda network: unfreeze(network, names=["tail"], inplace=True), "no module 'tail'"),
        (lambda network: freeze(network, names=["head", "last"], inplace=True), "of last must have running"),
        (lambda _: freeze(nn.Sequential(nn.Linear(2, 2))), "there is none of those known here"),
        (lambda network: freeze(network, names=3, inplace=True), "names= must be names in a list .* is 3"),
        (lambda _: freeze("network"), "must be a torch.nn.Module, but is str"),
        (lambda _: unfreeze(None), "must be a torch.nn.Module, but is NoneType"),
    ],
)
def test_an_error_leaves_the_network_as_it_was(call, says: str) -> None:
    network = nested()
    classes = [type(module) for module in network.modules()]
    with pytest.raises(OptionError, match=says):
        call(network)
    assert [type(module) for module in network.modules()] == classes
    assert all(module.training for module in network.modules())


def test_one_parametrized_after_its_freeze_is_refused_by_name() -> None:
    network = freeze(nested())
    nn.utils.parametrize.register_parametrization(network["head"], "weight", nn.Softplus())
    with pytest.raises(OptionError, match="head must have the class that freeze gave it"):
        unfreeze(network, inplace=True)
    assert is_frozen(network["body"][0])


def test_the_frozen_batch_norms_of_others_are_frozen_already() -> None:
    detr = pytest.importorskip("transformers.models.detr.modeling_detr")
    network = nn.Sequential(detr.DetrFrozenBatchNorm2d(4), nw.nn.FrozenBatchNorm2d(4))
    frozen, report = freeze_with_report(network)
    assert [(record.frozen, record.changed) for record in report.normalisers] == [(True, False)] * 2
    assert [type(m) for m in unfreeze(frozen)] == [type(m) for m in network]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.convolution(x)) + x)


@pytest.mark.parametrize("order", ["freeze first", "accelerate first"])
def test_a_frozen_network_is_accelerated(order: str) -> None:
    network = randomise(nn.Sequential(Block()))
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    frozen = freeze(network)
    if order == "freeze first":
        fast, report = accelerate_with_report(frozen)
    else:
        fast, report = accelerate_with_report(network)
        fast = freeze(fast)
    assert report.normalisers[0].fused == ("residual + relu",)
    frozen_now = ", frozen" if order == "freeze first" else ""
    assert report.normalisers[0].became == f"normwright.nn.BatchNorm2d{frozen_now}"
    assert is_frozen(fast[0].norm)
    assert isinstance(fast[0].norm, nw.nn.BatchNorm2d)
    assert_same(frozen, fast, lambda module: module(x))
    calls: list[str] = []
    fast[0].convolution.register_forward_hook(lambda *_: calls.append("convolution"))
    names = {type(node).__name__ for node in graph_of(fast.train()(x.requires_grad_()))}
    assert "ReluBackward0" not in names  # it is computed in the normaliser's operator
    assert calls
    assert type(unfreeze(fast)[0].norm) is nw.nn.BatchNorm2d


def graph_of(y: Tensor) -> list:
    nodes, seen = [y.grad_fn], set()
    for node in nodes:
        nodes += [other for other, _ in node.next_functions if other is not None and other not in seen]
        seen.add(node)
    return nodes


def test_in_data_parallel_training(tmp_path) -> None:
    """Two processes: statistics stay, and equal, on both; weights move together."""
    one, other = run_ranks(Path(__file__).with_name("frozen_replica.py"), tmp_path)
    assert_bits(one["after"], other["after"])
    for name, value in one["before"].items():
        assert torch.equal(value, one["after"][name]) is ("running" in name or "tracked" in name), name
