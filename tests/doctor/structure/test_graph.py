"""The compact graph: what feeds what, by either way of tracing, and what it does not take for a layer."""

from __future__ import annotations

import copy

import pytest
import torch
from graphs import WAYS, Calls, fed_by, graph_by, images, operation
from torch import nn
from torch.nn import functional as F

import normwright as nw
from normwright.doctor.missing import SkipError
from normwright.doctor.structure.tracing import gather_graph
from normwright.doctor.subject import Subject

by_way = pytest.mark.parametrize("way", WAYS)


@by_way
def test_layers_and_functions_feed_one_another(way):
    def forward(m, x):
        y = F.relu(m.norm(m.conv(x)))
        return m.head(torch.cat([y, y + m.shortcut(x)], 1).mean((2, 3)))

    network = Calls(
        forward,
        conv=nn.Conv2d(3, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4),
        shortcut=nn.Conv2d(3, 4, 1),
        head=nn.Linear(8, 2),
    )
    graph = graph_by(way, network, images())
    assert fed_by(graph, "norm") == ["conv"]
    assert fed_by(graph, ": relu") == ["norm"]
    assert fed_by(graph, ": add") == [": relu", "shortcut"]
    assert fed_by(graph, ": cat") == [": relu", ": add"]
    assert fed_by(graph, "head") == [": mean"]
    assert fed_by(graph, "output") == ["head"]
    kinds = [operation(graph, name).kind for name in ("conv", "norm", ": relu", ": add", ": cat", "head")]
    assert kinds == ["convolution", "normaliser", "activation", "add", "concatenate", "linear"]
    assert operation(graph, "norm").input_shape == operation(graph, "norm").shape == (4, 4, 8, 8)
    assert operation(graph, "conv").bias == "conv.bias"
    assert set(operation(graph, "head").parameters) == {"head.weight", "head.bias"}


@by_way
def test_reshapes_casts_and_identities_are_passed_through(way):
    def forward(m, x):
        return m.norm(m.identity(m.linear(x)).double().transpose(1, 2).contiguous().float())

    network = Calls(forward, linear=nn.Linear(5, 6), identity=nn.Identity(), norm=nn.BatchNorm1d(6))
    graph = graph_by(way, network, torch.randn(3, 4, 5))
    assert [op.name for op in graph.operations][1:] == ["linear", "norm", "output"]
    (edge,) = graph.feeding(graph.places("norm")[0])
    assert edge.axis == 1  # the six features, whole
    assert edge.copied  # by contiguous
    assert "transpose" in edge.passed


@by_way
def test_channels_that_a_reshape_mixes_have_no_axis(way):
    def forward(m, x):
        return m.norm(m.linear(x).view(-1, 2, 3))

    network = Calls(forward, linear=nn.Linear(5, 6), norm=nn.BatchNorm1d(2))
    graph = graph_by(way, network, torch.randn(3, 5))
    assert graph.feeding(graph.places("norm")[0])[0].axis is None


@by_way
def test_functions_within_one_call_are_numbered_and_across_calls_are_the_same(way):
    block = Calls(lambda m, x: torch.tanh(torch.tanh(m.linear(x))), linear=nn.Linear(4, 4))
    network = Calls(lambda m, x: m.block(m.block(x)), block=block)
    graph = graph_by(way, network, torch.randn(3, 4))
    names = [op.name for op in graph.operations if op.kind == "activation"]
    assert names == ["block: tanh", "block: tanh#2"] * 2


@by_way
def test_what_is_computed_in_place_is_what_is_read_afterwards(way):
    def forward(m, x):
        x = m.conv(x)
        F.relu(x, inplace=True)  # its result goes unused, and x is another
        m.activation(x.mul_(2))
        return m.norm(x)

    network = Calls(
        forward, conv=nn.Conv2d(3, 4, 3), activation=nn.ReLU(inplace=True), norm=nn.BatchNorm2d(4)
    )
    graph = graph_by(way, network, images())
    assert fed_by(graph, ": relu") == ["conv"]
    assert fed_by(graph, ": mul") == [": relu"]
    assert fed_by(graph, "activation") == [": mul"]
    assert fed_by(graph, "norm") == ["activation"]


@by_way
def test_dropout_is_known_as_a_module_and_as_a_function(way):
    def forward(m, x):
        x = F.dropout2d(m.dropout(x), 0.2, m.training)
        return F.dropout(x, 0.3, m.training) + F.dropout(x, 0.4, training=False)

    graph = graph_by(way, Calls(forward, dropout=nn.Dropout(0.1)), images())
    probabilities = [op.probability for op in graph.operations if op.kind == "dropout"]
    # one that is off leaves nothing in a recording
    assert [p for p in probabilities if p] == [0.1, 0.2, 0.3]
    assert fed_by(graph, ": add")[0].startswith(": dropout")


@by_way
def test_functional_and_own_normalisers_count(way):
    def forward(m, x):
        x = F.layer_norm(F.batch_norm(x, None, None, training=True), (8,))
        x = nw.functional.group_norm(m.ours(x), 2)
        return m.renorm(F.instance_norm(F.group_norm(x, 2)))

    network = Calls(forward, ours=nw.nn.BatchNorm2d(4, activation="relu"), renorm=nw.nn.BatchRenorm2d(4))
    graph = graph_by(way, network, images(4))
    norms = [op.name for op in graph.operations if op.kind == "normaliser"]
    functions = [": group_norm", ": group_norm#2", ": instance_norm"]
    assert norms == [": batch_norm", ": layer_norm", "ours", *functions, "renorm"]
    assert len(graph.operations) == len(norms) + 2  # what a module computes by several operators is one


@by_way
def test_what_a_normaliser_does_to_weights_is_no_layer(way):
    def forward(m, x):
        weight = F.layer_norm(m.conv.weight, (3, 3, 3))
        return m.norm(F.conv2d(x, weight, m.conv.bias))

    network = Calls(forward, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4))
    graph = graph_by(way, network, images())
    assert [op.kind for op in graph.operations] == ["input", "convolution", "normaliser", "output"]
    (convolution,) = (op for op in graph.operations if op.kind == "convolution")
    assert set(convolution.parameters) == {"conv.weight", "conv.bias"}
    assert convolution.bias == "conv.bias"


@by_way
def test_running_statistics_feed_nothing(way):
    network = Calls(lambda m, x: m.norm(x) + m.norm(x.relu()), norm=nn.BatchNorm2d(3))
    graph = graph_by(way, network, images())
    _, second = graph.places("norm")
    assert [graph.operations[edge.source].name for edge in graph.feeding(second)] == [": relu"]


@by_way
def test_a_layer_that_ends_in_a_normaliser_is_two_operations(way):
    class Convolution(nn.Conv2d):  # as detectron2 has it
        def __init__(self, *args, norm, **options):
            super().__init__(*args, **options)
            self.norm = norm

        def forward(self, x):
            return F.relu(self.norm(super().forward(x)))

    network = nn.Sequential(Convolution(3, 4, 3, norm=nn.BatchNorm2d(4)))
    graph = graph_by(way, network, images())
    assert [op.name for op in graph.operations[1:]] == ["0", "0.norm", "0: relu", "output"]
    assert operation(graph, "0").bias == "0.bias"


@by_way
def test_layouts(way):
    def forward(m, x):
        return m.norm(m.conv(x).permute(0, 2, 3, 1))

    network = Calls(forward, conv=nn.Conv2d(3, 4, 3), norm=nn.LayerNorm(4))
    graph = graph_by(way, network, images())
    assert operation(graph, "conv").layout == "contiguous"
    assert operation(graph, "norm").input_layout == "strided"
    last = graph_by(
        way, network.to(memory_format=torch.channels_last), images().to(memory_format=torch.channels_last)
    )
    assert operation(last, "conv").layout == "channels_last"
    assert operation(last, "norm").input_layout == "contiguous"


@by_way
def test_above_and_below(way):
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    graph = graph_by(way, network, torch.randn(2, 3))
    (middle,) = graph.places("1")
    assert {graph.operations[place].name for place in graph.below(middle)} == {"2", "output"}
    assert "0" in {graph.operations[place].name for place in graph.above(middle)}
    assert middle not in graph.above(middle) | graph.below(middle)


@by_way
def test_where_a_call_stands(way):
    network = Calls(lambda m, x: m.norm(x), norm=nn.BatchNorm2d(3))
    file, line = operation(graph_by(way, network, images()), "norm").where.rsplit(":", 1)
    assert file.endswith(("test_graph.py", "graphs.py"))
    assert int(line) > 1


class _Stubborn(nn.Module):
    """Nothing can trace it: its path depends on the numbers, and a recording meets an error."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        if x.sum().item() > float("inf"):
            return x
        raise RuntimeError("no more")


def test_a_network_that_cannot_be_traced_is_a_reason():
    with pytest.raises(SkipError, match=r"not be traced: torch\.export: .*recording: RuntimeError: no more"):
        gather_graph(Subject(_Stubborn(), (torch.randn(2, 3),)))


def test_a_forward_fn_that_calls_only_parts_is_a_reason():
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    subject = Subject(network, (torch.randn(2, 3),), forward_fn=lambda network, batch: network[0](batch))
    with pytest.raises(SkipError, match="does not call the network itself"):
        gather_graph(subject)


def test_the_subject_stays_as_it_was():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).eval()
    before = copy.deepcopy(network.state_dict())
    graph = gather_graph(Subject(network, ((torch.randn(4, 3), torch.zeros(4)),)))
    assert operation(graph, "2").probability == 0.5  # seen in training mode
    assert not any(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert all(map(torch.equal, before.values(), network.state_dict().values()))
