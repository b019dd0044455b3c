"""Normalisers that act on the layer before their place, and not on what comes out of it.

Weight norm computes the weight of that layer anew from a length and a direction, and weight standardisation
from one that it standardises; a recurrent normaliser works inside of an LSTM, where no module could be put.
Their places hold the identity, but for weight standardisation: it is used with group norm, as in its paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from normwright.network.walk import replace_module
from normwright.nn import BatchNormLSTM, LayerNormLSTM, weight_norm, weight_standardization


@dataclass(frozen=True)
class LayerNeed:
    """What a normaliser needs before its place.

    Args:
        words: the layer, as a sentence names it, with its article.
        kinds: its classes.
    """

    words: str
    kinds: tuple[type[nn.Module], ...]

    def is_met_by(self, layer: nn.Module | None) -> bool:
        """Whether there is such a layer, whose weights are its own and which has no other form."""
        if not isinstance(layer, self.kinds) or is_parametrized(layer):
            return False
        if isinstance(layer, nn.LSTM):
            return type(layer) is nn.LSTM and not layer.proj_size
        weight = layer._parameters.get("weight")
        # Over a single input a weight has no direction of its own, and nothing to be standardised over.
        return weight is not None and weight.numel() > max(weight.shape[:2])


_WEIGHT = LayerNeed("a linear or convolution layer", (nn.Linear, _ConvNd))
_LSTM = LayerNeed("an LSTM", (nn.LSTM,))

LAYER_NEEDED = {"weight": _WEIGHT, "ws": _WEIGHT, "recurrent-batch": _LSTM, "recurrent-layer": _LSTM}
"""The normalisers that act on a layer, and what layer."""

ACTS_ALONE = ("weight", "recurrent-batch", "recurrent-layer")
"""Those of them whose place holds the identity."""

LAYERS: tuple[type[nn.Module], ...] = (*_WEIGHT.kinds, nn.RNNBase)
"""What counts as the layer before a place, whether or not a normaliser can act on it."""


def act_on_layer(network: nn.Module, norm: str, name: str) -> None:
    """Normalises the weight of one layer of a network, or what happens inside of it, in place.

    What the layer computes before its first update stays the same under weight norm, whose length and
    direction start as those of the weight. An LSTM keeps its weights; the recurrent normalisers start with
    the gains of their papers. Draws no random numbers.

    Args:
        network: changed in place.
        norm: one of `LAYER_NEEDED`.
        name: of a layer that meets its need.
    """
    layer = network.get_submodule(name)
    if isinstance(layer, nn.LSTM):
        kinds: dict[str, type[nn.LSTM]] = {
            "recurrent-batch": BatchNormLSTM,
            "recurrent-layer": LayerNormLSTM,
        }
        replace_module(network, name, _with_weights_of(layer, kinds[norm]))
    elif norm == "ws":
        weight_standardization(layer)
    else:
        # A transposed convolution keeps its weight as (in, out, …).
        weight_norm(layer, dim=1 if isinstance(layer, _ConvTransposeNd) else 0)


def _with_weights_of(lstm: nn.LSTM, kind: Callable[..., nn.LSTM]) -> nn.LSTM:
    first = lstm.get_parameter("weight_ih_l0")
    with torch.random.fork_rng(devices=[first.device] if first.device.type == "cuda" else []):
        made = kind(
            lstm.input_size,
            lstm.hidden_size,
            lstm.num_layers,
            lstm.bias,
            lstm.batch_first,
            lstm.dropout,
            lstm.bidirectional,
            device=first.device,
            dtype=first.dtype,
        )
    with torch.no_grad():
        for name, parameter in lstm.named_parameters(recurse=False):
            made.get_parameter(name).copy_(parameter)
    return made.train(lstm.training)
