"""Activation checkpointing counts a batch once (#96136)."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import normwright.nn
from normwright.errors import OptionError
from normwright.statistics import count_once

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(library, momentum=None):
    """Two normalisers with statistics, the last of which early stopping breaks off."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        library.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        library.InstanceNorm2d(4, affine=True, track_running_stats=True),
        library.BatchNorm2d(4, momentum=momentum),
    ).double()


WAYS = {
    "reentrant": lambda part, x: checkpoint(part, x, use_reentrant=True),
    "not reentrant": lambda part, x: checkpoint(part, x, use_reentrant=False),
    "to the end": lambda part, x: checkpoint(part, x, use_reentrant=False, early_stop=False),
    "in segments": lambda part, x: checkpoint_sequential(part, 2, x, use_reentrant=False),
    "nested": lambda part, x: checkpoint(
        lambda x: checkpoint(part, x, use_reentrant=False).sin(), x, use_reentrant=False
    ),
}


def trained(part, way, x=X):
    """Output, gradients and state after two steps."""
    found = []
    for step in range(2):
        leaf = (x + step).requires_grad_()
        y = way(part, leaf)
        part.zero_grad()
        y.pow(3).sum().backward()
        found += [y.detach(), leaf.grad, *(parameter.grad for parameter in part.parameters())]
    return [*found, *(buffer.clone() for buffer in part.buffers())]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "torch's"])
def test_gradients_and_statistics_are_those_without_checkpointing(ours, way):
    part = network(normwright.nn if ours else nn)
    twin = copy.deepcopy(part)
    counting = None if ours else count_once(part)
    plain = (lambda part, x: part(x).sin()) if way == "nested" else (lambda part, x: part(x))
    assert all(map(torch.equal, trained(part, WAYS[way]), trained(twin, plain)))
    if counting is not None:
        assert counting.layers == ("1", "4", "5")
        counting.remove()
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in part.modules())
        trained(part, WAYS["reentrant"])
        assert part[1].num_batches_tracked == 6


def test_a_synchronised_one_in_one_process():
    part = normwright.nn.SyncBatchNorm.convert_sync_batchnorm(network(normwright.nn))
    twin = copy.deepcopy(part)
    plain = trained(twin, lambda part, x: part(x))
    assert all(map(torch.equal, trained(part, WAYS["not reentrant"]), plain))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's tracer
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "torch's"])
def test_compiled_together_with_its_checkpoint(ours):
    torch._dynamo.reset()
    # PyTorch's does not compile whole with momentum=None (#194504)
    part = network(normwright.nn) if ours else network(nn, momentum=0.1)
    twin = copy.deepcopy(part)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def checkpointed(x):
        return checkpoint(part, x, use_reentrant=False)

    trained(part, lambda part, x: checkpointed(x))
    trained(twin, lambda part, x: part(x))
    for one, other in zip(part.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_what_is_no_network_is_refused():
    with pytest.raises(OptionError, match=r"must be a torch\.nn\.Module, but is the class BatchNorm1d"):
        count_once(nn.BatchNorm1d)
