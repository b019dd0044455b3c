"""The copy that trains: what it copies, leaves out, puts back and refuses."""

from __future__ import annotations

import pytest
import torch
from advised import blobs, same, small, trained, whole_state
from torch import nn

from normwright.errors import OptionError, UserCodeError
from normwright.lab.advice.samples import read_samples
from normwright.lab.advice.trainee import trainee

X, Y = blobs()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.5)


def test_the_copy_trains_as_the_network_would_and_the_network_stays():
    network, twin = small(), small()
    optimiser, theirs = trained(network, X, Y), trained(twin, X, Y)
    before = whole_state(network, optimiser)
    copied = trainee(network, optimiser, "cross_entropy")
    torch.manual_seed(5)
    copied.step((X, Y))
    torch.manual_seed(5)
    theirs.zero_grad()
    nn.functional.cross_entropy(twin(X), Y).backward()
    theirs.step()
    assert same(dict(copied.network.state_dict()), dict(twin.state_dict()))
    torch.set_rng_state(before["torch"])
    assert same(whole_state(network, optimiser), before)


def test_back_to_start():
    copied = trainee(small(), sgd, "cross_entropy")
    before = whole_state(copied.network)["values"]
    copied.step((X, Y))
    assert not same(dict(copied.network.state_dict()), dict(before))
    copied.back_to_start()
    assert same(dict(copied.network.state_dict()), dict(before))
    assert all(parameter.grad is None for parameter in copied.network.parameters())


def test_a_frozen_part_of_a_training_network_stays_frozen():
    network = small()
    network[1].eval()
    assert not trainee(network, sgd, "cross_entropy").network[1].training
    assert trainee(network.eval(), sgd, "cross_entropy").network[1].training


def test_normalisers_are_left_out_and_so_are_their_parameters():
    network = small()
    optimiser = torch.optim.SGD(
        [{"params": network[1].parameters(), "lr": 0.1}, {"params": network[0].parameters()}], 1.0
    )
    copied = trainee(network, optimiser, "cross_entropy", bare=True)
    assert isinstance(copied.network[1], nn.Identity)
    assert [len(group["params"]) for group in copied.optimiser.param_groups] == [0, 2]
    copied.step((X, Y))
    assert isinstance(network[1], nn.BatchNorm1d)


@pytest.mark.parametrize(
    ("rates", "expected"), [((0.1, 0.2, 0.0), (1.0, 2.0, 0.0)), ((0.0, 0.0, 0.0), (2.0, 2.0, 2.0))]
)
def test_groups_keep_the_ratio_of_their_rates(rates, expected):
    network = small()
    parts = (network[0], network[1], network[4])
    groups = [{"params": part.parameters(), "lr": lr} for part, lr in zip(parts, rates, strict=True)]
    copied = trainee(network, torch.optim.SGD(groups, lr=1.0), "cross_entropy")
    copied.set_lr(2.0)
    assert tuple(group["lr"] for group in copied.optimiser.param_groups) == pytest.approx(expected)


def test_a_foreign_optimiser_and_nothing_to_train():
    with pytest.raises(OptionError, match="6 of its 6 are not: make it from"):
        trainee(small(), sgd(small().parameters()), "cross_entropy")
    with pytest.raises(OptionError, match="must have parameters to train"):
        trainee(small().requires_grad_(False), sgd, "cross_entropy")


class Answer(dict):
    """As Transformers answers."""

    def __getattr__(self, name):
        return self[name]


class WithLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 2)

    def forward(self, pixel_values, labels=None):
        logits = self.linear(pixel_values)
        return Answer(loss=nn.functional.cross_entropy(logits, labels), logits=logits)


@pytest.mark.parametrize("loss", [None, "cross_entropy"])
def test_a_network_that_returns_its_loss_and_logits(loss):
    network = WithLoss()
    copied = trainee(network, sgd, loss)
    copied.check(read_samples([{"pixel_values": X, "labels": Y}]), 4)
    expected = nn.functional.cross_entropy(network.linear(X), Y)
    assert torch.equal(copied.step({"pixel_values": X, "labels": Y}), expected.detach())


def test_a_forward_function_of_the_user_s_own():
    copied = trainee(small(), sgd, "cross_entropy", lambda network, batch: network(batch[0][:, :8]))
    copied.check(read_samples((torch.cat([X, X], 1), Y)), 4)


@pytest.mark.parametrize(
    ("network", "loss", "error", "message"),
    [
        (nn.Linear(5, 2), "cross_entropy", UserCodeError, r"\(4, 8\) and \(4,\), but raised RuntimeError"),
        (nn.Linear(8, 1), "cross_entropy", OptionError, "has 1 output, and a label is 1 .* 2 outputs"),
        (nn.Linear(8, 1), "mse", OptionError, "has 1 output"),
        (nn.Sequential(nn.Linear(8, 2), nn.Flatten(0)),
         "cross_entropy", OptionError, r"one row of scores per sample, \(N, classes\), but gave \(8,\)"),
        (nn.Linear(8, 2), lambda outputs, labels: outputs, UserCodeError, r"return a scalar .* \(4, 2\)"),
        (nn.Linear(8, 2), lambda outputs, labels: 3.0, UserCodeError, "must return a scalar .* float 3.0"),
        (nn.Linear(8, 2), lambda outputs, labels: outputs.detach().sum(), UserCodeError, "no gradient"),
        (nn.Linear(8, 2), lambda outputs, labels: {}[0], UserCodeError, "the loss must take .* KeyError"),
        (nn.Linear(8, 2), None, UserCodeError, "needs the network to return one as `loss`"),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_said(network, loss, error, message):
    with pytest.raises(error, match=message):
        trainee(network, sgd, loss).check(read_samples((X, Y)), 4)


def test_a_transformer_without_its_normalisers_calls_nothing_in_their_place():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    copied = trainee(nn.Sequential(layer, nn.Flatten(), nn.Linear(32, 2)), sgd, "cross_entropy", bare=True)
    assert isinstance(copied.network[0].norm1, nn.Identity)
    x = torch.randn(4, 4, 8)
    in_training = copied.network[0].train()
    copied.network[0].dropout1.p = copied.network[0].dropout2.p = copied.network[0].dropout.p = 0.0
    copied.network[0].self_attn.dropout = 0.0
    expected = in_training(x)
    with torch.no_grad():
        assert torch.allclose(copied.network[0].eval()(x), expected, atol=1e-5)


def test_a_network_that_is_itself_a_normaliser():
    with pytest.raises(OptionError, match="cannot replace itself"):
        trainee(nn.BatchNorm1d(8), sgd, "cross_entropy", bare=True)


class Remembers(nn.Module):
    """Fills one buffer, replaces another by one of the batch's length, and keeps a part of its last loss."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 2)
        self.register_buffer("filled", None)
        self.register_buffer("replaced", torch.zeros(3))

    def forward(self, x):
        y = self.linear(x)
        self.filled, self.replaced, self.extra = y.detach(), x.mean(1), y.square().mean()
        return y


def test_buffers_that_a_step_fills_or_replaces_are_put_back():
    copied = trainee(Remembers(), sgd, "cross_entropy")
    for count in (4, 8):
        copied.step((X[:count], Y[:count]))
        copied.back_to_start()
        assert copied.network.filled is None
        assert torch.equal(copied.network.replaced, torch.zeros(3))


def test_a_network_that_keeps_what_it_computed_is_copied():
    network = Remembers()
    network(X)
    copied = trainee(network, sgd, "cross_entropy")
    assert torch.equal(copied.step((X, Y)), nn.functional.cross_entropy(network(X), Y).detach())


def test_a_lazy_network_must_have_seen_a_batch():
    network = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Linear(8, 2))
    with pytest.raises(OptionError, match="to be trained, but its module '0' is lazy"):
        trainee(network, sgd, "cross_entropy")
    network(X)
    trainee(network, sgd, "cross_entropy").step((X, Y))


def test_a_network_that_changes_its_input_in_place_changes_no_sample():
    class InPlace(nn.Linear):
        def forward(self, x):
            return super().forward(x.mul_(2))

    x = X.clone()
    trainee(InPlace(8, 2), sgd, "cross_entropy").check(read_samples((x, Y)), 4)
    assert torch.equal(x, X)


@pytest.mark.parametrize(("network", "shape"), [(nn.Linear(8, 1), (-1, 1)), (nn.Linear(8, 2), (-1, 2))])
def test_mse_is_of_targets_that_are_numbers(network, shape):
    targets = X[:, :2].reshape(shape)[: len(X)].contiguous()
    copied = trainee(network, sgd, "mse")
    copied.check(read_samples((X, targets)), 4)
    assert torch.equal(copied.step((X, targets)), nn.functional.mse_loss(network(X), targets).detach())
    with pytest.raises(OptionError, match="targets of one shape"):
        copied.step((X, targets[:, 0]))


def test_a_step_is_taken_where_gradients_are_switched_off():
    network = small()
    with torch.no_grad():
        copied = trainee(network, sgd, "cross_entropy")
        copied.check(read_samples((X, Y)), 4)
        copied.step((X, Y))
    assert not torch.equal(copied.network[0].weight, network[0].weight)


@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated")
def test_a_network_of_torch_jit_is_refused_in_words():
    network = torch.jit.trace(small().eval(), X)
    with pytest.raises(OptionError, match=r"no copy of what torch\.jit compiled"):
        trainee(network, sgd, "cross_entropy")


def test_an_expanded_buffer_which_nothing_can_write_to_stays():
    network = small()
    network.register_buffer("expanded", torch.zeros(1).expand(5))
    copied = trainee(network, sgd, "cross_entropy")
    copied.step((X, Y))
    copied.back_to_start()
    assert torch.equal(copied.network[0].weight, network[0].weight)
    assert torch.equal(copied.network.expanded, torch.zeros(5))
