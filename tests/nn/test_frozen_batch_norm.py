"""A frozen batch norm's statistics stay, whatever is done to it, and the checkpoints of others load."""

from __future__ import annotations

import copy

import pytest
import torch
from modules import NORMALISERS, fill, input_of

from normwright import nn
from normwright.errors import OptionError

FROZEN = pytest.mark.parametrize("name", [name for name in NORMALISERS if name.startswith("Frozen")])


def module_of(name: str, **options) -> torch.nn.Module:
    return fill(getattr(nn, name)(6, **options))


@FROZEN
def test_train_does_not_undo_it(name: str) -> None:
    module, x = module_of(name), input_of(name)
    expected = module(x)
    assert module.training is False
    before = {key: value.clone() for key, value in module.named_buffers()}
    for parent in (torch.nn.Sequential(module), module):
        assert torch.equal(parent.train()(x), expected)
        assert module.training is False
    assert all(torch.equal(value, before[key]) for key, value in module.named_buffers())


@FROZEN
def test_it_is_a_batch_norm_in_inference(name: str) -> None:
    module = module_of(name, activation="silu").train()
    trained = getattr(nn, name.removeprefix("Frozen"))(6, activation="silu").eval()
    trained.load_state_dict(module.state_dict())
    results = []
    for one in (module, trained):
        x = input_of(name).requires_grad_()
        y = one(x, residual=2 * x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *one.parameters()])])
    assert all(map(torch.equal, *results))
    assert isinstance(module, getattr(torch.nn, name.removeprefix("Frozen")))


class FrozenBatchNorm2d(torch.nn.Module):
    """As torchvision's and detectron2's: four buffers, no count, and a version of its own."""

    _version = 3

    def __init__(self) -> None:
        super().__init__()
        for key in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(key, torch.rand(6))


def test_the_checkpoints_of_others_load_strictly() -> None:
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 1), FrozenBatchNorm2d())
    ours = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 1), nn.FrozenBatchNorm2d(6))
    ours[1].num_batches_tracked.fill_(7)
    state = theirs.state_dict()
    keys = list(state)
    for given in (state, dict(state)):  # with the metadata that names the version, and without
        ours.load_state_dict(given, strict=True)
    assert list(state) == keys
    for key, value in state.items():
        assert torch.equal(ours.state_dict()[key], value)
    assert ours[1].num_batches_tracked.item() == 7


def test_of_transformers_detr() -> None:
    detr = pytest.importorskip("transformers.models.detr.modeling_detr")
    theirs, ours, x = fill(detr.DetrFrozenBatchNorm2d(6)), nn.FrozenBatchNorm2d(6), input_of("BatchNorm2d")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(ours(x), theirs(x))


def test_what_else_is_missing_is_still_missed() -> None:
    module = nn.FrozenBatchNorm2d(6)
    with pytest.raises(RuntimeError, match=r'Missing key.*"running_var"'):
        module.load_state_dict(
            {"weight": torch.ones(6), "bias": torch.ones(6), "running_mean": torch.ones(6)}
        )
    with pytest.raises(RuntimeError, match=r"Missing key"):
        module.load_state_dict({})


@FROZEN
def test_statistics_that_are_not_tracked_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match="track_running_stats must be True"):
        getattr(nn, name)(6, track_running_stats=False)


def test_weight_and_bias_are_trained() -> None:
    module = module_of("FrozenBatchNorm2d").train()
    before = copy.deepcopy(module)
    module(input_of("FrozenBatchNorm2d")).square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert not torch.equal(module.weight, before.weight)
    assert not torch.equal(module.bias, before.bias)


@FROZEN
def test_pytorchs_averaging_leaves_the_statistics(name: str) -> None:
    module, x = module_of(name), input_of(name)
    before = copy.deepcopy(module.state_dict())
    torch.optim.swa_utils.update_bn([x], torch.nn.Sequential(module))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@FROZEN
def test_what_had_no_numbers_starts_as_it_is_built(name: str) -> None:
    with torch.device("meta"):
        module = getattr(nn, name)(6)
    module.to_empty(device="cpu")
    for value in module.state_dict().values():
        value.fill_(7)
    module.reset_parameters()
    built = getattr(nn, name)(6).state_dict()
    assert all(torch.equal(value, built[key]) for key, value in module.state_dict().items())
