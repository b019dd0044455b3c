"""Rules about the order of activation, dropout and normaliser."""

from __future__ import annotations

import pytest
import torch
from graphs import Calls, found, images
from torch import nn
from torch.nn import functional as F

from normwright.doctor.diagnose import examine
from normwright.doctor.rule import all_rules
from normwright.doctor.subject import Subject


def test_activation_as_a_function_and_pooling_between():
    def forward(m, x):
        return m.norm(F.max_pool2d(F.relu(m.conv(x)), 2))

    network = Calls(forward, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4))
    finding = found("norm_after_activation", network, images())["norm"]
    assert finding.severity == "note"
    assert "relu" in finding.message
    assert not finding.treatable


def test_preactivation_and_dense_blocks_are_in_order():
    def residual(m, x):
        return m.conv2(F.relu(m.norm(x + F.relu(m.conv1(x)))))

    def dense(m, x):
        return m.conv2(F.relu(m.norm(torch.cat([x, F.relu(m.conv1(x))], 1))))

    for forward, channels in ((residual, 3), (dense, 6)):
        network = Calls(
            forward,
            conv1=nn.Conv2d(3, 3, 3, padding=1),
            norm=nn.BatchNorm2d(channels),
            conv2=nn.Conv2d(channels, 3, 1),
        )
        assert not found("norm_after_activation", network, images())


def test_layer_norm_after_an_activation_is_meant():
    network = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4))
    assert not found("norm_after_activation", network, torch.randn(8, 4))


def test_exchanging_numbered_modules_keeps_the_rest():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten())
    treated = found("norm_after_activation", network, images())["2"].fix()
    assert [type(module).__name__ for module in treated.network] == [
        "Conv2d",
        "BatchNorm2d",
        "ReLU",
        "Flatten",
    ]
    assert list(treated.network._modules) == ["0", "1", "2", "3"]
    x = images()
    expected = treated.network[1](treated.network[0](x)).relu().flatten(1)
    assert torch.equal(treated.network(x), expected)


def test_the_shift_that_dropout_makes_is_measured():
    torch.manual_seed(0)
    p = 0.4
    network = nn.Sequential(nn.Dropout(p), nn.BatchNorm1d(64))
    finding = found("dropout_before_norm", network, torch.randn(2048, 64))["1"]
    # x·mask/(1 - p) of x of mean 0 has the variance 1/(1 - p); over 64 channels of 2,048 samples its standard
    # error is below √(kurtosis/(64·2048)) = √(3/(1 - p)/131072) of that
    assert finding.value == pytest.approx(1 / (1 - p), rel=4 * (3 / (1 - p) / 131072) ** 0.5)
    assert finding.severity == "warning"


def test_the_shift_is_dropouts_alone():
    """The normaliser above it trains in both; its running statistics are of no such input."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(64), nn.Tanh(), nn.Dropout(0.5), nn.BatchNorm1d(64))
    finding = found("dropout_before_norm", network, torch.randn(2048, 64) / 100)["3"]
    assert finding.value == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("samples", [2, 4])
def test_the_shift_is_told_of_small_batches_as_of_large_ones(samples):
    """A channel that dropout leaves nothing of in one batch is not one without variance."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(64))
    (many,), (few,) = (
        examine(
            Subject(network, tuple(torch.randn(size, 8) for _ in range(count))),
            [all_rules()["dropout_before_norm"]],
        ).findings
        for size, count in ((512, 1), (samples, 32))
    )
    assert many.value == pytest.approx(2.4, rel=0.1)
    assert few.value == pytest.approx(many.value, rel=0.25)


def test_dropout_that_a_layer_evens_out_is_no_more_than_a_note():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.02), nn.Linear(256, 64), nn.BatchNorm1d(64))
    findings = found("dropout_before_norm", network, torch.randn(512, 256))
    assert {finding.severity for finding in findings.values()} <= {"note"}


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Dropout(0.0), nn.BatchNorm1d(8)),
        nn.Sequential(nn.Dropout(0.5), nn.LayerNorm(8)),
        nn.Sequential(nn.Dropout(0.5), nn.LayerNorm(8), nn.Linear(8, 8), nn.BatchNorm1d(8)),
        nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(8, track_running_stats=False)),
        nn.Sequential(nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)),
    ],
    ids=["off", "layer norm", "layer norm between", "no running statistics", "dropout last"],
)
def test_dropout_that_does_no_harm(network):
    assert not found("dropout_before_norm", network, torch.randn(32, 8))


def test_dropout_as_a_function_on_the_other_branch():
    def forward(m, x):
        return m.norm(x + F.dropout(m.linear(x), 0.5, m.training))

    network = Calls(forward, linear=nn.Linear(8, 8), norm=nn.BatchNorm1d(8))
    finding = found("dropout_before_norm", network, torch.randn(64, 8))["norm"]
    assert ": dropout" in finding.message
    assert not finding.treatable
