"""The monitor in a plain training loop."""

from __future__ import annotations

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils.checkpoint import checkpoint

import normwright as nw
from normwright.doctor.missing import SkipError
from normwright.errors import OptionError


def small():
    torch.manual_seed(0)
    convolution = [nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*convolution, nn.Dropout(0.1), nn.Flatten(), nn.Linear(144, 3))


def sgd(network, **options):
    return torch.optim.SGD(network.parameters(), **{"lr": 0.05, "momentum": 0.9, **options})


def loss_of(network):
    return nn.functional.cross_entropy(network(torch.randn(8, 1, 8, 8)), torch.randint(3, (8,)))


def train(network, optimiser, steps, *, between=lambda: None, parts=1):
    torch.manual_seed(1)
    for _ in range(steps):
        optimiser.zero_grad()
        for _ in range(parts):
            (loss_of(network) / parts).backward()
        optimiser.step()
        between()


def bits(network, optimiser):
    state = [*network.state_dict().values(), *(s["momentum_buffer"] for s in optimiser.state.values())]
    return [tensor.clone() for tensor in [*state, torch.get_rng_state()]]


def same(one, two):
    return len(one) == len(two) and all(map(torch.equal, one, two))


def test_training_is_not_changed():
    one, two = small(), small()
    plain, watched = sgd(one), sgd(two)
    train(one, plain, 9)
    expected = bits(one, plain)
    with nw.Monitor(two, watched, every=4, steps=2) as monitor:
        train(two, watched, 9)
    assert same(bits(two, watched), expected)
    assert len(monitor.windows) == 2


def test_windows_come_every_so_often_and_a_part_of_one_is_left_out():
    network = small()
    optimiser = sgd(network)
    with nw.Monitor(network, optimiser, every=5, steps=2) as monitor:
        train(network, optimiser, 11)
        assert [(w.first, w.last) for w in monitor.windows] == [(0, 1), (5, 6)]


def test_it_reads_what_a_step_gives():
    network = small()
    optimiser = sgd(network, momentum=0.0, lr=0.5)
    given, before, gradients = [], [], []
    network[1].register_forward_pre_hook(lambda module, args: given.append(args[0].detach().clone()))

    def note(*_):
        before.append(network[0].weight.detach().clone())
        gradients.append(network[0].weight.grad.clone())

    optimiser.register_step_pre_hook(note)
    with nw.Monitor(network, optimiser, every=2, steps=2) as monitor:
        train(network, optimiser, 2)
    evidence = monitor.windows[0].evidence
    layer = next(layer for layer in evidence.activations if layer.layer == "1")
    assert layer.calls == (1, 1)
    whole = given[0].double()  # 8 × 4 × 6 × 6 elements: all are read
    assert layer.inputs[0].mean == pytest.approx(float(whole.mean()), rel=1e-12)
    assert layer.inputs[0].deviation == pytest.approx(float(whole.std(correction=0)), rel=1e-12)
    facts = next(facts for facts in evidence.gradients if facts.parameter == "0.weight")
    expected = [float(gradient.double().norm()) for gradient in gradients]
    assert facts.norms == pytest.approx(expected, rel=1e-5)
    ratios = [
        0.5 * float(gradient.double().norm() / weight.double().norm())
        for gradient, weight in zip(gradients, before, strict=True)
    ]
    assert facts.ratios == pytest.approx(ratios, rel=1e-4)
    with pytest.raises(SkipError, match="while a network trains"):
        _ = evidence.graph


def test_a_validation_between_two_steps_is_not_heard():
    network = small()
    optimiser = sgd(network)

    def validate():
        network.eval()
        with torch.no_grad():
            network(100 + torch.randn(8, 1, 8, 8))
        network.train()
        with torch.no_grad():
            network(100 + torch.randn(8, 1, 8, 8))

    with nw.Monitor(network, optimiser, every=3, steps=3) as monitor:
        train(network, optimiser, 3, between=validate)
    layer = next(layer for layer in monitor.windows[0].evidence.activations if layer.layer == "1")
    assert layer.calls == (1, 1, 1)
    assert all(abs(spread.mean) < 10 for spread in layer.inputs)
    assert all(abs(mean) < 10 for part in monitor.windows[0].evidence.inputs for mean in part.means)


def test_accumulated_forwards_belong_to_one_step():
    network = small()
    optimiser = sgd(network)
    with nw.Monitor(network, optimiser, every=2, steps=2) as monitor:
        train(network, optimiser, 2, parts=3)
    layer = next(layer for layer in monitor.windows[0].evidence.activations if layer.layer == "1")
    assert layer.calls == (3, 3)


def test_a_step_with_a_closure_is_seen_and_its_loss():
    one, two = small(), small()
    losses = []

    def closure(network, optimiser):
        def run():
            optimiser.zero_grad()
            loss = loss_of(network)
            loss.backward()
            losses.append(loss.item())
            return loss

        return run

    plain, watched = torch.optim.LBFGS(one.parameters()), torch.optim.LBFGS(two.parameters())
    torch.manual_seed(1)
    plain.step(closure(one, plain))
    losses.clear()
    torch.manual_seed(1)
    with nw.Monitor(two, watched, every=1, steps=1) as monitor:
        watched.step(closure(two, watched))
    assert len(losses) > 1
    assert monitor.windows[0].evidence.losses == (losses[0],)
    layer = next(layer for layer in monitor.windows[0].evidence.activations if layer.layer == "1")
    assert layer.calls == (1,)
    assert same(list(one.state_dict().values()), list(two.state_dict().values()))


def test_a_finding_is_told_once(caplog):
    network = small()
    optimiser = sgd(network, weight_decay=0.1)
    told = []
    with nw.Monitor(network, optimiser, every=2, steps=1, on_finding=told.append) as monitor:
        train(network, optimiser, 5)
    decays = [finding for finding in told if finding.rule == "weight_decay_on_norm"]
    assert [finding.layer for finding in decays] == ["1"]
    assert any(finding.rule == "weight_decay_on_norm" for finding in monitor.findings)
    caplog.set_level(logging.INFO, logger="normwright")
    with nw.Monitor(network, optimiser, every=1, steps=1, rules=["weight_decay_on_norm"]):
        train(network, optimiser, 2)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["weight_decay_on_norm in 1"]


def test_closing_takes_every_hook_off():
    network = small()
    optimiser = sgd(network)

    def hooks():
        found = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
        return (
            sum(found) + len(optimiser._optimizer_step_pre_hooks) + len(optimiser._optimizer_step_post_hooks)
        )

    before = hooks()
    monitor = nw.Monitor(network, optimiser, every=3, steps=2)
    train(network, optimiser, 1)
    assert hooks() > before
    monitor.close()
    assert hooks() == before
    monitor.close()
    assert torch._C._len_torch_function_stack() == 0


def test_an_error_in_the_loop_leaves_no_hook():
    network = small()
    optimiser = sgd(network)

    def loop():
        with nw.Monitor(network, optimiser):
            loss_of(network)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert torch._C._len_torch_function_stack() == 0


def compiled_in_place(network):
    network.compile(backend="eager")
    return network


def compiled_in_part(network):
    network[0].compile(backend="eager")
    return network


COMPILED = {
    "whole": lambda network: torch.compile(network, backend="eager"),
    "wrapped": lambda network: nn.DataParallel(torch.compile(network, backend="eager")),
    "in place": compiled_in_place,
    "in part": compiled_in_part,
}


@pytest.mark.parametrize("way", COMPILED)
def test_a_compiled_network_is_read_by_its_gradients(way):
    """Inside a wrapper, or in part, the observers were compiled with it, until no more would be compiled."""
    network = small()
    compiled = COMPILED[way](network)
    optimiser = sgd(network)
    with nw.Monitor(compiled, optimiser, every=2, steps=2) as monitor:
        train(compiled, optimiser, 2)
    evidence = monitor.windows[0].evidence
    assert len(evidence.gradients) == 5
    with pytest.raises(SkipError, match="compiled"):
        _ = evidence.activations


class Broken(nn.Module):
    """Not compiled in one piece."""

    def __init__(self):
        super().__init__()
        self.inner = small()

    def forward(self, x):
        torch._dynamo.graph_break()
        return self.inner(x)


@pytest.mark.parametrize("make", [small, Broken])
@pytest.mark.parametrize("warm", [False, True])
def test_a_network_that_is_compiled_elsewhere_is_not_compiled_with_its_observers(make, warm):
    """They were, anew in every step, until no more was compiled: 80 seconds for three layers."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    network = make()
    compiled = torch.compile(network, backend=backend)
    optimiser = sgd(network)
    if warm:
        train(compiled, optimiser, 1)
    before = len(graphs)
    with nw.Monitor(network, optimiser, every=4, steps=2, on_finding=lambda _: None) as monitor:
        train(compiled, optimiser, 12)
    # with what listens, for the first step; and without, unless that was there
    assert len(graphs) - before <= 2
    assert len(monitor.windows) == 3
    for window in monitor.windows:
        assert len(window.evidence.gradients) == 5
        with pytest.raises(SkipError, match="compiled"):
            _ = window.evidence.activations
        with pytest.raises(SkipError, match="compiled"):
            _ = window.evidence.inputs


class OfFeatures(nn.Module):
    """Trains on what another network has computed."""

    def __init__(self):
        super().__init__()
        self.activation, self.head = nn.GELU(), nn.Linear(4, 3)

    def forward(self, features):
        return self.head(self.activation(features).clone())


def test_features_of_inference_mode_are_heard():
    """Asked whether they were written to, they raise; and so did the user's training."""
    with torch.inference_mode():
        features = torch.randn(8, 4)
    network = OfFeatures()
    optimiser = sgd(network)
    with nw.Monitor(network, optimiser, every=2, steps=1, on_finding=lambda _: None) as monitor:
        network(features).sum().backward()
        optimiser.step()
    assert [facts.layer for facts in monitor.windows[0].evidence.activations] == ["activation", "head"]


def test_a_step_that_a_scaler_skips_is_no_step():
    network = small()
    optimiser = sgd(network)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with nw.Monitor(network, optimiser, every=2, steps=2) as monitor:
        for scale in (1.0, float("inf"), 1.0):
            optimiser.zero_grad()
            scaler.scale(loss_of(network) * scale).backward()
            scaler.step(optimiser)
            scaler.update()
    assert [(w.first, w.last) for w in monitor.windows] == [(0, 1)]


@pytest.mark.parametrize("skipped", [False, True])
def test_a_scaler_leaves_a_fused_optimisers_gradients_as_they_are(skipped):
    read = []
    for fused in (False, True):
        network = small()
        optimiser = torch.optim.Adam(network.parameters(), fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        with nw.Monitor(network, optimiser, every=2, steps=2) as monitor:
            torch.manual_seed(1)
            for scale in (1.0, float("inf"), 1.0) if skipped else (1.0, 1.0):
                optimiser.zero_grad()
                scaler.scale(loss_of(network) * scale).backward()
                scaler.step(optimiser)
                scaler.update()
        (window,) = monitor.windows
        assert (window.first, window.last) == (0, 1)
        read.append([norm for facts in window.evidence.gradients for norm in facts.norms])
    assert read[1] == pytest.approx(read[0], rel=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_part_is_heard(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small()

        def forward(self, x):
            return checkpoint(self.body, x.requires_grad_(), use_reentrant=reentrant)

    network = Checkpointed()
    optimiser = sgd(network)
    with nw.Monitor(network, optimiser, every=2, steps=2) as monitor:
        train(network, optimiser, 2)
    activations = {facts.layer: facts.calls for facts in monitor.windows[0].evidence.activations}
    assert activations["body.1"] == (1, 1)


def test_a_network_keeps_being_copied_while_it_is_watched():
    network = small()
    optimiser = sgd(network)
    with nw.Monitor(network, optimiser, every=2, steps=2) as monitor:
        average = torch.optim.swa_utils.AveragedModel(network)
        train(network, optimiser, 1)
        average.update_parameters(network)
        copy.deepcopy(network)(torch.randn(8, 1, 8, 8))
        train(network, optimiser, 1)
    layer = next(layer for layer in monitor.windows[0].evidence.activations if layer.layer == "1")
    assert len(layer.calls) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a whole number"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"every": 2, "steps": 3}, "3 of every 2"),
        ({"rules": ["nonsense"]}, "unknown rule"),
        ({"rules": "nonfinite_values"}, "rules= must be names in a list"),
        ({"rules": 3}, "rules= must be names in a list"),
    ],
)
def test_bad_options(options, message):
    network = small()
    with pytest.raises(OptionError, match=message):
        nw.Monitor(network, sgd(network), **options)


def test_the_optimiser_of_another_network():
    with pytest.raises(OptionError, match="must hold parameters of the network"):
        nw.Monitor(small(), sgd(small()))


def overflowing(steps, network, wrapped):
    """What a plain loop finds in a network whose second layer overflows float32."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1e30)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    with nw.Monitor(wrapped, optimiser, every=8, steps=steps, rules=["nonfinite_values"]) as monitor:
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(wrapped(torch.rand(8, 4)), torch.randint(2, (8,))).backward()
            optimiser.step()
    return monitor.findings


def test_an_overflow_is_an_error_though_no_loss_is_seen():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    [finding] = overflowing(2, network, network)
    assert (finding.severity, finding.layer) == ("error", "2")
    assert finding.message == "16 of 16 outputs are NaN or infinite in mini-batch 1, here first"


def test_an_overflow_is_found_in_a_compiled_network():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    [finding] = overflowing(2, network, torch.compile(network, backend="eager"))
    assert finding.severity == "error"
    assert finding.message == "its gradient is NaN or infinite in mini-batch 1"


def test_a_finding_that_becomes_graver_is_told_again():
    """A few dead units are a note, most of them a warning."""
    network = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 2))
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-6)
    told = []
    options = {"every": 1, "steps": 1, "rules": ["dead_units"], "on_finding": told.append}
    with nw.Monitor(network, optimiser, **options):
        for dead in (4, 4, 18, 18, 4):
            with torch.no_grad():
                network[0].bias.fill_(10.0)[:dead] = -100.0
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(torch.rand(128, 4)), torch.randint(2, (128,))).backward()
            optimiser.step()
    assert [finding.severity for finding in told] == ["note", "warning"]


def test_its_name_tells_what_it_watches():
    network = small()
    optimiser = sgd(network)
    with nw.Monitor(network, optimiser, every=3, steps=2, on_finding=lambda finding: None) as monitor:
        assert repr(monitor) == "Monitor(Sequential, SGD, every=3, steps=2: 0 steps, no window yet)"
        train(network, optimiser, 5)
        count = len(monitor.findings)
        assert repr(monitor).startswith("Monitor(Sequential, SGD, every=3, steps=2: 5 steps, 2 windows, ")
        assert repr(monitor).count(" note") == (count > 0)
    assert repr(monitor).endswith(", closed)")


def test_its_name_counts_findings_in_the_plural(monkeypatch):
    network = small()
    optimiser = sgd(network)
    found = [SimpleNamespace(severity=severity) for severity in ("warning", "warning", "note")]
    with nw.Monitor(network, optimiser, every=3, steps=2, on_finding=lambda finding: None) as monitor:
        train(network, optimiser, 5)
        monkeypatch.setattr(nw.Monitor, "findings", found)
        assert "the latest with 2 warnings, 1 note" in repr(monitor)


def test_a_default_device_that_begins_or_ends_within_a_window_is_the_users():
    """PyTorch ends a mode by taking off the topmost, which must be that of `with torch.device`."""
    network = small()
    optimiser = sgd(network)
    with nw.Monitor(network, optimiser, every=4, steps=2) as monitor:
        with torch.device("meta"):
            assert torch.empty(1).is_meta
        for steps in (1, 2, 1, 2, 2):
            with torch.device("cpu"):
                train(network, optimiser, steps)
                with torch.device("meta"):
                    assert torch.empty(1).is_meta
            assert not any(isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack())
    assert not _get_current_function_mode_stack()
    assert [len(window.evidence.activations) for window in monitor.windows] == [4, 4]


def test_a_default_device_that_is_set_within_a_window_is_the_users():
    network = small()
    optimiser = sgd(network)
    try:
        with nw.Monitor(network, optimiser, every=4, steps=2):
            torch.set_default_device("cpu")
            train(network, optimiser, 5)
            torch.set_default_device(None)
            train(network, optimiser, 1)
            torch.set_default_device("cpu")
    finally:
        torch.set_default_device(None)
    assert not _get_current_function_mode_stack()


class _Calling(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = small()

    def forward(self, x):
        return nn.functional.softplus(self.inside(x))


def test_monitors_of_two_networks_that_train_in_turn():
    """The first of their windows to end must not end what the other hears."""
    one, two = _Calling(), _Calling()
    optimisers = sgd(one), sgd(two)
    with (
        nw.Monitor(one, optimisers[0], every=9, steps=1) as first,
        nw.Monitor(two, optimisers[1], every=9, steps=3) as second,
    ):
        for _ in range(4):
            train(one, optimisers[0], 1)
            train(two, optimisers[1], 1)
    for monitor, steps in ((first, 1), (second, 3)):
        [window] = monitor.windows
        calls = {layer.layer: layer.calls for layer in window.evidence.activations}
        assert calls[": softplus"] == calls["inside.1"] == (1,) * steps
    assert not _get_current_function_mode_stack()


def test_the_names_of_rules_may_come_one_by_one():
    network = small()
    optimiser = sgd(network, weight_decay=1e-3)
    with nw.Monitor(network, optimiser, every=1, steps=1, rules=iter(["weight_decay_on_norm"])) as monitor:
        train(network, optimiser, 1)
    assert [finding.rule for finding in monitor.findings] == ["weight_decay_on_norm"]
