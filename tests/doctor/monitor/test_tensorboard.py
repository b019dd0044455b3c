"""What is written can be read back by TensorBoard."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import nn

import normwright as nw

pytest.importorskip("tensorboard", reason="TensorBoard is not installed")


def test_the_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Linear(8, 2))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    writer = SummaryWriter(str(tmp_path))
    with writer, nw.Monitor(network, optimiser, every=3, steps=2, writer=writer) as monitor:
        for _ in range(5):
            optimiser.zero_grad()
            network(torch.randn(16, 4)).square().mean().backward()
            optimiser.step()
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    read = events.Scalars("normwright/input_deviation/1")
    assert [event.step for event in read] == [1, 4]
    layer = next(layer for layer in monitor.windows[1].evidence.activations if layer.layer == "1")
    expected = statistics.median(spread.deviation for spread in layer.inputs)
    assert read[1].value == pytest.approx(expected, rel=1e-6)
    for name in ("gradient_rms/0", "update_to_weight/3", "input_mean/1", "saturated/2"):
        assert f"normwright/{name}" in tags["scalars"]
    assert events.Scalars("normwright/findings/note")[0].value >= 1
    assert any("weight_decay_on_norm" in tag for tag in tags["tensors"])
