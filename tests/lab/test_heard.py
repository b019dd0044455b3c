"""An option that would be ignored is refused; what is let through changes the network."""

import dataclasses

import pytest
import torch

from normwright.errors import OptionError
from normwright.lab.grid import make_base
from normwright.lab.heard import check_heard
from normwright.lab.networks import BUILDERS

OTHER = {"depth": 3, "width": 12, "activation": "relu", "place": "after", "dropout": 0.5}


def base(network="mlp", data="digits", norm="batch", **options):
    return make_base(network, data, norm=norm, batch_size=8, lr=0.1, **options)


def is_heard(network, option):
    try:
        check_heard(base(network, **{option: OTHER[option]}), ["batch"], [option])
    except OptionError:
        return False
    return True


@pytest.mark.parametrize("option", OTHER)
@pytest.mark.parametrize("network", BUILDERS)
def test_those_options_are_heard_that_change_the_network(network, option):
    usual = dataclasses.replace(base(network).network, depth=2, width=8)
    other = dataclasses.replace(usual, **{option: OTHER[option]})
    with torch.device("meta"):
        changed = repr(BUILDERS[network](usual, (1, 16, 16), 10)) != repr(
            BUILDERS[network](other, (1, 16, 16), 10)
        )
    if network == "resnet20" and option == "place":
        changed = True  # its blocks hold the same modules and call them in another order
    assert is_heard(network, option) == changed


@pytest.mark.parametrize(
    ("options", "norms", "given", "words"),
    [
        (
            {"network": "lenet", "depth": 2},
            ["batch"],
            "depth",
            "depth= is for mlp and lstm, but the network is lenet: leave it out",
        ),
        ({"network": "nets.py:wide"}, ["batch"], "width", "nets.py:wide builds its network itself"),
        (
            {"init_std": 0.1},
            ["batch"],
            "init_std",
            "initialisation normal, but came with xavier: leave it out, or take normal",
        ),
        (
            {"network": "lstm"},
            ["batch"],
            "activation",
            "is for mlp, lenet, vgg and resnet20, but the network",
        ),
        ({"optimiser": "adamw"}, ["batch"], "momentum", "for optimiser sgd, but came with adamw"),
        ({"warmup": 0.1}, ["batch"], "warmup", "for schedule cosine, but came with constant"),
        ({"groups": 4}, ["batch", "layer"], "groups", "for norm group or ws, but came with batch, layer"),
        ({"ghost_size": 4}, ["batch"], "ghost_size", "for norm ghost, but came with batch"),
        ({"image_size": 8}, ["batch"], "image_size", "for images:DIR, but the data are digits"),
        ({}, ["none"], "place", "place= is for a normaliser other than none, but came with none: leave it"),
        ({}, ["none", "lrn"], "affine", "other than none and lrn, but came with none, lrn: leave it out"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(options, norms, given, words):
    with pytest.raises(OptionError, match=words):
        check_heard(base(**options), norms, [given])


@pytest.mark.parametrize(
    ("options", "norms", "given"),
    [
        ({"initialisation": "normal"}, ["batch"], "init_std"),
        ({}, ["batch"], "momentum"),
        ({"schedule": "cosine"}, ["batch"], "warmup"),
        ({}, ["batch", "ws"], "groups"),
        ({}, ["ghost"], "ghost_size"),
        ({"data": "images:photos"}, ["batch"], "image_size"),
        ({"network": "nets.py:wide"}, ["batch"], "affine"),
        ({}, ["none", "lrn"], "place"),
        ({}, ["none", "lrn", "dyt"], "affine"),
        ({"network": "lenets"}, ["batch"], "depth"),  # that there is no such network is said elsewhere
        ({"data": "images"}, ["batch"], "image_size"),
    ],
)
def test_an_option_that_is_heard_is_let_through(options, norms, given):
    check_heard(base(**options), norms, [given])


def test_all_that_would_be_ignored_is_told():
    with pytest.raises(OptionError, match=r"^depth= is for .* leave it out; momentum= is for .* sgd$"):
        check_heard(base("lenet", optimiser="adamw"), ["batch"], ["depth", "dropout", "momentum"])


def test_a_default_that_is_given_is_refused_too():
    with pytest.raises(OptionError, match="depth"):
        check_heard(base("lenet", depth=6), ["batch"], ["depth"])
