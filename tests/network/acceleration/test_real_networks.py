"""Networks that other people wrote. What is to be fused was counted by hand in their source."""

from __future__ import annotations

import collections

import pytest
import torch
from same import assert_loads_both_ways, assert_same, randomise
from torch import nn

from normwright.network import accelerate_with_report

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def check(network, call):
    """Everything but the counts; returns how often each thing is fused."""
    randomise(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    classes = [type(module) for module in network.modules()]
    fast, report = accelerate_with_report(network)
    assert [type(module) for module in network.modules()] == classes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert_same(network, fast, call)
    assert_loads_both_ways(network, fast)
    return collections.Counter(fused for record in report.normalisers for fused in record.fused), report


def test_resnet_50():
    transformers = pytest.importorskip("transformers")
    # Channels as narrow as the bottleneck's reduction by 4 lets them be; depths of ResNet-50.
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 16, 32, 32], depths=[3, 4, 6, 3])
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    counts, report = check(
        transformers.ResNetForImageClassification(config), lambda network: network(images).logits
    )
    # The stem and, in 3 + 4 + 6 + 3 bottlenecks, two convolutions with ReLU and a third with the residual,
    # which the bottleneck adds and activates. The shortcuts' normalisers are residuals.
    assert counts == {"relu": 1 + 2 * 16, "residual + relu": 16}
    shortcuts = [record for record in report.normalisers if "shortcut" in record.name]
    assert len(report.normalisers) == 49 + len(shortcuts)
    assert not any(record.fused for record in shortcuts)


def test_monai_unet_with_instance_norm():
    nets = pytest.importorskip("monai.networks.nets")
    network = nets.UNet(
        3, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=2, norm=("instance", {"affine": True}),
        act="relu",
    )  # fmt: skip
    x = torch.randn(2, 1, 16, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    counts, report = check(network, lambda network: network(x))
    # Two units in each of the two encoders and of the bottom; a transposed convolution per decoder and, in
    # the inner, one unit: the outer's is a bare convolution. Between norm and ReLU stands Dropout(0).
    assert counts == {"relu": 3 * 2 + 2 + 1}
    assert len(report.normalisers) == 9


def test_monai_unet_that_drops_out_in_training():
    nets = pytest.importorskip("monai.networks.nets")
    network = nets.UNet(2, 1, 1, channels=(4, 8), strides=(2,), norm="batch", act="relu", dropout=0.5)
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    counts, report = check(network, lambda network: network(x))
    # Encoder and bottom, fused in inference alone; the decoder's one convolution ends the network bare.
    assert counts == {"relu": 2}
    assert all("goes to" in record.reason for record in report.normalisers)


def test_monai_diffusion_unet_with_group_norm():
    nets = pytest.importorskip("monai.networks.nets")
    network = nets.DiffusionModelUNet(
        2, 1, 1, num_res_blocks=(1, 1), channels=(8, 16), attention_levels=(False, True), norm_num_groups=4,
        num_head_channels=8,
    )  # fmt: skip
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    steps = torch.tensor([3, 9])
    counts, report = check(network, lambda network: network(x, steps))
    # Residual blocks with two norm + SiLU each: 1 + 1 down, 2 in the middle, 2 + 2 up; and the output's.
    # The attention blocks' norms (1 down, 1 in the middle, 2 up) are followed by nothing.
    assert counts == {"silu": 2 * 8 + 1}
    assert len(report.normalisers) == 17 + 4


@pytest.mark.parametrize("name", ["Bert", "ViT"])
def test_transformers_with_layer_norm(name):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    if name == "Bert":
        network = transformers.BertModel(transformers.BertConfig(**sizes, vocab_size=20))
        x = torch.arange(12).view(2, 6)
        expected = 1 + 2 * 2
    else:
        network = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=16, patch_size=8))
        x = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        expected = 2 * 2 + 1
    counts, report = check(network, lambda network: network(x).last_hidden_state)
    # The residuals are added before the norms, or to what comes after them.
    assert counts == {}
    assert [record.became for record in report.normalisers] == ["normwright.nn.LayerNorm"] * expected
    assert all(record.reason for record in report.normalisers)


def test_a_library_s_own_rms_norm_is_ours():
    """Its forward writes RMS norm out, in six sweeps over memory."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=20
    )
    torch.manual_seed(0)
    plain = transformers.LlamaModel(config)
    fast, report = accelerate_with_report(plain)
    assert {record.kind for record in report.normalisers} == {"LlamaRMSNorm"}
    assert [record.became for record in report.normalisers] == ["normwright.functional.rms_norm"] * 5
    found = {}
    for network in (plain, fast):  # in float32, in which its norms compute whatever their input is of
        y = network(torch.arange(12).view(2, 6)).last_hidden_state
        y.pow(3).sum().backward()
        found[network] = [y, *(parameter.grad for parameter in network.parameters())]
    for one, other in zip(found[fast], found[plain], strict=True):
        assert float((one - other).detach().abs().max()) <= 1e-5 * float(other.detach().abs().max())


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_torch_transformer_with_and_without_its_fast_path(norm_first, activation):
    layer = nn.TransformerEncoderLayer(
        16, 2, 24, batch_first=True, norm_first=norm_first, activation=activation, dropout=0.0
    )
    network = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16))
    x = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    counts, report = check(network, lambda network: network(x))
    assert counts == {}
    assert len(report.normalisers) == 5
    fast = accelerate_with_report(network)[0].eval()
    with torch.no_grad():  # the fast path reads the weights
        assert torch.allclose(fast(x), network.eval()(x), rtol=1e-10, atol=1e-10)
