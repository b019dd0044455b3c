"""Weight norm comes off a module to the bit."""

from __future__ import annotations

import warnings

import pytest
import torch
from layers import DTYPES
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from normwright.errors import OptionError
from normwright.network.folding.weight_norm import remove_weight_norm, weight_normed


def hooked(module: nn.Module, **options: object) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module, **options)


def moved(module: nn.Module) -> nn.Module:
    """Its g and v no longer those of the start."""
    with torch.no_grad():
        for place, parameter in enumerate(module.parameters()):
            parameter.add_(
                torch.linspace(0.1, 0.7, parameter.numel(), dtype=parameter.dtype).view(parameter.shape)
                * (place + 1)
            )
    return module


WAYS = pytest.mark.parametrize("way", [hooked, parametrizations.weight_norm], ids=["hook", "parametrization"])
LAYERS = {
    "linear": (lambda: nn.Linear(3, 4), (2, 3)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose1d(3, 4, 3, bias=False), (2, 3, 5)),
}


@WAYS
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_weight_is_what_was_computed_with(layer: str, dtype: torch.dtype, dim: int | None, way) -> None:
    make, shape = LAYERS[layer]
    plain = make().to(dtype)
    module = moved(way(make().to(dtype), dim=dim))
    x = torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=dtype).view(shape)
    expected, weight = module(x), module.weight.detach().clone()
    assert weight_normed(module) == ("weight",)
    assert remove_weight_norm(module) == ("weight",)
    assert weight_normed(module) == ()
    assert torch.equal(module.weight, weight)
    assert torch.equal(module(x), expected)
    assert type(module) is type(plain)
    assert repr(module) == repr(plain)
    assert {name: (v.shape, v.dtype) for name, v in module.state_dict().items()} == {
        name: (v.shape, v.dtype) for name, v in plain.state_dict().items()
    }
    assert list(module.state_dict()) == list(plain.state_dict())
    assert not module._forward_pre_hooks
    assert type(module.weight) is nn.Parameter
    assert module.weight.is_leaf


@WAYS
@pytest.mark.parametrize("trained", [(True, True), (True, False), (False, False)])
def test_it_requires_a_gradient_where_g_or_v_did(way, trained: tuple[bool, bool]) -> None:
    module = way(nn.Linear(3, 4))
    parts = [parameter for name, parameter in module.named_parameters() if name != "bias"]
    for part, wanted in zip(parts, trained, strict=True):
        part.requires_grad_(wanted)
    remove_weight_norm(module)
    assert module.weight.requires_grad is any(trained)
    assert "weight" in dict(module.named_parameters())


@WAYS
def test_two_weights_of_a_recurrent_layer(way) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(3, 4)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        way(module, name=name)
    moved(module)
    x = torch.linspace(-1, 1, 30).view(5, 2, 3)
    expected = module(x)[0]
    assert set(remove_weight_norm(module)) == {"weight_ih_l0", "weight_hh_l0"}
    assert torch.equal(module(x)[0], expected)
    assert list(module.state_dict()) == list(nn.LSTM(3, 4).state_dict())


@WAYS
def test_hooks_of_others_stay(way) -> None:
    module, seen = nn.Linear(3, 4), []
    module.register_forward_pre_hook(lambda *_: seen.append("mine"))
    way(module)
    remove_weight_norm(module)
    module(torch.ones(1, 3))
    assert seen == ["mine"]


def test_a_module_without_any_is_left_alone() -> None:
    module = nn.Linear(3, 4)
    weight = module.weight
    assert remove_weight_norm(module) == ()
    assert module.weight is weight
    assert list(module.state_dict()) == ["weight", "bias"]


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_another_parametrization_beside_is_refused() -> None:
    module = hooked(parametrizations.weight_norm(nn.LSTM(3, 4), name="weight_hh_l0"), name="weight_ih_l0")
    parametrize.register_parametrization(module, "weight_hh_l0", Doubled())
    before = list(module.state_dict())
    with pytest.raises(
        OptionError, match=r"weight_hh_l0 must have no parametrization but .* has Doubled too"
    ):
        remove_weight_norm(module)
    assert list(module.state_dict()) == before
    assert weight_normed(module) == ("weight_ih_l0", "weight_hh_l0")
