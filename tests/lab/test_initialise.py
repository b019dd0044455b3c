"""Initial weights have the spread that their formula says, gate by gate, and biases are zero."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from normwright.errors import OptionError
from normwright.lab.initialise import initialise


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def assert_deviation(weight: Tensor, expected: float, kurtosis: float) -> None:
    """The deviation of n values has relative standard error √((kurtosis − 1) / 4n); allows five of them."""
    error = 5 * math.sqrt((kurtosis - 1) / (4 * weight.numel()))
    assert float(weight.detach().std()) == pytest.approx(expected, rel=error)


NORMAL, UNIFORM = 3.0, 1.8  # kurtosis

# layer, fan_in and fan_out by hand
FANS = [
    (nn.Linear(300, 200), 300, 200),
    (nn.Conv2d(8, 16, 5), 8 * 25, 16 * 25),
    (nn.Conv1d(30, 60, 7), 30 * 7, 60 * 7),
]


@pytest.mark.parametrize(("layer", "fan_in", "fan_out"), FANS, ids=lambda value: type(value).__name__)
def test_xavier_is_uniform_with_the_mean_of_both_fans(layer: nn.Module, fan_in: int, fan_out: int) -> None:
    initialise(layer, "xavier", std=9.0)
    bound = math.sqrt(6 / (fan_in + fan_out))
    weight = layer.get_parameter("weight")
    assert_deviation(weight, bound / math.sqrt(3), UNIFORM)
    assert weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [*[(layer, fan_in) for layer, fan_in, _ in FANS], (nn.ConvTranspose2d(16, 4, 5), 16 * 25)],
    ids=lambda value: type(value).__name__,
)
def test_kaiming_is_normal_with_two_over_fan_in(layer: nn.Module, fan_in: int) -> None:
    initialise(layer, "kaiming", std=9.0)
    assert_deviation(layer.get_parameter("weight"), math.sqrt(2 / fan_in), NORMAL)


@pytest.mark.parametrize("std", [0.01, 2.0])
def test_normal_has_the_deviation_asked_for(std: float) -> None:
    layer = nn.Conv2d(8, 16, 5)
    initialise(layer, "normal", std)
    assert_deviation(layer.weight, std, NORMAL)


@pytest.mark.parametrize("name", ["xavier", "kaiming", "normal"])
def test_biases_become_zero_and_normalisers_are_left_alone(name: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.ConvTranspose2d(4, 2, 3))
    nn.init.constant_(network[1].weight, 3.0)
    nn.init.constant_(network[1].bias, 0.5)
    initialise(network, name, std=0.1)
    assert not network[0].bias.any()
    assert not network[3].bias.any()
    assert network[1].weight.tolist() == [3.0] * 4
    assert network[1].bias.tolist() == [0.5] * 4
    assert network[2].weight.tolist() == [0.25]


def test_own_changes_nothing_and_draws_nothing() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4))
    before = [parameter.clone() for parameter in network.parameters()]
    state = torch.get_rng_state()
    initialise(network, "own", std=0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("layer", "gates"),
    [
        (nn.LSTM(60, 50, num_layers=2, bidirectional=True, proj_size=20), 4),
        (nn.GRU(60, 50), 3),
        (nn.RNN(60, 50), 1),
        (nn.LSTMCell(60, 50), 4),
        (nn.GRUCell(60, 50), 3),
        (nn.RNNCell(60, 50), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_recurrent_matrices_are_xavier_gate_by_gate(layer: nn.Module, gates: int) -> None:
    initialise(layer, "xavier", std=9.0)
    matrices = {name: p for name, p in layer.named_parameters() if name.startswith("weight")}
    assert matrices
    for name, matrix in matrices.items():
        for gate in matrix.chunk(1 if "_hr" in name else gates):
            bound = math.sqrt(6 / sum(gate.shape))
            assert_deviation(gate, bound / math.sqrt(3), UNIFORM)
            assert gate.abs().max() <= bound


def test_the_forget_gates_of_an_lstm_start_open_and_all_other_biases_at_zero() -> None:
    layer = nn.LSTM(6, 5, num_layers=2)
    initialise(layer, "normal", std=0.1)
    expected = [0.0] * 5 + [1.0] * 5 + [0.0] * 10
    for i in range(2):
        total = layer.get_parameter(f"bias_ih_l{i}") + layer.get_parameter(f"bias_hh_l{i}")
        assert total.tolist() == expected


@pytest.mark.parametrize(
    "layer", [nn.GRU(6, 5), nn.RNN(6, 5), nn.GRUCell(6, 5)], ids=lambda m: type(m).__name__
)
def test_all_biases_of_other_recurrent_layers_become_zero(layer: nn.Module) -> None:
    initialise(layer, "kaiming", std=0.1)
    assert not any(p.any() for name, p in layer.named_parameters() if name.startswith("bias"))


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 3, bias=False), nn.LSTM(4, 3, bias=False), nn.LSTMCell(4, 3, bias=False)]
)
def test_layers_without_bias(layer: nn.Module) -> None:
    initialise(layer, "normal", std=0.1)


@pytest.mark.parametrize("name", ["xavier", "kaiming", "normal"])
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    networks = [nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4)) for _ in range(2)]
    for network in networks:
        torch.manual_seed(3)
        initialise(network, name, std=0.1)
    first, second = (list(network.parameters()) for network in networks)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'xavier'"):
        initialise(nn.Linear(2, 2), "xaver", std=0.1)


@pytest.mark.parametrize(
    ("layer", "weight"),
    [(nn.Linear(4, 4), "weight"), (nn.LSTM(4, 4), "weight_hh_l0")],
    ids=["linear", "lstm"],
)
def test_a_computed_weight_is_an_error_and_nothing_is_changed(layer: nn.Module, weight: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), layer)
    nn.utils.parametrizations.weight_norm(layer, weight)
    before = network[0].weight.clone()
    with pytest.raises(OptionError, match=f"{weight} of '1'.*use the initialisation 'own'"):
        initialise(network, "xavier", std=0.1)
    assert torch.equal(network[0].weight, before)
