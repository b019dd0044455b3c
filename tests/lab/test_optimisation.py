"""The optimiser by its name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwright.errors import OptionError, UserCodeError
from normwright.lab.optimisation import optimiser_named

NETWORK = nn.Linear(2, 2)


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_what_is_not_given_is_pytorchs_default(name, kind):
    made = optimiser_named(name, NETWORK, lr=None, momentum=None, weight_decay=None)
    assert type(made) is kind
    assert made.defaults == kind(NETWORK.parameters()).defaults
    assert made.param_groups[0]["params"] == list(NETWORK.parameters())


def test_what_is_given_counts():
    made = optimiser_named("sgd", NETWORK, lr=0.5, momentum=0.9, weight_decay=0.0)
    assert (made.defaults["lr"], made.defaults["momentum"], made.defaults["weight_decay"]) == (0.5, 0.9, 0.0)


def test_a_users_own(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def adam(network): return torch.optim.Adam(network.parameters(), lr=0.25)\n"
        "def none(network): return [1]\n"
    )
    own = f"{tmp_path / 'own.py'}"
    assert optimiser_named(f"{own}:adam", NETWORK).defaults["lr"] == 0.25
    with pytest.raises(UserCodeError, match=r"must return a torch.optim.Optimizer, but returned list: \[1\]"):
        optimiser_named(f"{own}:none", NETWORK)
    with pytest.raises(OptionError, match="decides on lr, weight_decay itself, but they came too"):
        optimiser_named(f"{own}:adam", NETWORK, lr=1.0, weight_decay=0.0)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("sdg", {}, "did you mean 'sgd'"),
        ("adamw", {"momentum": 0.9}, "must come without a momentum"),
        ("sgd", {"weight_decay": float("inf")}, "weight_decay must be a finite number, but is inf"),
        ("sgd", {"lr": -1.0}, "sgd refuses its settings: Invalid learning rate: -1.0"),
    ],
)
def test_what_cannot_be(name, settings, words):
    with pytest.raises(OptionError, match=words):
        optimiser_named(name, NETWORK, **settings)


def test_nothing_to_train():
    with pytest.raises(OptionError, match="ReLU must have parameters"):
        optimiser_named("sgd", nn.ReLU())
