"""Initial weights: Xavier, Kaiming or plain normal, whatever the network's own code did."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from normwright.errors import OptionError, unknown_name
from normwright.lab.recipe import INITIALISATIONS

_Fan = Literal["fan_in", "fan_out"]
_Fill = Callable[[Tensor, _Fan], object]


def initialise(network: nn.Module, initialisation: str, std: float) -> None:
    """Fills the weights of a network in place, in registration order.

    | initialisation | weights |
    |---|---|
    | own | as the network's code made them |
    | xavier | uniform on ±√(6 / (fan_in + fan_out)) |
    | kaiming | normal, variance 2 / fan_in |
    | normal | normal, standard deviation `std` |

    It fills linear layers, convolutions (transposed too) and recurrent layers (LSTM, GRU, RNN and their
    cells); a recurrent matrix gate by gate, because the stack of gates that torch keeps has the wrong
    fan_out. Their biases become 0, but for the forget gate of an LSTM, where the sum of both biases
    becomes 1: at 0 the gate halves the memory at every step, and long sequences learn slowly.
    Normalisers, embeddings, PReLU slopes and parameters outside such layers stay as they are.

    Args:
        network: changed in place; draws from PyTorch's global generator.
        initialisation: one of `INITIALISATIONS`.
        std: standard deviation of `normal`; unused by the others.
    Raises:
        OptionError: an unknown initialisation, or a weight that is computed from other parameters.
    References:
        Glorot & Bengio 2010; He et al. 2015, arXiv:1502.01852. The forget gate: Gers et al. 2000,
        Jozefowicz et al. 2015.
    Example:
        >>> layer = nn.Linear(100, 50)
        >>> initialise(layer, "xavier", std=0.01)
        >>> bool(layer.weight.abs().max() <= (6 / 150) ** 0.5), bool((layer.bias == 0).all())
        (True, True)
    """
    if initialisation not in INITIALISATIONS:
        raise unknown_name("initialisation", initialisation, INITIALISATIONS)
    if initialisation == "own":
        return
    fills: dict[str, _Fill] = {"xavier": _xavier, "kaiming": _kaiming, "normal": partial(_normal, std)}
    fill = fills[initialisation]
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | _ConvNd | nn.RNNBase | nn.RNNCellBase)
    }
    for name, layer in layers.items():
        _check_owns_weights(name, layer)
    with torch.no_grad():
        for layer in layers.values():
            if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
                _initialise_recurrent(layer, fill)
            else:
                _initialise_feedforward(layer, fill)


def _xavier(weight: Tensor, fan: _Fan) -> None:
    nn.init.xavier_uniform_(weight)


def _kaiming(weight: Tensor, fan: _Fan) -> None:
    nn.init.kaiming_normal_(weight, mode=fan, nonlinearity="relu")


def _normal(std: float, weight: Tensor, fan: _Fan) -> None:
    nn.init.normal_(weight, std=std)


def _initialise_feedforward(layer: nn.Module, fill: _Fill) -> None:
    # A transposed convolution keeps its weight as (in, out, …): what torch calls fan_out is its fan_in.
    fan: _Fan = "fan_out" if isinstance(layer, _ConvTransposeNd) else "fan_in"
    fill(layer.get_parameter("weight"), fan)
    if layer.bias is not None:
        layer.get_parameter("bias").zero_()


def _initialise_recurrent(layer: nn.RNNBase | nn.RNNCellBase, fill: _Fill) -> None:
    for key, parameter in layer.named_parameters(recurse=False):
        if key.startswith("bias"):
            parameter.zero_()
        else:
            # weight_hr projects the state of an LSTM, after the gates.
            for gate in parameter.chunk(1 if "_hr" in key else _gates(layer)):
                fill(gate, "fan_in")
        if key.startswith("bias_ih") and isinstance(layer, nn.LSTM | nn.LSTMCell):
            parameter.chunk(4)[1].fill_(1.0)  # torch's order: input, forget, cell, output


def _gates(layer: nn.RNNBase | nn.RNNCellBase) -> int:
    if isinstance(layer, nn.LSTM | nn.LSTMCell):
        return 4
    return 3 if isinstance(layer, nn.GRU | nn.GRUCell) else 1


def _check_owns_weights(name: str, layer: nn.Module) -> None:
    """A weight that weight norm or spectral norm computes would be filled without any effect."""
    recurrent = getattr(layer, "_flat_weights_names", ("weight_ih", "weight_hh"))
    keys = recurrent if isinstance(layer, nn.RNNBase | nn.RNNCellBase) else ("weight",)
    computed = [key for key in keys if key not in layer._parameters]
    if computed:
        raise OptionError(
            f"{', '.join(computed)} of {name or 'the network'!r} ({type(layer).__name__}) must be a "
            "parameter of its own to be initialised, but is computed from others (weight norm, spectral "
            "norm, …): use the initialisation 'own'"
        )
