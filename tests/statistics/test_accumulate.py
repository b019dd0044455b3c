"""Running statistics over the batch that micro-batches make together (#46516)."""

import copy

import numpy as np
import pytest
import torch
from tolerances import RUNNING, assert_within
from torch import nn
from torch.utils.checkpoint import checkpoint

import normwright.nn
from normwright.errors import OptionError
from normwright.reference import total
from normwright.statistics import accumulate

MICRO = (4, 1, 7)  # unequal


def micro_batches(mean=0.0, dtype=torch.float64):
    """Each around a mean of its own, a deviation apart."""
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randn(count, 3, 5, generator=draw, dtype=torch.float64) for count in MICRO]
    return [(batch + mean + place).to(dtype) for place, batch in enumerate(batches)]


def layers(**options):
    return [kind(3, **options) for kind in (nn.BatchNorm1d, normwright.nn.BatchNorm1d)]


def assert_moved_once(layer, batches, share):
    """Against the float64 reference: mean and unbiased variance of all elements, with this share."""
    columns = [batch.double().transpose(0, 1).flatten(1).numpy() for batch in batches]
    counts = [column.shape[1] for column in columns]
    moments = total([c.mean(1) for c in columns], [c.var(1) for c in columns], counts)
    unbiased = moments.variance * sum(counts) / (sum(counts) - 1)
    for running, moment, start in (
        (layer.running_mean, moments.mean, 0.0),
        (layer.running_var, unbiased, 1.0),
    ):
        size = share * np.abs(moment) + (1 - share) * start
        # the sums of 60 elements, each a rounding of the mean: as in functional/test_sync_batch_norm.py
        apart = 64 * 2.0**-53 * np.abs(moments.mean) * np.sqrt(unbiased)
        bound = 2 * RUNNING[running.dtype] * size + apart
        assert_within(running, share * moment + (1 - share) * start, bound, "running")
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize("mean", [0.0, 1e4, -1e6])
@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_one_update_from_the_moments_of_all(dtype, momentum, mean):
    batches = micro_batches(mean, dtype)
    for layer in layers(momentum=momentum, dtype=dtype):
        with accumulate(layer):
            for batch in batches:
                layer(batch)
        assert_moved_once(layer, batches, 1.0 if momentum is None else momentum)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_renorm_moves_its_deviation_as_one_batch_would(momentum):
    layer = normwright.nn.BatchRenorm1d(3, momentum=momentum, dtype=torch.float64)
    layer(torch.cat(micro_batches(mean=5.0)))  # a cumulative mean starts from somewhere
    twin = copy.deepcopy(layer)
    twin(torch.cat(micro_batches()))
    with accumulate(layer):
        for batch in micro_batches():
            layer(batch)
    # the sums of 60 elements, each a rounding of the mean, as above
    mean, variance, count = (buffer.numpy() for buffer in twin.buffers())
    apart = 64 * 2.0**-53 * np.abs(mean) * np.sqrt(variance)
    for running, expected in ((layer.running_mean, mean), (layer.running_var, variance)):
        assert_within(running, expected, 2 * RUNNING[running.dtype] * np.abs(expected) + apart, "running")
    assert layer.num_batches_tracked == count


def test_outputs_and_gradients_are_those_without_it_to_the_bit():
    for layer in layers(dtype=torch.float64):
        twin = copy.deepcopy(layer)
        for batch in micro_batches():
            (twin(batch) ** 3).sum().backward()
        with accumulate(layer):
            for batch in micro_batches():
                (layer(batch) ** 3).sum().backward()
        assert torch.equal(layer.weight.grad, twin.weight.grad)
        assert not torch.equal(layer.running_var, twin.running_var)
        assert not layer._forward_pre_hooks
        assert not layer._forward_hooks


def test_the_backward_may_follow_when_the_statistics_have_moved():
    for layer in layers(dtype=torch.float64):
        with accumulate(layer):
            loss = sum((layer(batch) ** 3).sum() for batch in micro_batches())
        loss.backward()
        assert layer.weight.grad.any()


class Twice(nn.Module):
    """One layer, used twice."""

    def __init__(self, kind):
        super().__init__()
        self.norm = kind(3, dtype=torch.float64)

    def forward(self, x):
        return self.norm(self.norm(x) * 2 + 1)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, normwright.nn.BatchNorm1d])
def test_a_layer_used_twice_moves_once_for_each_use(kind):
    network, twin = Twice(kind), Twice(kind)
    twin(torch.cat([micro_batches()[0]] * 3))
    with accumulate(network):
        for _ in range(3):
            network(micro_batches()[0])
    assert network.norm.num_batches_tracked == 2
    for one, other in zip(network.buffers(), twin.buffers(), strict=True):
        assert float((one - other).abs().max()) <= 4 * RUNNING[torch.float64] * 8


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_checkpointing_recomputes_is_not_counted(reentrant):
    for layer in layers(dtype=torch.float64):
        with accumulate(layer):
            for batch in micro_batches():
                x = batch.requires_grad_()
                checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
        assert_moved_once(layer, [batch.detach() for batch in micro_batches()], 0.1)


def test_layers_in_inference_mode_and_other_normalisers_are_left_alone():
    frozen, instance = nn.BatchNorm1d(3).eval(), nn.InstanceNorm1d(3, track_running_stats=True)
    untracked = nn.BatchNorm1d(3, track_running_stats=False)
    network = nn.Sequential(frozen, instance, untracked)
    before = copy.deepcopy(frozen.state_dict())
    with accumulate(network):
        network(torch.randn(4, 3, 5))
    assert all(map(torch.equal, before.values(), frozen.state_dict().values()))
    assert instance.running_mean.any()


def test_an_exception_leaves_the_statistics_as_they_were():
    for layer in layers():
        before = copy.deepcopy(layer.state_dict())

        def fails(layer=layer):
            with accumulate(layer):
                layer(torch.randn(4, 3, 5))
                raise KeyError

        with pytest.raises(KeyError):
            fails()
        assert all(map(torch.equal, before.values(), layer.state_dict().values()))
        assert not layer._forward_pre_hooks


def test_no_batch_moves_nothing():
    for layer in layers():
        before = copy.deepcopy(layer.state_dict())
        with accumulate(layer):
            pass
        assert all(map(torch.equal, before.values(), layer.state_dict().values()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's tracer
def test_a_network_compiled_before_is_refused():
    torch._dynamo.reset()
    network = nn.Sequential(normwright.nn.BatchNorm1d(3))
    compiled = torch.compile(network, backend="aot_eager")
    compiled(torch.randn(4, 3, 5))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(OptionError, match="'0' was used unseen"), accumulate(network):
        compiled(torch.randn(4, 3, 5))
    assert all(map(torch.equal, before.values(), network.state_dict().values()))


@pytest.mark.parametrize(
    "given", [None, 3, nn.BatchNorm1d, [nn.BatchNorm1d(3)]], ids=lambda given: type(given).__name__
)
def test_what_is_no_network_is_refused(given):
    with (
        pytest.raises(OptionError, match=r"a network must be a torch\.nn\.Module, but is"),
        accumulate(given),
    ):
        pass


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.LazyBatchNorm1d(), "has not seen a batch yet"),
        (nn.BatchNorm1d(3, device="meta"), "on the device meta"),
    ],
)
def test_what_has_no_statistics_yet_is_refused(network, words):
    with pytest.raises(OptionError, match=words), accumulate(network):
        pass
