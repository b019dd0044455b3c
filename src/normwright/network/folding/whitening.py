"""Whitening by fixed statistics as an affine map that mixes the channels of a group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.fx import Node

from normwright.errors import NormwrightError
from normwright.functional.whitening.autograd import Rule
from normwright.network.flow import Flow, operator_of, shape_of, written_by
from normwright.network.folding.affine import Affine, NotAffineError, check_fixed, wide
from normwright.network.folding.block_affine import BlockAffine, ChannelMap
from normwright.network.walk import WHITENING


def whitening_map(module: nn.Module) -> ChannelMap:
    """What a whitening layer does to the channels in inference, in float64.

        y = weight·P·(x - mean) + bias,    P = (Σ + eps·I)^(-1/2)

    Args:
        module: of `walk.WHITENING`.
    Returns:
        A map of its groups; of groups of one channel, of each channel.
    Raises:
        NotAffineError: it normalises by its batch, does more than whiten, or something is not finite.
    Example:
        >>> from normwright.nn import WhiteningNorm1d
        >>> module = WhiteningNorm1d(4, eps=3.0, group_size=2).eval()
        >>> whitening_map(module).matrix[0]
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]], dtype=torch.float64)
    """
    assert isinstance(module, WHITENING)
    own = next(kind for kind in WHITENING if isinstance(module, kind))
    if type(module).forward is not own.forward:
        raise NotAffineError("its class has a forward of its own, which may do more than whiten")
    mean, covariance = module.running_mean, module.running_covariance
    check_fixed(mean, covariance, training=module.training)
    assert mean is not None
    assert covariance is not None
    if module.activation is not None:
        raise NotAffineError(f"its activation, {module.activation}: build it without, and that after it")
    rule = Rule(module.group_size, float(module.eps), module.method, module.iterations)
    with torch.no_grad():
        matrix = rule.projection(wide(covariance))
        if module.affine:
            matrix = matrix * wide(module.weight).view(len(matrix), -1, 1)  # type: ignore[arg-type]
        shift = -(matrix @ wide(mean).view(len(matrix), -1, 1)).flatten()
        if module.affine:
            shift = shift + wide(module.bias)  # type: ignore[arg-type]
    mixing = BlockAffine(matrix, shift)
    try:
        mixing.check_finite()
    except NormwrightError as error:
        raise NotAffineError(str(error)) from error
    return Affine(matrix.flatten(), shift) if module.group_size == 1 else mixing


def ends_of(flow: Flow, nodes: Sequence[Node], module: str) -> tuple[tuple[Node, ...], Node, Node]:
    """Of the operators of a call of a whitening layer: those that its input moves, its input and result.

    Args:
        flow: of the network's call.
        nodes: the operators.
        module: qualified name of the layer.
    Raises:
        NotAffineError: it is given something else too, or a running statistic is overwritten.
    """
    for node, name in flow.names.items():
        if name.rpartition(".")[0] == module and not flow.is_constant(node):
            raise NotAffineError(f"its {name.rpartition('.')[2]} is overwritten")
    moving = [node for node in nodes if not flow.is_constant(node)]
    if not moving:
        raise NotAffineError(
            "what it normalises is a constant, such as a weight, and none of the network's input"
        )
    given = {part for node in moving for part in node.all_input_nodes if not flow.is_constant(part)}
    sources = given.difference(moving)
    if len(sources) != 1:
        raise NotAffineError("it is given more than its input")
    (source,) = sources
    while True:
        first = [node for node in flow.readers(source) if node in moving]
        if len(first) != 1 or not _is_no_cast(first[0]):
            break
        # The tensor itself, which what reads it after the layer then reads.
        (source,) = first
        moving.remove(source)
    results = [node for node in moving if any(reader not in moving for reader in flow.readers(node))]
    if len(results) != 1:
        raise NotAffineError("nothing reads its result")
    (result,) = results
    if any(source in written_by(node) for node in moving):
        raise NotAffineError("its input is overwritten")
    if -1 in shape_of(source):
        raise NotAffineError("how many elements it is given depends on their values, as under a mask")
    if source.meta["val"].dtype != result.meta["val"].dtype or shape_of(source) != shape_of(result):
        raise NotAffineError("it changes the dtype or the shape")
    return tuple(moving), source, result


def _is_no_cast(node: Node) -> bool:
    """Whether a node is a change of dtype to the one that is there."""
    given = node.args[0] if node.args else None
    casts = operator_of(node) in ("aten.to", "aten._to_copy") and isinstance(given, Node)
    return casts and given.meta["val"].dtype == node.meta["val"].dtype  # type: ignore[union-attr]
