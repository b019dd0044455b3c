"""Networks that other people wrote, shrunk, with random weights and statistics."""

from __future__ import annotations

import collections

import pytest
import torch
from same import randomise

from benchmarks.real_networks import REAL_NETWORKS
from normwright.network import fold_with_report
from normwright.network.folding import fold as fold_module
from normwright.network.folding import measure

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

# Counted in their source. Where a norm stands before an activation whose input others read (DenseNet,
# SegResNet, HighResNet), or after the sum of a residual, no layer can take it.
EXPECTED = {
    "ResNet": {"before": 17},
    "MobileNetV2": {"before": 52},
    "EfficientNet": {"before": 25},
    "RegNet": {"before": 20},
    "SegFormer": {"before": 1, "": 19},
    "ConvNeXt": {"": 9},
    "DETR": {"before": 16, "": 6},
    "MONAI UNet": {"before": 9},
    "MONAI DynUNet": {"before": 10},
    "MONAI SegResNet": {"before": 5, "multiply-add": 6},
    "MONAI DenseNet121": {"before": 59, "multiply-add": 62},
    "MONAI EfficientNet": {"before": 49},
    "MONAI HighResNet": {"before": 12, "multiply-add": 9},
    "MONAI VNet": {"before": 24},
}


@pytest.fixture(autouse=True)
def _one_thread():
    """These networks are too small for two, and tests run beside each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", REAL_NETWORKS)
def test_every_norm_that_can_be_is_folded(name, monkeypatch):
    pytest.importorskip("monai" if name.startswith("MONAI") else "transformers")
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)
    monkeypatch.setattr(measure, "LEAST_CALLS", 1)  # how long they take is not looked at here
    real = REAL_NETWORKS[name](small=True)
    folded, report = fold_with_report(randomise(real.network).eval(), real.example.double())
    assert collections.Counter(record.place for record in report.normalisers) == EXPECTED[name]
    assert report.traced_by == "torch.export"
    # in ulps of float64, where a value computed wrongly differs by 1e-3 of the largest
    assert report.error is None or report.error.difference_ulps <= 1e-8 / torch.finfo(torch.float64).eps
    left = [
        module for module in folded.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    ]
    assert left == []


def _levit():
    from transformers import LevitConfig, LevitForImageClassificationWithTeacher

    down = [["Subsample", 8, 2, 4, 2, 2]] * 2
    settings = {"hidden_sizes": [16, 32, 32], "num_attention_heads": [1, 2, 2], "key_dim": [8] * 3}
    config = LevitConfig(image_size=64, depths=[1] * 3, down_ops=down, **settings)
    return LevitForImageClassificationWithTeacher(config)


def _beit():
    from transformers import BeitConfig, BeitForSemanticSegmentation

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4}
    config = BeitConfig(image_size=64, out_indices=[1, 2, 3, 4], num_labels=3, use_mask_token=False, **sizes)
    return BeitForSemanticSegmentation(config)


@pytest.mark.parametrize(
    ("build", "places"),
    [(_levit, {"before": 26, "after": 2}), (_beit, {"before": 14, "": 8})],
    ids=["LeViT", "BEiT"],
)
def test_a_network_that_was_called_before(build, places, monkeypatch):
    """The first call of a network of Transformers may leave hooks in it, which its next ones need."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)
    monkeypatch.setattr(measure, "LEAST_CALLS", 1)
    network = randomise(build()).eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network(x)
    report = fold_with_report(network, x)[1]
    assert collections.Counter(record.place for record in report.normalisers) == places
    assert report.error.difference_ulps <= 1e-8 / torch.finfo(torch.float64).eps
