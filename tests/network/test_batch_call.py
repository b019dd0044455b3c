"""How a batch becomes a call."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwright.network.batch_call import Caller


class Doubling(nn.Module):
    """Writes into what it is given."""

    def forward(self, x):
        return x.mul_(2)


@pytest.mark.parametrize("forward_fn", [None, lambda network, batch: network(batch[0])])
def test_a_batch_stays_as_it_was_whatever_the_network_writes_into_it(forward_fn):
    batch = (torch.ones(2), torch.zeros(2))
    call = Caller(Doubling(), forward_fn)
    for _ in range(2):
        assert torch.equal(call(batch), torch.full((2,), 2.0))
    assert torch.equal(batch[0], torch.ones(2))


def test_gradients_reach_a_batch_that_asks_for_them():
    x = torch.ones(2, requires_grad=True)
    Caller(Doubling())(x).sum().backward()
    assert torch.equal(x.grad, torch.full((2,), 2.0))
