"""Has PyTorch's transformer layers call their normalisers.

In inference `nn.TransformerEncoderLayer` reads eps, weight and bias of `norm1` and `norm2` and computes a
layer norm of them, whatever stands there. It first asks `activation_relu_or_gelu`, which nothing else reads.
`nn.TransformerEncoder` reads them of its first layer, and hands nested tensors on, which layers take by their
fast path alone, unless `use_nested_tensor` is False.
"""

from __future__ import annotations

from torch import nn

from normwright.network.conversion.become import Undo, undo_of

_KEPT = "_fast_path_of_before"


def match_fast_path(network: nn.Module) -> list[Undo]:
    """Closes the fast path of layers whose norms are layer norms no more, and opens it where they are again.

    That of an encoder is closed where one of its layers' is.

    Returns:
        How to take it back.
    """
    undone = []
    for layer in network.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            served = isinstance(layer.norm1, nn.LayerNorm) and isinstance(layer.norm2, nn.LayerNorm)
            undone += _match(layer, "activation_relu_or_gelu", served)
    for encoder in network.modules():
        if isinstance(encoder, nn.TransformerEncoder):
            served = not any(_KEPT in vars(layer) for layer in encoder.layers)
            undone += _match(encoder, "use_nested_tensor", served)
    return undone


def _match(module: nn.Module, switch: str, served: bool) -> list[Undo]:
    """Turns a switch off, or back to what it was, where that is not so already."""
    if served != (_KEPT in vars(module)):
        return []
    undone = [undo_of(module)]
    if served:
        setattr(module, switch, vars(module).pop(_KEPT))
    else:
        vars(module)[_KEPT] = getattr(module, switch)
        setattr(module, switch, type(vars(module)[_KEPT])())
    return undone
