"""Batches of any make go to the network's device. Here that is "meta", which every machine has."""

import dataclasses
from collections import OrderedDict, UserDict, deque, namedtuple
from types import MappingProxyType

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils import _pytree as pytree

from normwright.network.calling import call_of, moved

Pair = namedtuple("Pair", "left right")
ON_META = nn.Linear(2, 2, device="meta")


class Encoding(UserDict):
    """Its items are its attributes, too."""

    def __getattr__(self, name):
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None


class Moving(Encoding):
    """It moves itself, in place."""

    def to(self, device):
        self.data = {key: tensor.to(device) for key, tensor in self.data.items()}
        self.moved = True
        return self


class Boxes(list):
    def __init__(self, boxes, size):
        super().__init__(boxes)
        self.size = size


class Coordinates(tuple):
    def __new__(cls, left, right):
        return super().__new__(cls, (left, right))


@dataclasses.dataclass
class Sample:
    image: torch.Tensor
    name: str


pytree.register_dataclass(Sample)


@dataclasses.dataclass(frozen=True)
class Batch:
    """PyTorch's pytree knows nothing of it."""

    image: torch.Tensor
    size: int = 3


@dataclasses.dataclass
class Branch:
    value: torch.Tensor
    parent: object = None
    children: list = dataclasses.field(default_factory=list)


def x():
    return torch.ones(2)


@pytest.mark.parametrize(
    ("batch", "tensors"),
    [
        (x(), lambda batch: [batch]),
        ((x(), [x(), "a word"]), lambda batch: [batch[0], batch[1][0]]),
        (Pair(x(), 3), lambda batch: [batch.left]),
        ({"a": {"b": x()}, "c": None}, lambda batch: [batch["a"]["b"]]),
        (UserDict(a=x()), lambda batch: [batch["a"]]),
        (MappingProxyType({"a": x()}), lambda batch: [batch["a"]]),
        (Encoding(a=x()), lambda batch: [batch.a]),
        (Moving(a=x()), lambda batch: [batch.a]),
        (OrderedDict(a=[x()]), lambda batch: [batch["a"][0]]),
        (deque([x()], maxlen=1), lambda batch: [batch[0]]),
        (Sample(x(), "a word"), lambda batch: [batch.image]),
        (Batch(x()), lambda batch: [batch.image]),
        (Coordinates(x(), x()), list),
        (Boxes([x()], 5), lambda batch: [batch[0]]),
        (torch.ones(2, 2).max(0), lambda batch: [batch.values, batch.indices]),
        (pack_sequence([x(), x()[:1]]), lambda batch: [batch.data]),
        (
            pack_sequence([x()[:1], x()], enforce_sorted=False),
            lambda batch: [batch.data, batch.sorted_indices],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tensors_go_to_the_network(batch, tensors):
    there = moved(batch, ON_META)
    assert {tensor.device.type for tensor in tensors(there)} == {"meta"}
    assert {tensor.device.type for tensor in tensors(batch)} == {"cpu"}
    assert type(there) is (dict if isinstance(batch, MappingProxyType) else type(batch))
    assert getattr(there, "size", None) == getattr(batch, "size", None) or isinstance(there, torch.Tensor)


@pytest.mark.parametrize(
    "batch",
    [
        *(x(), [x()], {"a": (x(), 3)}, Encoding(a=x()), Moving(a=x()), OrderedDict(a=x()), deque([x()])),
        *(
            Pair(x(), 3),
            Boxes([x()], 5),
            Coordinates(x(), x()),
            Sample(x(), ""),
            Batch(x()),
            pack_sequence([x()]),
        ),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_what_is_there_already_is_returned_itself(batch):
    assert moved(batch, nn.Linear(2, 2)) is batch


def test_a_record_that_holds_itself():
    tree = Branch(x())
    tree.children = [Branch(x(), tree)]
    there = moved(tree, ON_META)
    assert {there.value.device.type, there.children[0].value.device.type} == {"meta"}
    assert tree.children[0].parent is tree


def test_a_mapping_moves_itself_if_it_can():
    assert moved(Moving(a=x()), ON_META).moved


def test_what_a_call_is_mapped_to_has_lists_and_dicts_of_its_own():
    call = call_of(([3], {"a": [x()]}))
    mapped = call.map(lambda tensor: tensor)
    mapped.args[0].append(4)
    mapped.args[1]["a"].clear()
    assert call.args[0] == [3]
    assert len(call.args[1]["a"]) == 1


def test_the_sizes_of_a_packed_sequence_stay():
    assert moved(pack_sequence([x()]), ON_META).batch_sizes.device.type == "cpu"


def test_a_buffer_is_where_a_network_without_parameters_is():
    network = nn.BatchNorm1d(2, affine=False, device="meta")
    assert moved(x(), network).is_meta


def test_a_network_that_holds_nothing_is_anywhere():
    batch = [x()]
    assert moved(batch, nn.ReLU()) is batch


@pytest.mark.parametrize(
    ("example", "args", "named"),
    [
        ((1, 2), (1, 2), {}),
        ({"a": 1}, (), {"a": 1}),
        (Encoding(a=1), (), {"a": 1}),
        (MappingProxyType({"a": 1}), (), {"a": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_example_stands_for(example, args, named):
    call = call_of(example)
    assert (call.args, call.named) == (args, named)
    assert type(call.named) is dict


def test_packed_sequences_are_one_argument():
    packed = pack_sequence([x()])
    assert call_of(packed).args == (packed,)
