"""What is seen of layers: against plain NumPy on what they really gave, wherever the call stands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from normwright.doctor.subject import Subject
from normwright.doctor.training.activations import ActivationObserver
from normwright.doctor.training.trial import train

REL = 4096 * 2.0**-53 * 8


class Functional(nn.Module):
    """Calls functions in its forward, in the ways that people do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))

    def forward(self, x):
        x = F.relu(self.linear(x))
        x = torch.sigmoid(self.inner(x)) + x.tanh()
        return F.relu(F.layer_norm(x, (4,)), inplace=True)


def facts_of(network, *batches, loss=lambda y, _: y.square().mean()):
    observer = ActivationObserver()
    train(Subject(network, tuple((x, torch.zeros(len(x))) for x in batches), loss), [observer])
    return {facts.layer: facts for facts in observer.facts()}


def test_moments_are_those_of_what_layers_gave():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))
    batches = [torch.randn(8, 4), torch.randn(8, 4)]
    given = {}
    for name, module in network.named_children():
        module.register_forward_hook(
            lambda module, args, y, name=name: given.setdefault(name, []).append((args[0].clone(), y.clone()))
        )
    found = facts_of(network, *batches)
    assert list(found) == ["0", "1", "2", "3"]
    for name, facts in found.items():
        assert facts.calls == (1, 1)
        for step, (_, y) in enumerate(given[name]):
            values = y.detach().numpy().astype(np.float64)
            spread = facts.outputs[step]
            assert (spread.step, spread.count) == (step, values.size)
            assert spread.mean == pytest.approx(values.mean(), rel=REL)
            assert spread.deviation == pytest.approx(values.std(), rel=REL)
    assert [facts.of_normaliser for facts in found.values()] == [False, True, False, False]
    assert [len(facts.inputs) for facts in found.values()] == [0, 2, 0, 0]
    assert found["1"].inputs == found["0"].outputs
    flat = [float((1 - y.detach().numpy().astype(np.float64) ** 2 < 0.05).mean()) for _, y in given["2"]]
    assert found["2"].flat == pytest.approx(flat)
    assert [name for name, facts in found.items() if facts.is_output] == ["3"]


def test_functions_are_named_by_the_module_that_calls_them():
    found = facts_of(Functional(), torch.randn(8, 4))
    assert list(found) == [
        "linear", ": relu", "inner.0", "inner.1", ": sigmoid", ": tanh", ": layer_norm", ": relu#2",
    ]  # fmt: skip
    assert found[": layer_norm"].of_normaliser
    assert found[": layer_norm"].inputs
    assert found[": relu#2"].is_output
    assert found[": relu"].units == 4
    assert found["inner.1"].kind == "ReLU"
    assert found[": tanh"].flat


def test_the_input_of_an_in_place_layer_is_read_before_it():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.LayerNorm(4))
    found = facts_of(network, torch.randn(8, 4))
    assert found["1"].outputs[0].least < 0
    assert found["3"].inputs == found["2"].outputs
    assert found["2"].outputs[0].least == 0


def test_a_module_that_only_calls_a_function_is_told_of_once():
    class Activation(nn.Module):
        def forward(self, x):
            return F.gelu(x)

    found = facts_of(nn.Sequential(nn.Linear(4, 4), Activation()), torch.randn(8, 4))
    assert [name for name, facts in found.items() if facts.outputs] == ["0", "1: gelu"]


@pytest.mark.parametrize("kind", [nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish])
def test_a_unit_whose_inputs_are_just_below_zero_lives_and_one_far_below_does_not(kind):
    network = nn.Sequential(nn.Linear(4, 2), kind())
    nn.init.zeros_(network[0].weight)
    network[0].bias.data = torch.tensor([-0.01, -9.0])
    assert facts_of(network, torch.randn(64, 4))["1"].dead == (1,)


def test_a_layer_that_is_called_twice_is_counted_twice():
    shared = nn.BatchNorm1d(4)
    found = facts_of(nn.Sequential(shared, nn.ReLU(), shared), torch.randn(8, 4), torch.randn(8, 4))
    assert found["0"].calls == (2, 2)
    assert [spread.step for spread in found["0"].inputs] == [0, 1]
    assert [spread.step for spread in found["0"].outputs] == [0, 1]


def test_a_recomputation_is_not_counted():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())

        def forward(self, x):
            return F.relu(checkpoint(self.inner, x, use_reentrant=False))

    found = facts_of(Checkpointed(), torch.randn(8, 4))
    assert {name: facts.calls for name, facts in found.items()} == {
        "inner.0": (1,), "inner.1": (1,), "inner.2": (1,), ": relu": (1,),
    }  # fmt: skip


def test_a_module_that_fails_where_its_caller_goes_on():
    class Failing(nn.Module):
        def forward(self, x):
            raise RuntimeError

    class Trying(nn.Module):
        def __init__(self):
            super().__init__()
            self.failing, self.linear = Failing(), nn.Linear(4, 4)

        def forward(self, x):
            try:
                x = self.failing(x)
            except RuntimeError:
                x = self.linear(x)
            return F.relu(x)

    found = facts_of(Trying(), torch.randn(8, 4))
    assert found["linear"].calls == (1,)
    assert found[": relu"].calls == (1,)


def test_a_layer_that_is_left_out_in_a_batch():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.large = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.always(x)
            return self.large(x) if len(x) > 2 else x

    found = facts_of(Sometimes(), torch.randn(2, 4), torch.randn(8, 4))
    assert found["large"].calls == (0, 1)
    assert [spread.step for spread in found["large"].outputs] == [1]


def test_units_of_sequences_are_on_the_last_axis_and_channels_on_the_second():
    linear = facts_of(nn.Sequential(nn.Linear(4, 5), nn.ReLU()), torch.randn(8, 3, 4))["1"]
    assert (linear.units, linear.spatial, linear.seen) == (5, False, 24)
    conv = facts_of(nn.Sequential(nn.Conv1d(4, 5, 1), nn.ReLU()), torch.randn(8, 4, 3))["1"]
    assert (conv.units, conv.spatial, conv.seen) == (5, True, 24)


def test_parametrised_layers_are_layers_and_their_parametrisations_none():
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    attention = nn.MultiheadAttention(4, 2)

    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.attention = linear, attention

        def forward(self, x):
            x = self.linear(x)
            return self.attention(x, x, x)[0]

    assert list(facts_of(Attending(), torch.randn(8, 3, 4))) == ["linear", "attention"]


def test_a_compiled_part_is_seen():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    network[0] = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), backend="eager")
    network(torch.randn(8, 4))  # compiled before it is looked at
    assert {name: facts.calls for name, facts in facts_of(network, torch.randn(8, 4)).items()} == {
        "0._orig_mod.0": (1,), "0._orig_mod.1": (1,), "1": (1,),
    }  # fmt: skip


def test_hooks_are_gone_afterwards_and_after_an_exception():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    facts_of(network, torch.randn(8, 4))
    with pytest.raises(RuntimeError):
        facts_of(network, torch.randn(8, 5))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert not torch.overrides._get_current_function_mode_stack()
