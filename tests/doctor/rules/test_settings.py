"""Rules about settings: momentum, groups, layouts and kernels."""

from __future__ import annotations

import pytest
import torch
from graphs import Calls, found, images
from torch import nn
from torch.nn import functional as F

import normwright as nw


@pytest.mark.parametrize(
    ("momentum", "severity"),
    [
        (0.0, "error"),
        (0.99, "warning"),
        (1.0, "warning"),
        (0.51, "warning"),
        (5e-5, "warning"),
        (0.5, ""),
        (0.1, ""),
        (0.01, ""),
        (0.005, ""),
        (0.001, "note"),  # Keras's MobileNetV3
        (0.0003, "note"),  # TensorFlow's MobileNets
        (None, ""),
    ],
)
def test_momentum(momentum, severity):
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=momentum))
    findings = found("momentum_extreme", network, torch.randn(8, 4))
    assert [finding.severity for finding in findings.values()] == ([severity] if severity else [])


@pytest.mark.parametrize("momentum", [-5.0, -0.1, 1.5, 3.0])
def test_momentum_that_is_no_share(momentum):
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=momentum))
    finding = found("momentum_extreme", network, torch.randn(8, 4))["1"]
    assert finding.severity == "error"
    assert finding.message == (
        f"momentum {momentum:g} is no share: the newest batch weighs {momentum:g} in its running statistics "
        f"and all before it {1 - momentum:g}, which is no mean"
    )
    assert finding.fix().network[1].momentum == 0.1


def test_momentum_1_is_said_to_be_the_newest_batch():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=1.0))
    finding = found("momentum_extreme", network, torch.randn(8, 4))["1"]
    assert finding.message == "momentum 1: its running statistics are those of the newest batch alone"


def test_what_decays_is_named():
    network = nn.Sequential(nn.Linear(4, 4), nn.RMSNorm(4), nn.BatchNorm1d(4), nn.LayerNorm(4))
    groups = [
        {"params": [*network[:2].parameters(), *network[3].parameters()], "weight_decay": 0.01},
        {"params": [network[2].weight], "weight_decay": 0.5},
        {"params": [network[2].bias]},
    ]
    optimiser = torch.optim.SGD(groups, lr=0.1)
    batch = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
    diagnosis = nw.diagnose(network, [batch], optimiser=optimiser, rules=["weight_decay_on_norm"])
    assert {finding.layer: (finding.message, finding.value) for finding in diagnosis.findings} == {
        "1": ("weight decays by 0.01", 0.01),
        "2": ("weight decays by 0.5", 0.5),
        "3": ("weight and bias decay by 0.01", 0.01),
    }


def test_momentum_so_small_that_statistics_are_known_late():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=0.001))
    finding = found("momentum_extreme", network, torch.randn(8, 4))["1"]
    # ln(0.01) / ln(0.999) = 4602.9
    assert "4,603 batches must pass until less than 1% of its running statistics are the initial" in (
        finding.message
    )
    assert finding.fix().network[1].momentum == 0.1


@pytest.mark.parametrize(
    ("momentum", "meant"), [(0.99, 0.01), (0.9, 0.1), (0.997, 0.003), (1.0, 0.1), (0.0, 0.1), (0.6, 0.1)]
)
def test_momentum_is_taken_for_what_it_means_elsewhere(momentum, meant):
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=momentum))
    finding = found("momentum_extreme", network, torch.randn(8, 4))["1"]
    assert ("Keras" in finding.message) == (momentum in (0.99, 0.9, 0.997))
    assert finding.fix().network[1].momentum == meant


def test_momentum_that_moves_nothing_does_not_matter():
    norms = [
        nw.freeze(nn.BatchNorm1d(4, momentum=0.99)),
        nn.BatchNorm1d(4, momentum=0.99, track_running_stats=False),
        nn.InstanceNorm1d(4, momentum=0.99),
    ]
    for norm in norms:
        assert not found("momentum_extreme", nn.Sequential(norm), torch.randn(8, 4, 3))
    assert found(
        "momentum_extreme",
        nn.InstanceNorm1d(4, momentum=0.99, track_running_stats=True),
        torch.randn(8, 4, 3),
    )


@pytest.mark.parametrize(
    ("norm", "shape", "elements"),
    [
        (nn.GroupNorm(4, 4), (8, 4), 1),
        (nn.GroupNorm(2, 4), (8, 4), 2),
        (nn.GroupNorm(1, 4), (8, 4), None),
        (nn.GroupNorm(4, 4), (8, 4, 5), None),
        (nn.LayerNorm(1), (8, 5, 1), 1),
        (nn.LayerNorm(2), (8, 2), 2),
        (nn.LayerNorm(3), (8, 3), None),
        (nn.RMSNorm(1), (8, 1), 1),
        (nn.RMSNorm(2), (8, 2), None),
        (nn.InstanceNorm1d(4), (8, 4, 2), 2),
        (nn.InstanceNorm1d(4), (4, 3), None),  # one sample of three elements
        (nn.BatchNorm1d(4), (2, 4), None),  # the batch's size is another rule's
    ],
    ids=str,
)
def test_elements_per_moment(norm, shape, elements):
    findings = found("group_of_one", nn.Sequential(norm), torch.randn(shape))
    assert [finding.value for finding in findings.values()] == ([elements] if elements else [])
    for finding in findings.values():
        assert finding.severity == "error"
        y = norm(torch.randn(shape)).detach().abs()
        # what the message says of such inputs, but for those that eps is not small against
        expected = 0.0 if "gives 0" in finding.message else 1.0
        assert float((y - expected).abs().median()) < 0.01


def test_functions_have_too_few_elements_too():
    network = Calls(lambda m, x: F.group_norm(m.linear(x), 4), linear=nn.Linear(4, 4))
    finding = found("group_of_one", network, torch.randn(8, 4))[": group_norm"]
    assert not finding.treatable


def test_fewer_groups_keep_weight_and_bias():
    network = nn.Sequential(nn.Linear(4, 12), nn.GroupNorm(6, 12))
    treated = found("group_of_one", network, torch.randn(8, 4))["1"].fix()
    assert treated.mended
    assert treated.network[1].num_groups == 4  # the most that leaves three elements


def test_a_copy_before_and_after_a_norm():
    def forward(m, x):
        return m.norm(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2).contiguous().relu()

    finding = found("slow_layout", Calls(forward, norm=nn.LayerNorm(3)), images())["norm"]
    assert finding.severity == "note"
    assert "before it (permute, contiguous)" in finding.message
    assert "for : relu (permute, contiguous)" in finding.message


def test_layouts_that_meet_in_a_sum():
    def forward(m, x):
        return m.norm(m.conv(x)) + x.contiguous()

    network = Calls(forward, conv=nn.Conv2d(4, 4, 1), norm=nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    message = found("slow_layout", network, images(4).to(memory_format=torch.channels_last))["norm"].message
    assert "adds what is contiguous to what is channels_last" in message


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_one_layout_throughout(layout):
    def forward(m, x):
        return m.norm(m.conv(x)) + x

    network = Calls(forward, conv=nn.Conv2d(4, 4, 1), norm=nn.GroupNorm(2, 4)).to(memory_format=layout)
    assert not found("slow_layout", network, images(4).to(memory_format=layout))


def test_kernels_that_there_are():
    class CallsPyTorchs(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x)

    norms = [nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.LayerNorm(8), nn.RMSNorm(8), nw.nn.BatchRenorm2d(3)]
    network = nn.Sequential(*norms, nw.nn.BatchNorm2d(3), CallsPyTorchs(8))
    assert not found("slow_kernel", network, images())


def test_kernels_that_there_are_not():
    class Own(nn.LayerNorm):
        def forward(self, x):
            variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
            return (x - mean) * torch.rsqrt(variance + self.eps)

    network = Calls(
        lambda m, x: F.layer_norm(m.own(m.response(nw.functional.layer_norm(x, (8,)))), (8,)),
        response=nn.LocalResponseNorm(2),
        own=Own(8),
    )
    findings = found("slow_kernel", network, images())
    # normwright's own function comes first, so that PyTorch's is the second layer_norm
    assert set(findings) == {"response", "own", ": layer_norm#2"}
    assert "no fused kernel for LocalResponseNorm" in findings["response"].message
