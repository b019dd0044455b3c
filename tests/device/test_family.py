"""Every member of the family on the device: its step against the CPU's in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from family import FAMILY, batches_of, network_of
from torch import nn

import normwright as nw

# In units of the largest element, or of 1: a sum has at most 96 additions in a row (`tolerances.depth`), and
# a value some 30 operations besides on its way through one normaliser and a head.
ROUNDINGS = 2.0**7

# A recurrence hands its errors on from step to step, for eight steps.
UNROLLED = 8 * ROUNDINGS

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}


def step(network, x, target):
    """The answer, the gradients by the parameters and by x, and the buffers afterwards."""
    x = x.detach().requires_grad_()
    y = network(x)
    nn.functional.cross_entropy(y, target).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return {"answer": y, "gradient of x": x.grad, **gradients, **dict(network.named_buffers())}


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("dtype", UNIT, ids=str)
@pytest.mark.parametrize("name", FAMILY)
def test_a_step(name, dtype, training, device):
    network = network_of(name)
    exact = copy.deepcopy(network).double().train(training)
    (x, target), placed = batches_of(name)[0], copy.deepcopy(network).to(device, dtype).train(training)
    found = step(placed, x.to(device, dtype), target.to(device))
    expected = step(exact, x.double(), target)
    assert found.keys() == expected.keys()
    allowed = UNIT[dtype] * (UNROLLED if "LSTM" in name or name == "recurrent" else ROUNDINGS)
    for key, value in expected.items():
        assert found[key].device == device, key
        if value.is_floating_point():
            assert found[key].dtype == dtype, key
            error = (found[key].detach().cpu().double() - value.detach()).abs().max()
            assert float(error) <= allowed * max(1.0, float(value.detach().abs().max())), (key, float(error))
        else:
            assert torch.equal(found[key].cpu(), value), key


@pytest.mark.parametrize("name", [name for name in FAMILY if "LSTM" not in name])
def test_a_step_under_bfloat16_autocast(name, device):
    """The normaliser is given float32 or bfloat16, as its neighbours are, and its numbers stay float32."""
    network = network_of(name).to(device).train()
    before = {key: (value.device, value.dtype) for key, value in network.state_dict().items()}
    x, target = batches_of(name)[0]
    with torch.autocast(device.type, torch.bfloat16):
        found = step(network, x.to(device), target.to(device))
    assert {key: (value.device, value.dtype) for key, value in network.state_dict().items()} == before
    assert all(bool(value.isfinite().all()) for value in found.values())


@pytest.mark.parametrize("dtype", UNIT, ids=str)
@pytest.mark.parametrize("kind", [nw.nn.BatchNormLSTM, nw.nn.LayerNormLSTM])
def test_packed_sequences(kind, dtype, device):
    draw = torch.Generator().manual_seed(0)
    sequences = [torch.randn(length, 6, generator=draw, dtype=torch.float64) for length in (7, 5, 2)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exact = kind(6, 5, num_layers=2, bidirectional=True, dtype=torch.float64)
    placed = copy.deepcopy(exact).to(device, dtype)
    answers = []
    for network, where in ((exact, ("cpu", torch.float64)), (placed, (device, dtype))):
        packed = nn.utils.rnn.pack_sequence([sequence.to(*where) for sequence in sequences])
        output, _ = network(packed)
        assert output.data.device.type == torch.device(where[0]).type
        answers.append(output.data.detach().cpu().double())
    assert float((answers[0] - answers[1]).abs().max()) <= UNROLLED * UNIT[dtype]
