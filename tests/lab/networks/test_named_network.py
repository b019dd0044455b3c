"""A network by its name: built in, or a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from normwright.errors import OptionError, UserCodeError
from normwright.lab.networks.named_network import NamedNetwork

OWN = """
from torch import nn

def halting():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    network[1].eval()
    return network

def sized(shape, classes):
    return nn.Linear(shape[0], classes)
"""


@pytest.fixture
def own(tmp_path: Path, restored_imports: None) -> str:
    (tmp_path / "nets.py").write_text(OWN)
    return f"{tmp_path / 'nets.py'}"


@pytest.mark.parametrize(("norm", "kind"), [(None, nn.BatchNorm2d), ("group", nn.GroupNorm)])
def test_a_built_in_network_has_the_normaliser_that_is_asked_for(norm, kind):
    named = NamedNetwork("lenet", norm, (1, 8, 8), 10)
    network = named.build()
    assert any(isinstance(module, kind) for module in network.modules())
    assert network.training
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert named.where == ""


def test_modules_stay_in_the_modes_in_which_the_function_leaves_them(own):
    network = NamedNetwork(f"{own}:halting").build()
    assert [module.training for module in network.modules()] == [True, True, False]


def test_a_users_own_is_called_with_what_the_data_tell(own):
    named = NamedNetwork(f"{own}:sized", None, (3,), 5)
    assert tuple(named.build().weight.shape) == (5, 3)
    assert named.call == "sized((3,), 5)"
    with pytest.raises(UserCodeError, match="which only a data set tells"):
        NamedNetwork(f"{own}:sized")


def test_where_the_function_stands(own, monkeypatch):
    line = OWN.splitlines().index("def sized(shape, classes):") + 1
    named = NamedNetwork(f"{own}:sized", None, (3,), 5)
    assert named.where == f"{Path(own).as_posix()}:{line}"
    monkeypatch.chdir(Path(own).parent)
    assert named.where == f"nets.py:{line}"


def test_a_class_written_in_c_has_no_line():
    assert NamedNetwork("builtins:dict").where == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lenett",), "did you mean 'lenet'"),
        (("lenet", "bach", (1, 8, 8), 10), "did you mean 'batch'"),
        (("lenet",), "needs the shape of a sample"),
        (("torch.nn:Identity", "batch"), "norm goes with a built-in network"),
    ],
)
def test_what_cannot_be(arguments, words):
    with pytest.raises(OptionError, match=words):
        NamedNetwork(*arguments).build()
