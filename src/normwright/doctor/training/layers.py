"""Which modules of a network are its layers, and on which axis each has its features."""

from __future__ import annotations

from collections.abc import Container

from torch import Tensor, nn

from normwright.network.walk import is_normaliser

# They hand on what they get, or leave some of it out.
_PASSING = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)

_FEATURES_LAST = (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.MultiheadAttention)
_FEATURES_SECOND = (nn.modules.conv._ConvNd, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """Modules that are called and call no other, by their qualified names; a shared one once.

    Example:
        >>> list(layers_of(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Identity()))))
        ['0', '1.0']
    """
    return {
        name: module
        for name, module in network.named_modules()
        if "parametrizations" not in name.split(".") and _is_layer(module)
    }


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, _PASSING):
        return False
    children = [name for name, _ in module.named_children() if name != "parametrizations"]
    # attention computes with its children's weights, without calling them
    return not children or isinstance(module, nn.MultiheadAttention) or is_normaliser(module)


def layer_of(parameter: str, layers: Container[str]) -> str:
    """The layer that a parameter belongs to: the innermost around it, else the module that holds it.

    Args:
        parameter: qualified name.
        layers: names of the layers.
    Example:
        >>> layer_of("block.attention.out_proj.weight", {"block.attention"})
        'block.attention'
    """
    holder = around = parameter.rpartition(".")[0]
    while around not in layers and around:
        around = around.rpartition(".")[0]
    return around if around in layers else holder


def features_last(layer: nn.Module | str) -> bool | None:
    """Whether a layer's outputs have their features on the last axis (True) or on axis 1 (False).

    None where the layer does not say: what it gives is laid out as what it got.

    Args:
        layer: a module, or the name of a functional normaliser.
    """
    if isinstance(layer, str):
        return {"layer_norm": True, "rms_norm": True, "batch_norm": False, "group_norm": False}.get(layer)
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return len(layer.normalized_shape) == 1 or None
    if isinstance(layer, _FEATURES_LAST):
        return True
    return False if isinstance(layer, _FEATURES_SECOND) else None


def feature_axis(y: Tensor, last: bool) -> int | None:
    """The axis of a tensor's features: axis 1, or the last; None of a tensor without a batch axis."""
    if y.dim() < 2:
        return None
    return y.dim() - 1 if last else 1
