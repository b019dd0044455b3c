"""Every built-in network works with every normaliser on every size of image, and says where it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from normwright.errors import OptionError, ShapeError, UserCodeError
from normwright.lab.networks import BUILDERS, build_network
from normwright.lab.recipe import ACTIVATIONS, NORMS, NetworkRecipe

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
NO_SPACE = {"mlp", "lstm"}
NEEDS_SPACE = {"instance", "lrn", "frn"}
RECURRENT = {"recurrent-batch", "recurrent-layer"}


def recipe_for(name: str, **changes: object) -> NetworkRecipe:
    return dataclasses.replace(NetworkRecipe(name=name, depth=2, width=6), **changes)


def images(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(12, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", BUILDERS)
def test_forward_and_backward_are_finite(name: str, norm: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    recipe = recipe_for(name)
    if name in NO_SPACE and norm in NEEDS_SPACE:
        with pytest.raises(OptionError, match=f"^{norm} norm must be defined at one normaliser"):
            build_network(recipe, norm, shape, 10)
        return
    if (norm in RECURRENT) != (name == "lstm") and norm in {"weight", "ws", *RECURRENT}:
        with pytest.raises(OptionError, match=f"^{norm} norm must have an? .* to act on"):
            build_network(recipe, norm, shape, 10)
        return
    network = build_network(recipe, norm, shape, 10).module
    assert network.training
    output = network(images(shape))
    assert output.shape == (12, 10)
    nn.functional.cross_entropy(output, torch.tensor([0, 3, 9, 3] * 3)).backward()
    assert torch.isfinite(output).all()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    assert network.eval()(images(shape)[:1]).shape == (1, 10)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", BUILDERS)
def test_places_have_the_same_names_whatever_the_normaliser(name: str, place: str) -> None:
    recipe = recipe_for(name, place=place)
    built = {
        norm: build_network(recipe, norm, (1, 28, 28), 10) for norm in ("none", "batch", "layer", "group")
    }
    places = {norm: network.placement for norm, network in built.items()}
    assert len(set(places.values())) == 1
    assert places["none"].left_out == ()
    for name_of_place in places["none"].places:
        assert type(built["none"].module.get_submodule(name_of_place)) is nn.Identity


RESNET_PLACES = (
    "stem.norm",
    *(
        f"stage{stage}.block{block}.norm{norm}"
        for stage in (1, 2, 3)
        for block in (1, 2, 3)
        for norm in (1, 2)
    ),
)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("mlp", ("hidden1.norm", "hidden2.norm")),
        ("lenet", ("conv1.norm", "conv2.norm", "fc1.norm", "fc2.norm")),
        ("vgg", tuple(f"stage{stage}.conv{conv}.norm" for stage in (1, 2, 3) for conv in (1, 2))),
        ("resnet20", RESNET_PLACES),
        ("lstm", ("layer1.norm", "layer2.norm")),
    ],
)
def test_places_are_named_from_the_input_to_the_loss(name: str, places: tuple[str, ...]) -> None:
    assert build_network(recipe_for(name), "batch", (1, 28, 28), 10).placement.places == places


def test_places_where_the_normaliser_is_undefined_are_left_out() -> None:
    built = build_network(recipe_for("lenet"), "instance", (1, 28, 28), 10)
    assert built.placement.left_out == ("fc1.norm", "fc2.norm")


@pytest.mark.parametrize("initialisation", ["own", "xavier", "kaiming", "normal"])
@pytest.mark.parametrize("name", BUILDERS)
def test_the_same_seed_gives_the_same_weights_and_draws_under_every_normaliser(
    name: str, initialisation: str
) -> None:
    weights, draws = [], []
    for norm in ("none", "batch", "batch", "layer", "group"):
        torch.manual_seed(5)
        network = build_network(
            recipe_for(name, initialisation=initialisation, dropout=0.5), norm, (1, 8, 8), 10
        ).module
        weights.append({key: p for key, p in network.named_parameters() if ".norm" not in key})
        draws.append(torch.rand(8))
    for other, draw in zip(weights, draws, strict=True):
        assert other.keys() == weights[0].keys()
        assert all(torch.equal(weights[0][key], other[key]) for key in other)
        assert torch.equal(draw, draws[0])


@pytest.mark.parametrize("name", BUILDERS)
def test_another_seed_gives_other_weights(name: str) -> None:
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(build_network(recipe_for(name), "none", (1, 8, 8), 10).module)
    first, second = ([p for p in network.parameters() if p.dim() > 1] for network in networks)
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        (name, activation)
        for name in ("mlp", "lenet", "vgg", "resnet20")
        for activation in ACTIVATIONS
        if (name, activation) != ("resnet20", "maxout")
    ],
)
def test_the_activation_is_the_one_asked_for(name: str, activation: str) -> None:
    network = build_network(recipe_for(name, activation=activation), "batch", (1, 8, 8), 10).module
    kinds = {type(module).__name__.lower() for key, module in network.named_modules() if "activation" in key}
    assert kinds == {activation.replace("_", "")}
    assert torch.isfinite(network(images((1, 8, 8)))).all()


@pytest.mark.parametrize("name", ["mlp", "lenet", "vgg", "resnet20"])
def test_the_place_of_the_normaliser_changes_what_is_computed(name: str) -> None:
    outputs = []
    for place in ("before", "after"):
        torch.manual_seed(0)
        network = build_network(recipe_for(name, place=place), "layer", (1, 8, 8), 10).module
        outputs.append(network(images((1, 8, 8))))
    assert not torch.allclose(*outputs)


@pytest.mark.parametrize("name", BUILDERS)
def test_dropout_acts_in_training_alone(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(recipe_for(name, dropout=0.5), "layer", (1, 8, 8), 10).module
    x = images((1, 8, 8))
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
    without = build_network(recipe_for(name), "layer", (1, 8, 8), 10).module
    assert not any(isinstance(module, nn.Dropout) for module in without.modules())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet", (1, 7, 28)),
        ("lenet", (64,)),
        ("vgg", (1, 28, 7)),
        ("resnet20", (28, 28)),
        ("resnet20", (1, 4, 4)),
        ("lstm", (5, 4)),
        ("lstm", (1, 0, 4)),
    ],
)
def test_samples_that_a_network_cannot_take(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=f"^{name} takes images .*take the network 'mlp'"):
        build_network(recipe_for(name), "batch", shape, 10)


def test_mlp_takes_samples_of_any_shape() -> None:
    assert build_network(recipe_for("mlp"), "batch", (5,), 3).module(torch.zeros(2, 5)).shape == (2, 3)


def test_an_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(
        OptionError, match=r"unknown network 'lennet': did you mean 'lenet'.*file\.py:function"
    ):
        build_network(recipe_for("lennet"), "batch", (1, 8, 8), 10)


class Small(nn.Module):
    """A user's network: it knows its normalisers, and nothing of normwright."""

    def __init__(self, sample_shape: tuple[int, ...] = (1, 8, 8), classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(sample_shape[0], 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))
        return result


def no_arguments() -> nn.Module:
    return Small()


def starred(*args: object) -> nn.Module:
    return Small(*args)


@pytest.mark.parametrize(
    "function", [Small, no_arguments, starred, lambda shape, classes, more=1: Small(shape, classes)]
)
def test_a_function_of_the_user(function: Callable[..., nn.Module]) -> None:
    built = build_network(NetworkRecipe(name="mine:net"), "group", (1, 8, 8), 10, function=function)
    assert built.placement.places == ("bn",)
    assert isinstance(built.module.bn, nn.GroupNorm)
    assert not built.module.fc.bias.any()  # the recipe's initialisation, xavier


@pytest.mark.parametrize("function", [lambda s, c: Small(s, c), lambda s, c, more=1: Small(s, c)])
def test_a_function_that_needs_the_shape_gets_it(function: Callable[..., nn.Module]) -> None:
    built = build_network(NetworkRecipe(name="mine:net"), "batch", (3, 9, 9), 7, function=function)
    assert built.module(torch.zeros(2, 3, 9, 9)).shape == (2, 7)


def test_a_function_of_options_is_called_without_any_as_by_the_other_commands() -> None:
    def net(width: int = 4, depth: int = 1) -> nn.Module:
        assert (width, depth) == (4, 1)
        return Small()

    built = build_network(NetworkRecipe(name="mine:net"), "batch", (1, 9, 9), 10, function=net)
    assert built.placement.places == ("bn",)


@pytest.mark.usefixtures("restored_imports")
def test_a_function_named_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text(
        "from torch import nn\n"
        "def net(sample_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))\n"
    )
    built = build_network(NetworkRecipe(name=f"{file}:net"), "rms", (1, 8, 8), 10)
    assert built.placement.places == ("2",)
    with pytest.raises(UserCodeError, match="gone"):
        build_network(NetworkRecipe(name=f"{file}:gone"), "rms", (1, 8, 8), 10)


def test_own_initialisation_keeps_the_weights_of_the_user() -> None:
    def net() -> nn.Module:
        network = Small()
        nn.init.constant_(network.conv.weight, 0.25)
        return network

    recipe = NetworkRecipe(name="mine:net", initialisation="own")
    assert (build_network(recipe, "batch", (1, 8, 8), 10, function=net).module.conv.weight == 0.25).all()


class TwoOutputs(Small):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


class Sparse(Small):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.eye(3).to_sparse())


class Counting(Small):
    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Small(), r"mine:net must be a function that makes the network, but is the network itself \(Small"),
        (lambda width: Small(), r"or with \(sample_shape, classes\), but takes \(width\): write a function"),
        (lambda: 3, r"mine:net must return a torch\.nn\.Module, but returned int: 3"),
        (lambda: None, "but returned NoneType"),
        (lambda: Small, "but returned type"),
        (lambda: Small(classes=7), r"must give a tensor \(2, 10\).*but gave a tensor \(2, 7\)"),
        (TwoOutputs, r"must give a tensor \(2, 10\).*but gave tuple"),
        (lambda: torch.compile(Small()), "must return the network itself.*compiled, as OptimizedModule"),
        (lambda: torch.jit.script(nn.Linear(2, 2)), "itself.*compiled, as RecursiveScriptModule"),
        (Sparse, r"in dense tensors .*, but 'table' is torch.sparse_coo"),
        (Counting, r"must keep its state in tensors .*, but '_extra_state' is a dict"),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated")
def test_a_function_that_returns_the_wrong_thing(function: Callable[..., object], message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        build_network(NetworkRecipe(name="mine:net"), "batch", (1, 8, 8), 10, function=function)


def test_a_function_that_returns_the_same_network_twice() -> None:
    network = Small()
    recipe = NetworkRecipe(name="mine:net")
    build_network(recipe, "batch", (1, 8, 8), 10, function=lambda: network)
    with pytest.raises(UserCodeError, match="must build a new network at each call"):
        build_network(recipe, "layer", (1, 8, 8), 10, function=lambda: network)


def test_an_exception_in_the_users_code_comes_through() -> None:
    def net() -> nn.Module:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        build_network(NetworkRecipe(name="mine:net"), "batch", (1, 8, 8), 10, function=net)


def test_a_network_without_normalisers_says_what_to_do() -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    with pytest.raises(OptionError, match=r"put one of torch\.nn"):
        build_network(NetworkRecipe(name="mine:net"), "batch", (1, 8, 8), 10, function=net)


def test_lazy_modules_of_the_user_are_initialised() -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(10))

    network = build_network(NetworkRecipe(name="mine:net"), "layer", (1, 8, 8), 10, function=net).module
    assert network[1].weight.shape == (8, 64)
    assert not network[1].bias.any()
