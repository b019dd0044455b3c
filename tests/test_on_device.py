"""What a test makes lies on the device that the tests are run on, and comes back as an array."""

import torch
from on_device import OnDevice


def test_what_is_made_lies_on_the_device():
    with OnDevice("meta"):
        drawn = torch.randn(3, generator=torch.Generator().manual_seed(0), requires_grad=True)
        named = torch.ones(3, device="cpu")
    assert drawn.device.type == "meta"
    assert drawn.is_leaf
    assert drawn.requires_grad
    assert named.device.type == "cpu"


def test_an_array_comes_from_the_cpu():
    x = torch.ones(3)
    with OnDevice("cpu"):
        assert x.numpy().tolist() == [1.0, 1.0, 1.0]
