"""Split batch norm as a module: one weight and bias, statistics for each domain, and how a domain is told."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from modules import OWN, fill, input_of
from tolerances import AGREEMENT

from normwright import nn
from normwright.errors import OptionError

SPLITS = [name for name in OWN if name.startswith("Split")]


@pytest.mark.parametrize("name", SPLITS)
def test_a_checkpoint_of_batch_norm_starts_every_domain(name):
    ours = getattr(nn, name)(6, domains=3)
    theirs = getattr(torch.nn, name.removeprefix("Split"))(6)
    ours.load_state_dict(fill(theirs, 1).state_dict(), strict=True)
    x = input_of(name)
    expected = theirs.eval()(x).detach()
    for domain in range(3):
        y = ours.eval()(x, domains=domain)
        assert float((y - expected).detach().abs().max()) <= AGREEMENT * float(expected.abs().max())
    assert set(theirs.state_dict()) < set(ours.state_dict())
    twin = getattr(nn, name)(6, domains=3)
    twin.load_state_dict(fill(ours, 5).state_dict(), strict=True)
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in twin.state_dict().items())


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_domains_that_a_checkpoint_starts_share_no_memory(device):
    """`assign=True` makes the state's tensors the module's buffers."""
    state = fill(torch.nn.BatchNorm1d(6), 1).state_dict()
    norm = nn.SplitBatchNorm1d(6, device=device)
    norm.load_state_dict(state, assign=True)
    before = norm.running_mean.clone()
    norm(input_of("BatchNorm1d") + 9, domains=1)
    assert torch.equal(norm.running_mean, before)
    assert not torch.equal(norm.running_mean_1, before)
    assert int(norm.num_batches_tracked) + 1 == int(norm.num_batches_tracked_1)


@pytest.mark.parametrize(("device", "assign"), [("cpu", False), ("cpu", True), ("meta", True)])
def test_a_checkpoint_from_before_batches_were_counted(device, assign):
    state = dict(fill(torch.nn.BatchNorm1d(6), 1).state_dict())  # without its version
    del state["num_batches_tracked"]
    norm = nn.SplitBatchNorm1d(6, domains=3, device=device)
    norm.load_state_dict(state, assign=assign)
    for domain in ("", "_1", "_2"):
        assert torch.equal(getattr(norm, f"running_var{domain}"), state["running_var"])
        assert int(getattr(norm, f"num_batches_tracked{domain}")) == 0


def test_each_domain_moves_its_own_statistics():
    module, x = nn.SplitBatchNorm2d(6, domains=3), input_of("SplitBatchNorm2d")
    plain = torch.nn.BatchNorm2d(6)
    plain(x)
    module(x, domains=2)
    assert not module.running_mean.any()
    assert not module.running_mean_1.any()
    torch.testing.assert_close(module.running_mean_2, plain.running_mean)
    assert [int(module.num_batches_tracked), int(module.num_batches_tracked_2)] == [0, 1]
    module(x)
    torch.testing.assert_close(module.running_mean, plain.running_mean)
    module.reset_running_stats()
    assert not module.running_mean_2.any()
    assert module.num_batches_tracked_2 == 0


def test_a_mixed_batch_is_each_domain_s_own():
    module, x = fill(nn.SplitBatchNorm2d(6)), input_of("SplitBatchNorm2d")
    twin, domains = copy.deepcopy(module), torch.tensor([1, 0, 0, 1])
    y = module(x, domains=domains)
    for domain in (0, 1):
        assert torch.equal(y[domains == domain], twin(x[domains == domain], domains=domain))
    assert all(torch.equal(one, other) for one, other in zip(module.buffers(), twin.buffers(), strict=True))


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), nn.SplitBatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(64, 5), nn.SplitBatchNorm1d(5),
    )  # fmt: skip


def test_a_context_tells_a_whole_network():
    net, x = network(), torch.randn(4, 1, 6, 6)
    with nn.domain(net, 1):
        net(x)
        with nn.domain(net, torch.tensor([0, 1, 0, 1])):
            net(x)
        assert [net[1].domain, net[5].domain] == [1, 1]
    assert [net[1].domain, net[5].domain] == [0, 0]
    assert [int(net[1].num_batches_tracked), int(net[1].num_batches_tracked_1)] == [1, 2]


def test_a_context_ends_with_an_exception_too():
    net = network()
    with pytest.raises(KeyError), nn.domain(net, 1):
        raise KeyError
    assert net[1].domain == 0


def test_bad_contexts_and_constructors():
    net = network()
    for domains, message in ((2, "one of 0 to 1, but is 2"), (0.0, "a whole number or an integer tensor")):
        with pytest.raises(OptionError, match=message), nn.domain(net, domains):
            pass
    with pytest.raises(OptionError, match="must hold split batch norms"), nn.domain(torch.nn.Linear(2, 2), 0):
        pass
    for domains in (0, True, 1.5):
        with pytest.raises(OptionError, match="domains must be at least 1 and a whole number"):
            nn.SplitBatchNorm2d(6, domains=domains)
    assert net[1].domain == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_and_repr(copied):
    module = fill(nn.SplitBatchNorm2d(6, domains=3, activation="relu"))
    twin, x = copied(module), input_of("SplitBatchNorm2d")
    assert repr(twin) == repr(module)
    assert repr(module).endswith("domains=3, activation=relu)")
    assert torch.equal(twin(x, domains=1), module(x, domains=1))


def test_a_domain_s_weight_and_bias_are_those_of_all():
    module = nn.SplitBatchNorm2d(6, domains=4)
    assert [name for name, _ in module.named_parameters()] == ["weight", "bias"]
