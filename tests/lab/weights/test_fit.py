"""A checkpoint goes into the network that it is of, and into no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from normwright.errors import CheckpointError
from normwright.lab.weights.fit import fit
from normwright.lab.weights.read import Weights


def build() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))


def weights(tensors, left_out=()) -> Weights:
    return Weights(Path("net.pt"), dict(tensors), left_out)


def assert_equal(network, source):
    for name, value in source.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_prefix_of_a_wrapper_is_left_off(prefix):
    source, network = build(), build()
    notes = fit(network, weights({f"{prefix}{name}": value for name, value in source.state_dict().items()}))
    assert_equal(network, source)
    told = f"The checkpoint's names begin with {prefix!r}, which was left off."
    assert notes == ((told,) if prefix else ())


def test_prefix_that_the_network_has_stays():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = build()

    source, network = Wrapped(), Wrapped()
    assert fit(network, weights(source.state_dict())) == ()
    assert_equal(network, source)


def test_another_network_lists_missing_unexpected_and_shapes():
    other = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.Conv2d(5, 4, 1))
    with pytest.raises(CheckpointError) as raised:
        fit(build(), weights(other.state_dict()))
    assert str(raised.value) == (
        "net.pt must be a checkpoint of the network that the function builds, but is of another:\n"
        "  missing (2): 1.running_mean, 1.running_var\n"
        "  of another shape (2): 0.weight (5, 3, 3, 3) where the network has (4, 3, 3, 3), "
        "1.weight (4, 5, 1, 1) where the network has (4,)\n"
        "name the function that built it, with the settings it had"
    )


def test_long_lists_are_cut():
    with pytest.raises(CheckpointError, match=r"unexpected \(40\): x0, .*, and 30 more"):
        fit(build(), weights(build().state_dict() | {f"x{i}": torch.ones(1) for i in range(40)}))


def test_tied_weight_may_be_saved_under_one_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3, bias=False)
            self.outer = nn.Linear(3, 3, bias=False)
            self.outer.weight = self.inner.weight

    source, network = Tied(), Tied()
    fit(network, weights({"inner.weight": source.inner.weight.detach()}))
    assert_equal(network, source)


def test_batch_norm_may_lack_its_count_of_batches():
    source, network = build(), build()
    kept = {name: value for name, value in source.state_dict().items() if "num_batches" not in name}
    assert fit(network, weights(kept)) == ()
    assert_equal(network, source)


def test_another_dtype_and_what_was_left_out_are_told():
    source = build().half()
    assert fit(build(), weights(source.state_dict(), ("epoch",))) == (
        "Of net.pt, only the state dict was read, not epoch.",
        "Weights of torch.float16 were loaded into a network of torch.float32.",
    )


@pytest.mark.parametrize(
    ("weight", "dtype", "fits"),
    [
        (torch.tensor([[1e6]]), torch.float16, False),
        (torch.tensor([[1e6]]), torch.bfloat16, True),
        (torch.tensor([[torch.inf]]), torch.float16, True),
        (torch.tensor([[1e300]], dtype=torch.float64), torch.float32, False),
        (torch.tensor([[1.0]]).to(torch.float8_e4m3fn), torch.float32, True),
    ],
)
def test_numbers_without_a_place_in_the_networks_dtype_are_refused(weight, dtype, fits):
    network = nn.Linear(1, 1, bias=False).to(dtype)
    if fits:
        (note,) = fit(network, weights({"weight": weight}))
        assert note.startswith(f"Weights of {weight.dtype} were loaded")
        return
    with pytest.raises(CheckpointError, match=rf"dtype holds \(1\): weight {weight.dtype} where the network"):
        fit(network, weights({"weight": weight}))
