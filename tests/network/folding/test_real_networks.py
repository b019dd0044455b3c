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
