"""Which modules of a network stand for one operation each, and for which."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import activation, conv, dropout, pooling, rnn

from normwright.doctor.structure.graph import Kind
from normwright.network.acceleration.drop_in import normalisers_by_name

_KINDS: tuple[tuple[Kind, tuple[type[nn.Module], ...]], ...] = (
    ("convolution", (conv._ConvNd,)),
    ("linear", (nn.Linear, nn.Bilinear)),
    ("recurrent", (nn.RNNBase, rnn.RNNCellBase)),
    ("embedding", (nn.Embedding, nn.EmbeddingBag)),
    ("attention", (nn.MultiheadAttention,)),
    ("dropout", (dropout._DropoutNd,)),
)
# Not functions of one element: they compare the elements of a sample, or gate one half by another.
_OTHER = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)
# Files whose classes are activations, some of which compute one by several operators.
_ACTIVATIONS = (activation.__name__, "transformers.activations", "monai.networks.blocks.activation")


def kinds_of(network: nn.Module) -> dict[nn.Module, tuple[str, Kind]]:
    """The modules that stand for one operation each: the qualified name that comes first, and the kind.

    What only holds others, or has a forward of its own that calls functions, is none of them.

    Example:
        >>> list(kinds_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU())).values())
        [('0', 'linear'), ('1', 'activation')]
    """
    normalisers = set(normalisers_by_name(network).values())
    found: dict[nn.Module, tuple[str, Kind]] = {}
    for name, module in network.named_modules():
        kind = "normaliser" if module in normalisers else _kind(module)
        if kind is not None:
            found[module] = (name, kind)
    return found


def _kind(module: nn.Module) -> Kind | None:
    for kind, classes in _KINDS:
        if isinstance(module, classes):
            return kind
    where = type(module).__module__
    if where == pooling.__name__:
        return "pooling"
    if where in _ACTIVATIONS:
        return "other" if isinstance(module, _OTHER) else "activation"
    return None
