"""Data-parallel training in two real processes, against the same steps taken in one."""

from pathlib import Path

import pytest
import torch
from processes import WORLD, run_ranks
from replica import STEPS, images, network
from tolerances import SAME_DERIVATIVE


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the processes saved."""
    return run_ranks(Path(__file__).with_name("replica.py"), tmp_path_factory.mktemp("ranks"))


def close(one, other):
    # float64; the depth of the network stands for the order of the derivative
    return float((one - other).abs().max()) <= SAME_DERIVATIVE * max(1.0, float(other.abs().max()))


def test_gradients_are_the_mean_over_the_replicas(ranks):
    replicas = [network() for _ in range(WORLD)]
    optimisers = [torch.optim.SGD(replica.parameters(), lr=0.1) for replica in replicas]
    for step in range(STEPS):
        # before each step, rank 0's running statistics go to all, as they do in DistributedDataParallel
        for replica in replicas[1:]:
            for own, first in zip(replica.buffers(), replicas[0].buffers(), strict=True):
                own.copy_(first)
        for rank, replica in enumerate(replicas):
            optimisers[rank].zero_grad()
            replica(images(rank, step)).pow(3).mean().backward()
        for which, together in enumerate(zip(*(replica.parameters() for replica in replicas), strict=True)):
            mean = sum(parameter.grad for parameter in together) / WORLD
            for parameter, seen in zip(together, ranks, strict=True):
                parameter.grad = mean.clone()
                assert close(seen["gradients"][step][which], mean)
        for optimiser in optimisers:
            optimiser.step()
    for replica, seen in zip(replicas, ranks, strict=True):
        for key, value in replica.state_dict().items():
            assert close(seen["state"][key], value), key


def test_replicas_agree_to_the_bit_on_all_but_their_own_statistics(ranks):
    first, second = (seen["state"] for seen in ranks)
    running = {"1.running_mean", "1.running_var"}
    assert all(torch.equal(first[key], second[key]) for key in first.keys() - running)
    assert not any(torch.equal(first[key], second[key]) for key in running)
