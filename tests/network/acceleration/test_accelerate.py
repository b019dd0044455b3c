"""Acceleration changes nothing but the speed; and fuses what the trace proves, no more."""

from __future__ import annotations

import copy
import pickle
import re
from collections import OrderedDict

import pytest
import torch
from same import assert_close, assert_loads_both_ways, assert_same, fused_of, modes, randomise, run
from small_networks import (
    CASES,
    Case,
    Checkpointed,
    Doubles,
    ModeDependent,
    ModuleActivation,
    OptionalArgument,
    PartWithoutGradient,
    ResidualAfterTheNorm,
    ThroughContainers,
)
from torch import nn
from torch.nn import functional as F

import normwright
from normwright.errors import OptionError
from normwright.network import accelerate, accelerate_with_report
from normwright.network.acceleration import traces as traces_module
from normwright.statistics import count_once

X = torch.randn(3, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def call(network):
    return network(X.clone())


def record_of(report):
    (record,) = report.normalisers
    return record


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_case(kind):
    network = randomise(kind())
    fast, report = accelerate_with_report(network)
    record = record_of(report)
    assert record.became == "normwright.nn.BatchNorm2d"
    assert record.fused == kind.fused
    assert kind.reason in record.reason, record.reason
    assert (kind.fused == ()) == (kind.reason != "")
    if kind is Checkpointed:
        count_once(network)  # as the drop-in does by itself
    with torch.set_grad_enabled(kind.differentiable):
        assert_same(network, fast, call)
    assert_loads_both_ways(network, fast)


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_the_input_ends_as_it_did(kind):
    network = randomise(kind())
    fast = accelerate(network)
    for one, other in zip(modes(network), modes(fast), strict=True):
        found = []
        for part in (one, other):
            torch.manual_seed(0)
            leaf = X.clone().requires_grad_()
            x = leaf * 1
            with torch.set_grad_enabled(kind.differentiable):
                y = part(x)
            if kind.differentiable:
                y.square().sum().backward()
            found.append((x.detach(), torch.zeros(()) if leaf.grad is None else leaf.grad))
        (x, gradient), (same_x, same_gradient) = found
        assert_close(same_x, x, "input")
        assert_close(same_gradient, gradient, "gradient of the input")


# What stands in a network's forward runs through the route, or through the network's own forward.


def fused_calls(network, *args, **named):
    """How many calls of the operator had an activation or a residual."""
    count = 0

    class Counting(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal count
            if function.namespace == "normwright":
                count += args[1] is not None or any(isinstance(value, str) for value in args)
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Counting():
        network(*args, **named)
    return count


def accelerated(kind=ModuleActivation):
    network = randomise(kind())
    return network, accelerate(network)


def test_the_route_is_taken():
    _, fast = accelerated()
    assert fused_calls(fast, X) == 1
    assert fused_calls(fast.eval(), X) == 1


@pytest.mark.parametrize("name", ["norm", "relu"])
@pytest.mark.parametrize(
    "register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_a_hook_added_later_sees_what_it_would_have_seen(name, register):
    network, fast = accelerated()
    seen = []
    for part in (network, fast):
        module = part.get_submodule(name)
        values = []
        handle = getattr(module, register)(
            lambda *call, values=values: values.extend(
                value.detach().clone() for group in call[1:] for value in group if torch.is_tensor(value)
            )
        )
        part(X).square().sum().backward()
        seen.append(values)
        handle.remove()
    assert len(seen[0]) == len(seen[1]) > 0
    for one, other in zip(*seen, strict=True):
        assert_close(other, one)
    assert fused_calls(fast, X) == 1


@pytest.mark.parametrize("name", ["norm", "relu"])
def test_a_hook_there_before_is_reported(name):
    network = randomise(ModuleActivation())
    seen = []
    network.get_submodule(name).register_forward_hook(lambda module, args, y: seen.append(y.detach()))
    fast, report = accelerate_with_report(network)
    assert record_of(report).fused == ()
    assert "hooks" in record_of(report).reason
    assert_close(fast(X), network(X))
    assert_close(seen[0], seen[1])


def test_a_hook_that_changes_the_output_of_a_container_that_was_traced_through():
    network, fast = accelerated(ThroughContainers)
    assert fused_calls(fast, X) == 1
    for part in (network, fast):
        part.branch[0].register_forward_hook(lambda module, args, y: y * 2)
    assert_close(fast(X), network(X))


def test_a_global_hook_sees_every_module():
    network, fast = accelerated()
    seen = []
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, y: seen.append(type(module).__name__)
    )
    try:
        network(X)
        expected, seen[:] = list(seen), []
        fast(X)
    finally:
        handle.remove()
    assert seen == expected


CHANGES = {
    "activation replaced": lambda network: setattr(network, "relu", nn.Tanh()),
    "normaliser replaced": lambda network: setattr(network, "norm", nn.GroupNorm(2, 4).double()),
    "normaliser removed": lambda network: setattr(network, "norm", nn.Identity()),
    "forward replaced": lambda network: setattr(network.relu, "forward", torch.tanh),
    "synchronised": lambda network: setattr(
        network, "norm", nn.SyncBatchNorm.convert_sync_batchnorm(network.norm).eval()
    ),
    "momentum": lambda network: setattr(network.norm, "momentum", 0.5),
    "frozen": lambda network: network.norm.eval(),
    "convolution replaced": lambda network: setattr(network, "tail", nn.Identity()),
}


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_network_changed_later_does_as_it_says(change):
    network, fast = accelerated()
    torch.manual_seed(0)
    CHANGES[change](network)
    torch.manual_seed(0)
    CHANGES[change](fast)
    for one, other in zip((network, fast), (network, fast), strict=True):
        one.eval() if change == "synchronised" else None
        other.eval() if change == "synchronised" else None
    assert_close(fast(X), network(X))


def test_a_setting_changed_later_counts():
    class Flagged(Case):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.active = 2.0, True

        def forward(self, x):
            y = self.norm(x)
            return self.relu(y) * self.scale if self.active else y

    network, fast = accelerated(Flagged)
    assert fused_calls(fast, X) == 1
    for setting in ({"scale": 3.0}, {"scale": 2.0}, {"active": False}):
        for part in (network, fast):
            vars(part).update(setting)
        assert_close(fast(X), network(X))
    assert fused_calls(fast, X) == 0


def test_a_container_changed_later_counts():
    network, fast = accelerated(ThroughContainers)
    assert fused_calls(fast, X) == 1
    for part in (network, fast):
        part.branch.append(nn.Sigmoid())
    assert_close(fast(X), network(X))


def test_one_module_under_two_names_taken_apart_later():
    class Twice(Case):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.relu

        def forward(self, x):
            return self.again(self.tail(self.relu(self.norm(x))))

    network, fast = accelerated(Twice)
    assert fused_calls(fast, X) == 1
    for part in (network, fast):
        part.again = nn.Tanh()
    assert_close(fast(X), network(X))


def test_optional_arguments():
    network, fast = accelerated(OptionalArgument)
    skip = torch.full_like(X, 0.5)
    for args, named in [((X,), {}), ((X, skip), {}), ((X,), {"skip": skip}), ((), {"x": X}), ((X, None), {})]:
        assert_close(fast(*args, **named), network(*args, **named))
    assert fused_calls(fast, x=X) == fused_calls(fast, X, None) == fused_calls(fast, X, skip=None) == 1
    assert fused_calls(fast, X, skip) == 0
    for args, named in [((), {}), ((X,), {"x": X}), ((X, None, None), {}), ((X,), {"other": 1})]:
        with pytest.raises(TypeError):
            fast(*args, **named)


# The network stays usable everywhere.


def test_classes_names_and_print_stay():
    network, fast = accelerated()
    assert isinstance(fast, ModuleActivation)
    assert type(fast).__name__ == "ModuleActivation"
    assert repr(fast) == repr(network)
    assert [name for name, _ in network.named_modules()] == [name for name, _ in fast.named_modules()]


def test_a_copy_shares_nothing():
    network, fast = accelerated()
    pointers = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert pointers.isdisjoint(tensor.data_ptr() for tensor in fast.state_dict().values())
    fast(X)
    assert network.norm.num_batches_tracked == 0
    assert type(network) is ModuleActivation
    assert type(network.norm) is nn.BatchNorm2d


def test_in_place_keeps_every_object():
    network = randomise(ModuleActivation())
    reference = copy.deepcopy(network)
    network.norm.note = "kept"
    modules, parameters = list(network.modules()), list(network.parameters())
    buffers = list(network.buffers())
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    assert accelerate(network, inplace=True) is network
    for before, after in [(modules, network.modules()), (parameters, network.parameters())]:
        assert all(one is other for one, other in zip(before, after, strict=True))
    assert all(one is other for one, other in zip(buffers, network.buffers(), strict=True))
    assert network.norm.note == "kept"
    assert type(network.norm) is normwright.nn.BatchNorm2d
    other = torch.optim.SGD(reference.parameters(), lr=0.1)
    for part, steps in ((network, optimiser), (reference, other)):
        for _ in range(3):
            steps.zero_grad()
            part(X).square().mean().backward()
            steps.step()
    for one, two in zip(network.parameters(), reference.parameters(), strict=True):
        assert_close(one, two)


@pytest.mark.parametrize(
    "renew", [copy.deepcopy, copy.copy, lambda network: pickle.loads(pickle.dumps(network))]
)
@pytest.mark.parametrize("kind", [ModuleActivation, ResidualAfterTheNorm, ThroughContainers])
def test_copies_and_pickles_are_accelerated(renew, kind):
    _, fast = accelerated(kind)
    expected = run(copy.deepcopy(fast), call)
    again = renew(fast)
    assert fused_calls(copy.deepcopy(again), X) == 1
    actual = run(again, call)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())


def test_twice_is_once():
    _, fast = accelerated(ThroughContainers)
    again, report = accelerate_with_report(fast)
    assert fused_of(report) == {"branch.0.1": ("residual + relu",)}
    assert type(again) is type(fast)
    assert fused_calls(again, X) == 1


@pytest.mark.parametrize(
    "kind", [ModuleActivation, ResidualAfterTheNorm, ThroughContainers, OptionalArgument]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_whole(kind):
    torch._dynamo.reset()
    _, fast = accelerated(kind)
    compiled = torch.compile(copy.deepcopy(fast), fullgraph=True, backend="aot_eager")
    for one, other in ((fast, compiled), (fast.eval(), compiled.eval())):
        expected, actual = run(one, call), run(other, call)
        for value, same in zip(expected.values(), actual.values(), strict=True):
            assert_close(same, value)


def test_a_compiled_network_takes_the_route():
    torch._dynamo.reset()
    _, fast = accelerated()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph.code)
        return graph

    with torch.no_grad():
        torch.compile(fast.eval(), fullgraph=True, backend=backend)(X)
    assert "relu" not in graphs[0].replace("'relu'", "")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_exports(strict):
    _, fast = accelerated(ResidualAfterTheNorm)
    program = torch.export.export(fast.eval(), (X,), strict=strict)
    assert_close(program.module()(X), fast(X))


def test_under_no_grad_inference_mode_and_autocast():
    network, fast = accelerated(ResidualAfterTheNorm)
    with torch.no_grad():
        assert_close(fast(X), network(X))
    with torch.inference_mode():
        assert_close(fast(X), network(X))
    network, fast = network.float(), fast.float()
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = network(X.float()), fast(X.float())
    assert actual.dtype == expected.dtype
    # bfloat16 has 8 bits: a rounding of the convolution's output, of the normaliser's, of the sum.
    assert (actual - expected).abs().max() <= 4 * 2**-8 * expected.abs().max()


def test_strides_are_those_of_the_network():
    network, fast = accelerated(ResidualAfterTheNorm)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for part in (network, fast):
            part.to(memory_format=memory_format)
        x = X.contiguous(memory_format=memory_format)
        assert fast(x).stride() == network(x).stride()


def test_a_symbolic_trace_by_others_sees_the_network_s_own_operations():
    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m, module_qualified_name):
            return type(m).__module__.startswith(("torch.nn", "normwright.nn"))

    network, fast = accelerated()
    expected, actual = (Tracer().trace(part) for part in (network, fast))
    assert [node.name for node in actual.nodes] == [node.name for node in expected.nodes]


# Normalisers of every kind.

KINDS = {
    "BatchNorm1d": (nn.BatchNorm1d(4), (6, 4)),
    "BatchNorm2d": (nn.BatchNorm2d(4, momentum=None), (3, 4, 5, 5)),
    "BatchNorm3d": (nn.BatchNorm3d(4, affine=False), (3, 4, 3, 3, 3)),
    "untracked": (nn.BatchNorm2d(4, track_running_stats=False), (3, 4, 5, 5)),
    "LayerNorm": (nn.LayerNorm((5, 5), bias=False), (3, 4, 5, 5)),
    "GroupNorm": (nn.GroupNorm(2, 4), (3, 4, 5, 5)),
    "InstanceNorm1d": (nn.InstanceNorm1d(4), (3, 4, 5)),
    "unbatched": (nn.InstanceNorm1d(4), (4, 5)),
    "InstanceNorm2d": (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), (3, 4, 5, 5)),
    "InstanceNorm3d": (nn.InstanceNorm3d(4, affine=True), (3, 4, 3, 3, 3)),
    "RMSNorm": (nn.RMSNorm(5), (3, 4, 5)),
}
ACTIVATIONS = {
    "relu": nn.ReLU(inplace=True),
    "leaky_relu": nn.LeakyReLU(),
    "silu": nn.SiLU(inplace=True),
    "gelu": nn.GELU(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
}


class WithResidual(nn.Module):
    def __init__(self, norm, activation) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.norm, self.activation = norm, activation

    def forward(self, x):
        y = self.norm(self.weight * x)
        return self.activation(y + x)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_normaliser_with_every_activation(kind, activation):
    norm, shape = KINDS[kind]
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layers = copy.deepcopy([norm, ACTIVATIONS[activation]])
    for network, expected in [
        (nn.Sequential(*copy.deepcopy(layers)), {"0": (activation,)}),
        (WithResidual(*layers), {"norm": (f"residual + {activation}",)}),
    ]:
        randomise(network)
        fast, report = accelerate_with_report(network)
        assert fused_of(report) == expected
        leaf = x.clone().requires_grad_()
        assert_same(network, fast, lambda part, leaf=leaf: part(leaf))


def test_a_frozen_batch_norm_of_normwrights_is_fused():
    norm = normwright.nn.FrozenBatchNorm2d(4)
    network = randomise(nn.Sequential(nn.Conv2d(4, 4, 1), norm, nn.ReLU()))
    fast, report = accelerate_with_report(network)
    assert fused_of(report) == {"1": ("relu",)}
    assert type(fast[1]) is type(norm)
    assert_same(network, fast, lambda part: part(X))


class TakesMore(nn.Module):
    """As diffusers' `ResnetBlock2D`."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3)

    def forward(self, x, *args, **kwargs):
        y = self.conv(nn.functional.silu(self.norm(x)))
        return y * (args[0] if args else kwargs.get("scale", 1.0))


def test_a_forward_that_takes_more_is_fused_and_more_goes_its_own_way():
    network = nn.Sequential(randomise(TakesMore()))
    fast, report = accelerate_with_report(network)
    assert fused_of(report) == {"0.norm": ("silu",)}
    assert_same(network, fast, lambda part: part(X))
    assert_same(network, fast, lambda part: part[0](X, 2.0))
    assert_same(network, fast, lambda part: part[0](X, scale=3.0))


class MyBatchNorm(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class InstanceNormOfGraphs(nn.modules.instancenorm._InstanceNorm):
    def forward(self, x):
        return x - x.mean(0)


class FrozenBatchNorm2d(nn.Module):
    def forward(self, x):
        return x


def parametrized():
    module = nn.BatchNorm2d(4)
    nn.utils.parametrize.register_parametrization(module, "weight", nn.Softplus())
    return module


def replaced_forward():
    module = nn.BatchNorm2d(4)
    module.forward = torch.tanh
    return module


LEFT = {
    "subclass": (MyBatchNorm(4), "a subclass may normalise in its own way"),
    "subclass without axes": (InstanceNormOfGraphs(4), "a subclass may normalise in its own way"),
    "frozen": (FrozenBatchNorm2d(), "fixed statistics"),
    "lazy": (nn.LazyBatchNorm2d(), "it is lazy"),
    "local response": (nn.LocalResponseNorm(3), "no fused kernel"),
    "parametrized": (parametrized(), "parametrized"),
    "replaced forward": (replaced_forward(), "its forward was replaced"),
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_left_alone_says_why(kind):
    module, reason = LEFT[kind]
    network = nn.Sequential(nn.Conv2d(4, 4, 1), module, nn.ReLU()).double().eval()
    # A lazy module cannot be copied.
    fast, report = accelerate_with_report(network, inplace=kind == "lazy")
    record = record_of(report)
    assert record.became is None
    assert reason in record.reason
    assert type(fast[1]) is type(network[1])
    assert f"left alone: {record.reason}" in str(report)
    if kind != "lazy":
        assert torch.equal(fast(X), network(X))


@pytest.mark.parametrize("kind", [ModuleActivation, ResidualAfterTheNorm])
def test_a_synchronised_one_becomes_ours_and_is_fused(kind):
    """In one process; over several, tests/nn/test_synchronised.py."""
    network = nn.SyncBatchNorm.convert_sync_batchnorm(randomise(kind())).double()
    fast, report = accelerate_with_report(network)
    record = record_of(report)
    assert record.became == "normwright.nn.SyncBatchNorm"
    assert record.fused == kind.fused
    assert_same(network, fast, call)
    assert fused_calls(fast, X) == 1


def test_a_scripted_normaliser_is_left_alone():
    with pytest.warns((DeprecationWarning, FutureWarning), match="script"):
        scripted = torch.jit.script(nn.BatchNorm2d(4).double().eval())
    network = nn.Sequential(nn.Conv2d(4, 4, 1), scripted, nn.ReLU()).double().eval()
    fast, report = accelerate_with_report(network)
    assert record_of(report).became is None
    assert "torch.jit" in record_of(report).reason
    assert torch.equal(fast(X), network(X))


def test_a_normaliser_with_an_activation_of_its_own_keeps_it():
    network = randomise(nn.Sequential(normwright.nn.BatchNorm2d(4, activation="tanh"), nn.ReLU()))
    fast, report = accelerate_with_report(network)
    assert record_of(report).fused == ()
    assert "already" in record_of(report).reason
    assert_same(network, fast, call)


def test_a_network_that_is_a_normaliser():
    network = randomise(nn.BatchNorm2d(4))
    fast, report = accelerate_with_report(network)
    assert type(fast) is normwright.nn.BatchNorm2d
    assert record_of(report).reason == "it is the network itself"
    assert_same(network, fast, call)
    assert type(accelerate(network, inplace=True)) is normwright.nn.BatchNorm2d


def test_a_shared_normaliser_stays_shared():
    norm = nn.BatchNorm2d(4)
    network = randomise(nn.Sequential(norm, nn.ReLU(), nn.Conv2d(4, 4, 1), norm))
    fast, report = accelerate_with_report(network)
    assert fast[0] is fast[3]
    assert record_of(report).fused == ("relu",)
    assert_same(network, fast, call)


def test_a_class_that_registers_its_subclasses_is_not_subclassed():
    registered = []

    class Registering(Case):
        def __init_subclass__(cls) -> None:
            registered.append(cls)

        def forward(self, x):
            return F.relu(self.norm(x))

    network = randomise(Registering())
    fast, report = accelerate_with_report(network)
    assert registered == []
    assert record_of(report).fused == ()
    assert "from Registering, whose __init_subclass__ would run" in record_of(report).reason
    assert_same(network, fast, call)


def test_a_graph_module_is_accelerated_module_by_module():
    """It is compiled anew from its graph where it is copied, so that no route would stay."""
    network = torch.fx.symbolic_trace(randomise(ModuleActivation()))
    fast, report = accelerate_with_report(network)
    assert "GraphModule is copied or pickled in a way of its own" in record_of(report).reason
    assert type(fast.norm) is normwright.nn.BatchNorm2d
    assert_same(network, fast, call)


@pytest.mark.parametrize(("kind", "traces"), [(ModuleActivation, 1), (ModeDependent, 2)])
def test_one_trace_serves_both_modes_of_a_forward_that_does_not_ask_for_its_mode(kind, traces, monkeypatch):
    made = []
    own = traces_module.trace
    monkeypatch.setattr(traces_module, "trace", lambda *given: made.append(own(*given)) or made[-1])
    accelerate(kind())
    assert len(made) == traces


def test_a_network_that_cannot_be_copied_is_left_as_it_was():
    class Uncopyable:
        def __deepcopy__(self, memo):
            raise RuntimeError("not to be copied")

    network = randomise(ModuleActivation())
    network.handle = Uncopyable()
    with pytest.raises(RuntimeError, match="not to be copied"):
        accelerate(network)
    assert type(network.norm) is nn.BatchNorm2d
    _, report = accelerate_with_report(network, inplace=True)
    assert "cannot be copied" in record_of(report).reason
    assert type(network.norm) is normwright.nn.BatchNorm2d


class Deep(nn.Module):
    """Whatever may keep its input, more of it in a row than calls may stand in each other in Python."""

    def __init__(self):
        super().__init__()
        self.scales = nn.ModuleList([nn.Hardtanh() for _ in range(400)])
        self.norm, self.other = nn.GroupNorm(2, 4), nn.Hardtanh()

    def forward(self, x):
        for scale in self.scales:
            x = scale(x)
        y = self.norm(x)
        return torch.relu(y + self.other(x))


def test_a_forward_that_is_longer_than_the_stack():
    (record,) = accelerate_with_report(Deep())[1].normalisers
    assert (record.became, record.fused) == ("normwright.nn.GroupNorm", ())
    assert "may be changed in place" in record.reason


def test_not_a_network():
    with pytest.raises(OptionError, match="must be a torch"):
        accelerate(torch.zeros(3))


def test_the_report_names_what_could_not_be_traced():
    kinds = {kind.__name__: kind for kind in CASES}
    network = nn.Sequential(kinds["BranchOnValues"](), ModuleActivation())
    text = str(accelerate_with_report(network)[1])
    assert text.startswith("2 of 2 normalisers became drop-ins, 1 with something fused.\n0.norm")
    assert re.search(
        r"\n0\.norm +BatchNorm2d +nothing fused: 0 is not traced: its forward is no straight", text
    )
    assert re.search(r"\n1\.norm +BatchNorm2d  relu\n", text), text
    assert re.search(r"Not traced, and accelerated module by module:\n0 +BranchOnValues  its forward", text)


class AddedIn(Case):
    """Adds its second argument in one of three ways."""

    def __init__(self, way) -> None:
        super().__init__()
        self.way = way

    def forward(self, x, residual):
        y = self.norm(x)
        if self.way == "in place":
            y += residual
        else:
            y = y + residual if self.way == "norm first" else residual + y
        return F.relu(y)


RESIDUALS = {
    "alike": lambda x: x + 1,
    "wider dtype": lambda x: x.double(),
    "narrower dtype": lambda x: x.bfloat16(),
    "other strides": lambda x: x.contiguous(memory_format=torch.channels_last),
    "same strides, fewer": lambda x: x[:1],
    "more axes": lambda x: x.repeat(2, 1, 1, 1, 1),
    "integers": lambda x: x.long(),
    "expanded": lambda x: x[:1].expand(x.shape),
    "scalar": lambda x: x.sum(),
}


@pytest.mark.parametrize("kind", RESIDUALS)
@pytest.mark.parametrize("way", ["in place", "norm first", "norm last"])
def test_a_residual_that_is_not_like_the_output(way, kind):
    network = randomise(AddedIn(way)).float()
    fast, report = accelerate_with_report(network)
    assert record_of(report).fused == ("residual + relu",)
    x = X.float()
    residual = RESIDUALS[kind](x)
    try:
        expected = network(x, residual)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            fast(x, residual)
        return
    actual = fast(x, residual)
    assert (actual.dtype, actual.shape, actual.stride()) == (
        expected.dtype,
        expected.shape,
        expected.stride(),
    )
    # float32: a rounding each of x̂, its product and two sums, theirs and ours
    assert torch.allclose(actual, expected, rtol=16 * 2**-24, atol=16 * 2**-24)
    assert (fused_calls(fast, x, residual) == 1) == (kind == "alike")


def test_two_normalisers_added_to_each_other():
    class Both(Case):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.relu(self.norm(self.conv(x)) + self.other(self.tail(x)))

    network = randomise(Both())
    fast, report = accelerate_with_report(network)
    assert fused_of(report) == {"norm": ("residual + relu",)}
    assert report.normalisers[1].reason == "it is the residual of another one"
    assert_same(network, fast, call)


class Sums(nn.Module):
    """Adds branches to each other one after the other, as TextNet does; or the first to the sum of others."""

    def __init__(self, first_last) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(4))
        self.first_last = first_last

    def forward(self, x):
        a, b, c, d = (norm(x) for norm in self.norms)
        return torch.relu(a + ((b + c) + d)) if self.first_last else torch.relu(((a + b) + c) + d)


@pytest.mark.parametrize("first_last", [False, True])
def test_a_sum_of_normalisers_that_another_one_is_added_to(first_last):
    network = randomise(Sums(first_last))
    fast, report = accelerate_with_report(network)
    fused = list(fused_of(report).values())
    assert sorted(fused) == [("residual",), ("residual",), ("residual + relu",)]
    assert fused[0] == (("residual + relu",) if first_last else ("residual",))
    assert_same(network, fast, call)
    assert fused_calls(fast, X) == 3


def test_a_container_with_hooks_is_not_traced_through():
    network = randomise(ThroughContainers())
    seen = []
    network.branch[0].register_forward_hook(lambda module, args, y: seen.append(y.shape))
    fast, report = accelerate_with_report(network)
    assert record_of(report).fused == ()
    assert seen == []
    assert_close(fast(X), network(X))
    assert seen == [X.shape, X.shape]


def test_a_module_that_the_proof_relies_on_is_replaced_later():
    class Between(Case):
        def forward(self, x):
            x = x * 1
            y = self.norm(x)
            return self.relu(y + self.tail(x))

    network, fast = accelerated(Between)
    assert fused_calls(fast, X) == 1
    for part in (network, fast):
        part.tail = Doubles()
    with torch.no_grad():
        assert_close(fast(X), network(X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_class_patched_later_counts(monkeypatch):
    network, fast = accelerated()
    monkeypatch.setattr(ModuleActivation, "forward", lambda self, x: self.norm(x).tanh())
    assert_close(fast(X), network(X))


def test_where_it_is_called_does_not_count():
    network = randomise(PartWithoutGradient())
    with torch.no_grad(), torch.autocast("cpu"):
        fast, report = accelerate_with_report(network)
    assert record_of(report).fused == ()
    assert_same(network, fast, call)


class Output(OrderedDict):
    """As Transformers has them."""


def test_a_mapping_of_its_own_is_returned_as_it_was():
    class Returns(Case):
        def forward(self, x):
            return Output(y=F.relu(self.norm(x)))

    _, fast = accelerated(Returns)
    assert type(fast(X)) is Output


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 5, 5)])
def test_parts_are_unpacked_to_the_last(shape):
    class Unpacks(Case):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(5)

        def forward(self, x):
            _, channels, _, _ = x.shape
            return F.relu(self.norm(x)) * channels

    network, fast = accelerated(Unpacks)
    assert_same(network, fast, call)
    assert fused_calls(fast, X) == 1
    x = torch.randn(shape, dtype=torch.float64)
    for part in (network, fast):
        with pytest.raises(ValueError, match="values to unpack"):
            part(x)


@pytest.mark.parametrize("there", [True, False])
def test_a_parameter_is_there_no_more_or_now(there):
    class Scaled(Case):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.full((1,), 2.0)) if there else None

        def forward(self, x):
            y = F.relu(self.norm(x))
            return y if self.scale is None else y * self.scale

    network, fast = accelerated(Scaled)
    for part in (network, fast):
        part.scale = None if there else nn.Parameter(torch.full((1,), 2.0, dtype=X.dtype))
    assert_same(network, fast, call)


def test_a_buffer_that_is_no_attribute_is_not_counted_in_by_the_trace():
    class Counts(Case):
        def forward(self, x):
            dict(self.named_buffers())["norm.num_batches_tracked"].add_(1)
            return F.relu(self.norm(x))

    network = randomise(Counts())
    expected = copy.deepcopy(network)
    report = accelerate_with_report(network, inplace=True)[1]
    assert "computes with a tensor" in record_of(report).reason
    assert_same(expected, network, call)
