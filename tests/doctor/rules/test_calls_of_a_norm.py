"""Rules about a normaliser that is called several times."""

from __future__ import annotations

import pytest
import torch
from graphs import Calls, found, images
from torch import nn

TWICE, STEPS = "norm_used_twice", "recurrent_shared_statistics"


def _norms(norm: nn.Module) -> dict[str, nn.Module]:
    return {"conv1": nn.Conv2d(3, 4, 1), "conv2": nn.Conv2d(4, 4, 1), "norm": norm}


def test_two_layers_before_one_norm():
    network = Calls(lambda m, x: m.norm(m.conv2(m.norm(m.conv1(x)).relu())), **_norms(nn.BatchNorm2d(4)))
    finding = found(TWICE, network, images())["norm"]
    assert finding.severity == "warning"
    assert finding.value == 2
    assert "conv1" in finding.message
    assert "conv2" in finding.message
    assert not found(STEPS, network, images())


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm((4, 8, 8)), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False)],
    ids=["layer", "group", "no running statistics"],
)
def test_statistics_that_are_not_shared(norm):
    network = Calls(lambda m, x: m.norm(m.conv2(m.norm(m.conv1(x)).relu())), **_norms(norm))
    assert not found(TWICE, network, images())


def test_two_inputs_of_one_branch_may_be_alike():
    def forward(m, x, y):
        return m.norm(m.conv1(x)).mean() - m.norm(m.conv1(y)).mean()

    finding = found(TWICE, Calls(forward, **_norms(nn.BatchNorm2d(4))), images(), images())["norm"]
    assert finding.severity == "note"


class _Cell(nn.Module):
    """A cell with a norm over the input's part and one over the state's."""

    def __init__(self, *, of_input: nn.Module, of_state: nn.Module) -> None:
        super().__init__()
        self.input, self.state = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.of_input, self.of_state = of_input, of_state

    def forward(self, x):
        state = x.new_zeros(len(x), 4)
        for step in range(x.shape[1]):
            one, other = self.of_input(self.input(x[:, step])), self.of_state(self.state(state))
            state = torch.tanh(one + other)
        return state


def test_every_norm_of_a_recurrent_cell():
    cell = _Cell(of_input=nn.BatchNorm1d(4), of_state=nn.BatchNorm1d(4))
    findings = found(STEPS, cell, torch.randn(8, 5, 4))
    assert set(findings) == {"of_input", "of_state"}
    assert findings["of_state"].value == 5
    assert not found(TWICE, cell, torch.randn(8, 5, 4))


def test_a_step_of_its_own_for_each_norm():
    class PerStep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.state = nn.Linear(4, 4, bias=False)
            self.norms = nn.ModuleList(nn.BatchNorm1d(4) for _ in range(3))

        def forward(self, x):
            for norm in self.norms:
                x = torch.tanh(norm(self.state(x)))
            return x

    for rule in (TWICE, STEPS):
        assert not found(rule, PerStep(), torch.randn(8, 4))


def test_all_steps_in_one_call_are_one_place():
    def forward(m, x):
        y, _ = m.lstm(x)
        return m.norm(y.flatten(0, 1))

    network = Calls(forward, lstm=nn.LSTM(4, 4, batch_first=True), norm=nn.BatchNorm1d(4))
    assert not found(TWICE, network, torch.randn(8, 5, 4))


def test_the_treatment_of_a_recurrence_is_layer_norm():
    cell = _Cell(of_input=nn.Identity(), of_state=nn.BatchNorm1d(4))
    treated = found(STEPS, cell, torch.randn(8, 5, 4))["of_state"].fix()
    assert treated.mended
    assert isinstance(treated.network.of_state, nn.LayerNorm | nn.GroupNorm)
    assert isinstance(cell.of_state, nn.BatchNorm1d)


@pytest.mark.parametrize(
    ("read", "noted"),
    [
        (lambda m, x: m.norm(m.lstm(x)[0].flatten(0, 1)), True),
        (lambda m, x: m.norm(m.lstm(x)[0].transpose(1, 2)), True),
        (lambda m, x: m.norm(m.lstm(x)[0][:, -1]), False),
        (lambda m, x: m.norm(m.lstm(x)[1][0].squeeze(0)), False),
    ],
    ids=["steps as samples", "steps as space", "last step", "last state"],
)
def test_all_steps_of_a_recurrent_layer_at_once_are_noted(read, noted):
    network = Calls(read, lstm=nn.LSTM(4, 8, batch_first=True), norm=nn.BatchNorm1d(8))
    severities = {
        name: finding.severity for name, finding in found(STEPS, network, torch.randn(6, 5, 4)).items()
    }
    assert severities == ({"norm": "note"} if noted else {})


class _OfTheSum(nn.Module):
    """A cell whose norm is over the sum of input and state, from a state of zeros on, which is a constant."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.input, self.state, self.norm = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), norm

    def forward(self, x):
        state = torch.zeros(len(x), 4)
        for step in range(x.shape[1]):
            state = torch.tanh(self.norm(self.input(x[:, step]) + self.state(state)))
        return state


def test_a_first_state_of_zeros_is_a_step_of_the_recurrence():
    network = _OfTheSum(nn.BatchNorm1d(4))
    steps = torch.randn(4, 5, 4)
    assert found(STEPS, network, steps)["norm"].value == 5
    assert not found(TWICE, network, steps)
