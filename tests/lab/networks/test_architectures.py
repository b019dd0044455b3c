"""The built-in networks are the ones that the literature means: layers, shapes and numbers of parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwright.errors import OptionError
from normwright.lab.networks import BUILDERS, build_network
from normwright.lab.networks.resnet20 import ResidualBlock
from normwright.lab.recipe import NetworkRecipe

DIGIT = (1, 28, 28)


def built(name: str, norm: str = "none", shape: tuple[int, ...] = DIGIT, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return build_network(NetworkRecipe(name=name, **options), norm, shape, 10).module


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "norm", "shape", "options", "expected"),
    [
        ("lenet", "none", DIGIT, {}, 61_706),
        ("lenet", "batch", DIGIT, {}, 61_706 + 2 * (6 + 16 + 120 + 84)),
        # 4 × 4 pixels pass the padded second convolution: 16 · 2 · 2 features in place of 16 · 5 · 5.
        ("lenet", "none", (1, 8, 8), {}, 61_706 - (400 - 64) * 120),
        ("resnet20", "batch", (3, 32, 32), {}, 269_722),
        ("resnet20", "none", (3, 32, 32), {}, 269_722 - 2 * (7 * 16 + 6 * 32 + 6 * 64)),
        ("mlp", "none", DIGIT, {"depth": 3, "width": 50}, 784 * 50 + 50 + 2 * (50 * 50 + 50) + 50 * 10 + 10),
        # Maxout takes the larger of every two units.
        (
            *("mlp", "batch", DIGIT, {"depth": 2, "width": 5, "activation": "maxout"}),
            (784 + 1 + 2) * 10 + (5 + 1 + 2) * 10 + 5 * 10 + 10,
        ),
        # Four gates, two biases each.
        ("lstm", "none", DIGIT, {"depth": 1, "width": 20}, 4 * 20 * (28 + 20 + 2) + 20 * 10 + 10),
        # 3×3 kernels: 1·4 + 4·4 + 4·8 + 8·8 + 8·16 + 16·16 = 500 of them.
        ("vgg", "none", DIGIT, {"width": 4}, 500 * 9 + 2 * (4 + 8 + 16) + 16 * 10 + 10),
    ],
)
def test_parameter_counts(
    name: str, norm: str, shape: tuple[int, ...], options: dict[str, int], expected: int
) -> None:
    assert parameters(built(name, norm, shape, **options)) == expected


def test_lenet_computes_what_the_book_writes() -> None:
    network = built("lenet")
    book = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    )  # fmt: skip
    book.load_state_dict(dict(zip(book.state_dict(), network.state_dict().values(), strict=True)))
    x = torch.randn(3, *DIGIT)
    assert torch.equal(network(x), book(x))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (11, 12), (12, 11), (28, 20), (33, 64)])
def test_lenet_takes_any_image_of_eight_pixels_and_more(height: int, width: int) -> None:
    assert built("lenet", shape=(2, height, width))(torch.zeros(2, 2, height, width)).shape == (2, 10)


@pytest.mark.parametrize("name", BUILDERS)
def test_oblong_images(name: str) -> None:
    assert built(name, "batch", (3, 9, 14), width=8)(torch.randn(2, 3, 9, 14)).shape == (2, 10)


def test_the_stages_of_resnet20_halve_the_image() -> None:
    network, x = built("resnet20", "batch", (3, 32, 32)), torch.randn(2, 3, 32, 32)
    shapes = []
    for name, module in network.named_children():
        x = module(x)
        if name.startswith("stage"):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert len([m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]) == 20


def test_the_shortcut_of_a_residual_block_takes_every_second_pixel_and_pads_channels() -> None:
    recipe = NetworkRecipe(name="resnet20", activation="relu")
    residual = ResidualBlock(recipe, 2, 4, stride=2).eval()
    nn.init.zeros_(residual.conv2.weight)  # what remains is the shortcut
    x = torch.rand(1, 2, 6, 6)
    expected = torch.zeros(1, 4, 3, 3)
    expected[:, 1:3] = x[:, :, ::2, ::2]
    assert torch.equal(residual(x), expected)


def test_resnet20_has_no_place_for_maxout() -> None:
    with pytest.raises(OptionError, match="must keep the number of channels"):
        built("resnet20", activation="maxout")


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_residual_block_is_its_formula(place: str) -> None:
    recipe = NetworkRecipe(name="resnet20", activation="tanh", place=place)
    b, x = ResidualBlock(recipe, 4, 4, stride=1), torch.randn(3, 4, 6, 6)
    if place == "before":
        expected = torch.tanh(b.norm2(b.conv2(torch.tanh(b.norm1(b.conv1(x))))) + x)
    else:
        expected = b.norm2(torch.tanh(b.conv2(b.norm1(torch.tanh(b.conv1(x)))) + x))
    assert torch.equal(b(x), expected)


def test_the_stages_of_vgg_double_in_width_up_to_512_channels() -> None:
    for width, expected in ((8, [8, 16, 32]), (200, [200, 400, 512]), (600, [600, 600, 600])):
        network = BUILDERS["vgg"](NetworkRecipe(name="vgg", width=width), DIGIT, 10)
        assert [stage.conv2.conv.out_channels for stage in list(network.children())[:3]] == expected


def test_the_lstm_reads_rows_from_the_top_and_answers_after_the_last() -> None:
    network, x = built("lstm", depth=1, width=6, shape=(2, 5, 3)), torch.randn(4, 2, 5, 3)
    lstm = network.layer1.lstm
    rows = torch.stack([torch.cat([x[:, 0, t], x[:, 1, t]], dim=1) for t in range(5)], dim=1)
    expected = network.output(lstm(rows)[0][:, -1])
    assert torch.equal(network(x), expected)


def test_batch_norm_in_the_lstm_takes_every_step_as_a_sample() -> None:
    network = built("lstm", "batch", depth=1, width=6, shape=(1, 5, 3))
    seen = []
    network.layer1.norm.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    network(torch.randn(4, 1, 5, 3))
    ((x, y),) = seen
    assert x.shape == (20, 6)
    torch.testing.assert_close(y, nn.functional.batch_norm(x, None, None, training=True))
