"""A program runs in a process that has neither the function nor its library."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import normwright as nw
from normwright.errors import OptionError
from normwright.lab.weights.program import write_program

IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def resnet():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config).eval()


def test_pt2_runs_without_the_library_on_batches_of_any_size(tmp_path):
    network = resnet()
    assert write_program(network, tmp_path / "a.pt2", (IMAGES,), {}) == ()
    torch.save(IMAGES, tmp_path / "images.pt")
    script = (
        "import sys, torch; x = torch.load('images.pt')\n"
        "network = torch.export.load('a.pt2').module(); y = network(x[:1])\n"
        "assert 'transformers' not in sys.modules and 'normwright' not in sys.modules\n"
        "torch.save(y, 'y.pt')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    given = torch.load(tmp_path / "y.pt")
    assert list(given) == ["logits"]
    assert not given["logits"].requires_grad
    torch.testing.assert_close(given["logits"], network(IMAGES[:1]).logits)


def test_program_keeps_the_names_of_its_arguments(tmp_path):
    network = resnet()
    assert write_program(network, tmp_path / "a.pt2", (), {"pixel_values": IMAGES[:1]}) == ()
    program = torch.export.load(tmp_path / "a.pt2").module()
    torch.testing.assert_close(program(pixel_values=IMAGES)["logits"], network(IMAGES).logits)


def test_onnx_runs_and_names_what_goes_in_and_out(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = resnet()
    assert write_program(network, tmp_path / "a.onnx", (IMAGES,), {}) == ()
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (logits,) = session.run(["logits"], {"pixel_values": IMAGES[:2].numpy()})
    np.testing.assert_allclose(logits, network(IMAGES[:2]).logits.detach(), rtol=1e-4, atol=1e-5)


def test_network_that_fixes_its_batch_is_told_so(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(3, 256)

    (note,) = write_program(Fixed(), tmp_path / "a.pt2", (IMAGES,), {})
    assert "takes inputs of exactly the example's shape" in note


def test_network_that_cannot_be_followed_leaves_the_old_file(tmp_path):
    class Jumps(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    (tmp_path / "a.pt2").write_bytes(b"old")
    with pytest.raises(OptionError, match=r"torch.export must be able to follow the network's code"):
        write_program(Jumps(), tmp_path / "a.pt2", (IMAGES,), {})
    assert (tmp_path / "a.pt2").read_bytes() == b"old"


def test_onnx_of_a_network_with_our_normalisers(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nw.nn.BatchNorm2d(4, activation="relu"),
        nw.nn.GroupNorm(2, 4),
        nw.nn.LayerNorm(14),
    ).eval()
    assert write_program(network, tmp_path / "a.onnx", (IMAGES,), {}) == ()
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (y,) = session.run(["output"], {session.get_inputs()[0].name: IMAGES[:2].numpy()})
    np.testing.assert_allclose(y, network(IMAGES[:2]).detach(), rtol=1e-4, atol=1e-5)
