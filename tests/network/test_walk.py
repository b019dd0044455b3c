"""Normalisers are found by what they are, and replaced under every name that they have."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

import normwright.nn
from normwright.errors import OptionError
from normwright.network import find_normalisers, replace_module


class FrozenBatchNorm2d(nn.Module):
    """Named as torchvision's, and like it no subclass of any normaliser."""


class FrozenInMyWay(FrozenBatchNorm2d):
    pass


class DetrFrozenBatchNorm2d(nn.Module):
    """Named as Transformers'."""


class FrozenBatchNormAct2d(nn.Module):
    """Named as timm's."""


class LayerNorm2d(nn.LayerNorm):
    pass


NORMALISERS = [
    nn.BatchNorm1d(4),
    nn.BatchNorm2d(4),
    nn.BatchNorm3d(4),
    nn.SyncBatchNorm(4),
    nn.LazyBatchNorm2d(),
    nn.InstanceNorm1d(4),
    nn.InstanceNorm2d(4),
    nn.InstanceNorm3d(4),
    nn.LayerNorm(4),
    nn.GroupNorm(2, 4),
    nn.RMSNorm(4),
    nn.LocalResponseNorm(5),
    LayerNorm2d(4),
    FrozenBatchNorm2d(),
    FrozenInMyWay(),
    DetrFrozenBatchNorm2d(),
    FrozenBatchNormAct2d(),
    normwright.nn.FrozenBatchNorm3d(4),
    normwright.nn.BatchNorm2d(4),
    normwright.nn.RMSNorm(4),
]


@pytest.mark.parametrize("normaliser", NORMALISERS, ids=lambda module: type(module).__name__)
def test_every_kind_of_normaliser_is_found(normaliser: nn.Module) -> None:
    network = nn.Sequential(OrderedDict(linear=nn.Linear(4, 4), norm=normaliser, activation=nn.ReLU()))
    assert find_normalisers(network) == {"norm": normaliser}


@pytest.mark.parametrize(
    "module", [nn.Identity(), nn.Dropout(), nn.Softmax(dim=1), nn.LSTM(2, 2), nn.PReLU()]
)
def test_what_does_not_normalise_is_not_found(module: nn.Module) -> None:
    assert find_normalisers(nn.Sequential(module)) == {}


def test_names_are_qualified_and_in_registration_order() -> None:
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, batch_first=True), 2, norm=nn.LayerNorm(8)
    )
    assert list(find_normalisers(encoder)) == [
        "layers.0.norm1",
        "layers.0.norm2",
        "layers.1.norm1",
        "layers.1.norm2",
        "norm",
    ]


def test_a_shared_normaliser_is_listed_once_under_its_first_name() -> None:
    shared = nn.BatchNorm1d(4)
    network = nn.Sequential(OrderedDict(first=shared, linear=nn.Linear(4, 4), second=shared))
    assert find_normalisers(network) == {"first": shared}


def test_a_network_that_is_a_normaliser_has_the_empty_name() -> None:
    network = nn.LayerNorm(4)
    assert find_normalisers(network) == {"": network}


@pytest.mark.parametrize(
    ("container", "name"),
    [
        (lambda old: nn.Sequential(nn.ReLU(), old), "1"),
        (lambda old: nn.ModuleList([nn.ReLU(), old]), "1"),
        (lambda old: nn.ModuleDict({"keys_of_it": nn.ReLU(), "norm": old}), "norm"),
        (lambda old: nn.Sequential(OrderedDict(inner=nn.ModuleList([nn.Sequential(old)]))), "inner.0.0"),
    ],
)
def test_replaces_in_any_container(container: type, name: str) -> None:
    network, new = container(nn.BatchNorm1d(4)), nn.LayerNorm(4)
    before = [key for key, _ in network.named_modules()]
    replace_module(network, name, new)
    assert network.get_submodule(name) is new
    assert [key for key, _ in network.named_modules()] == before


def test_replaces_a_shared_module_under_every_name() -> None:
    old, new = nn.BatchNorm1d(4), nn.LayerNorm(4)
    inner = nn.Sequential(old, nn.ReLU(), old)
    network = nn.Sequential(OrderedDict(a=inner, b=old, c=nn.BatchNorm1d(4)))
    replace_module(network, "b", new)
    assert [network.a[0], network.a[2], network.b] == [new, new, new]
    assert isinstance(network.c, nn.BatchNorm1d)


def test_the_new_module_may_hold_the_old_one() -> None:
    old = nn.BatchNorm1d(4)
    network = nn.Sequential(nn.Linear(4, 4), old)
    replace_module(network, "1", nn.Sequential(old, nn.ReLU()))
    assert network[1][0] is old
    assert network(torch.zeros(2, 4)).shape == (2, 4)


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(OptionError, match=r"no module 'body\.norm'.*named_modules"):
        replace_module(nn.Sequential(nn.ReLU()), "body.norm", nn.Identity())


def test_a_network_cannot_replace_itself() -> None:
    with pytest.raises(OptionError, match=r"wrap it in nn\.Sequential"):
        replace_module(nn.BatchNorm1d(4), "", nn.Identity())
