"""Names of sides: short, and different where the sides are."""

from __future__ import annotations

import itertools

import pytest

from normwright.lab.book.bench import make, vary
from normwright.lab.book.side_names import side_names

BASE = make("mlp", "fashion-mnist", norm="batch", batch_size=60)
OWN = "normwright.lab.claims.no_local_response:lenet_with_responses"


def names(*options, purposes=None):
    recipes = [vary(BASE, **one) for one in options]
    return side_names(list(zip(recipes, purposes or [""] * len(recipes), strict=True)))


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([{"norm": "none"}, {"norm": "batch"}], ["no normaliser", "batch norm"]),
        (
            [
                {"activation": "relu", "norm": "none", "max_steps": 1800},
                {"activation": "relu", "norm": "batch", "max_steps": 600},
                {"activation": "sigmoid", "norm": "none", "max_steps": 1800},
            ],
            ["ReLU, no normaliser", "ReLU, batch norm", "sigmoid, no normaliser"],
        ),
        ([{"batch_size": 2}, {"batch_size": 32}], ["batch 2", "batch 32"]),
        ([{"depth": 1, "norm": "none"}, {"depth": 8, "norm": "none"}], ["1 layer", "8 layers"]),
        ([{"place": "before"}, {"place": "after"}], ["before the activation", "after the activation"]),
        ([{"affine": True}, {"affine": False}], ["with weight and bias", "without weight and bias"]),
        ([{"shuffle": True}, {"shuffle": False}], ["reshuffled", "fixed batches"]),
        ([{"dropout": 0.0}, {"dropout": 0.2}], ["no dropout", "dropout 0.2"]),
        (
            [{"weight_decay": 0.0}, {"weight_decay": 1e-4}, {"norm": "none", "weight_decay": 1e-4}],
            [
                "batch norm, no weight decay",
                "batch norm, weight decay 0.0001",
                "no normaliser, weight decay 0.0001",
            ],
        ),
        ([{"init_std": 0.01}, {"init_std": 0.3}], ["initial deviation 0.01", "initial deviation 0.3"]),
        ([{"initialisation": "xavier"}, {"initialisation": "normal"}], ["Xavier start", "normal start"]),
        ([{"momentum": 0.0}, {"momentum": 0.9}], ["momentum 0", "momentum 0.9"]),
        ([{"schedule": "constant"}, {"schedule": "cosine"}], ["schedule constant", "schedule cosine"]),
        ([{"lr": 1.0, "seed": 1}], ["batch norm"]),
        ([{"lr": 1.0, "seed": 1}, {"lr": 3.0, "seed": 2}], ["batch norm", "batch norm"]),
    ],
)
def test_sides_are_named_by_the_options_in_which_they_differ(sides, expected):
    assert names(*sides) == expected


def test_networks_and_purposes_are_named_where_they_tell_apart():
    sides = [
        (BASE, "to 70%"),
        (BASE, "to 80%"),
        (make("lenet", "fashion-mnist", norm="batch", batch_size=64), "to 80%"),
    ]
    assert side_names(sides) == ["MLP, to 70%", "MLP, to 80%", "LeNet, to 80%"]
    assert side_names([(BASE, "to 70%"), (vary(BASE, norm="none"), "to 70%")]) == [
        "batch norm",
        "no normaliser",
    ]


def test_a_network_of_a_users_own_is_named_by_its_function():
    sides = [(make(name, "digits", norm="none", batch_size=2), "") for name in ("lenet", OWN)]
    assert side_names(sides) == ["LeNet", "lenet with responses"]


def test_sides_that_differ_in_any_option_have_different_names():
    changes = [
        {"depth": 3},
        {"width": 7},
        {"epochs": 3},
        {"records": 5},
        {"validation": 0.2},
        {"warmup": 0.1},
    ]
    options = [
        dict(itertools.chain(*(c.items() for c in some)))
        for some in itertools.product([{}, *changes], repeat=2)
    ]
    recipes = list(dict.fromkeys(vary(BASE, **one) for one in options))
    assert len(set(side_names([(recipe, "") for recipe in recipes]))) == len(recipes)
