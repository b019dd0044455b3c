"""Calls of layers in a flow: what an affine map can be folded into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.fx import Node

from normwright.network.flow import arguments_of, operator_of, shape_of


@dataclass(frozen=True, eq=False)
class Layer:
    """One call of a linear layer or a convolution.

    Args:
        node: the call.
        source: what it is given.
        weight: its weight.
        bias: its bias, or None.
        groups: of the convolution.
        transposed: it is a transposed convolution.
        space: how many axes of space it has; 0 for a linear layer.
    """

    node: Node
    source: Node
    weight: Node
    bias: Node | None
    groups: int
    transposed: bool
    space: int

    @property
    def sums_whole_kernel(self) -> bool:
        """Whether every output is a sum over the whole kernel, so that a shift before it is a bias."""
        if self.space == 0:
            return True
        given = arguments_of(self.node)
        kernel = shape_of(self.weight)[2:]
        if isinstance(given["padding"], str):
            return given["padding"] == "valid" or set(kernel) == {1}
        padding, dilation = (_each(given[name], kernel) for name in ("padding", "dilation"))
        if not self.transposed:
            return not any(padding)
        crops = all(p >= d * (k - 1) for p, d, k in zip(padding, dilation, kernel, strict=True))
        return crops and set(given["stride"]) == {1} and not any(given["output_padding"])

    @property
    def in_axis(self) -> int:
        """The axis of its input's channels."""
        return len(shape_of(self.source)) - 1 - self.space

    @property
    def out_axis(self) -> int:
        """The axis of its output's channels."""
        return len(shape_of(self.node)) - 1 - self.space


def layer_of(node: Node) -> Layer | None:
    """The layer that a node calls, if it calls one.

    A linear layer is also the matrix product with a transposed weight that a decomposed program has for it.
    """
    operator = operator_of(node)
    if operator == "aten.linear":
        given = arguments_of(node)
        return Layer(node, given["input"], given["weight"], given["bias"], 1, False, 0)
    if operator == "aten.addmm" and _transposed(node.args[2]) is not None and not node.kwargs:
        bias, x, weight = node.args
        return Layer(node, x, _transposed(weight), bias, 1, False, 0)  # type: ignore[arg-type]
    if operator.startswith("aten.conv") and operator.removeprefix("aten.") in _CONVOLUTIONS:
        given = arguments_of(node)
        transposed = given.get("transposed", "transpose" in operator)
        space = len(shape_of(given["weight"])) - 2
        return Layer(node, given["input"], given["weight"], given["bias"], given["groups"], transposed, space)
    return None


_CONVOLUTIONS = frozenset(
    {"convolution", *(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3))}
)


def _each(setting: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
    """A setting for every axis of space, where one may stand for all."""
    return tuple(setting) if len(setting) == len(kernel) else tuple(setting) * len(kernel)


def _transposed(weight: object) -> Node | None:
    """The weight that a node transposes."""
    if not isinstance(weight, Node) or operator_of(weight) not in (
        "aten.permute",
        "aten.t",
        "aten.transpose",
    ):
        return None
    inner = weight.args[0]
    return inner if isinstance(inner, Node) and len(shape_of(inner)) == 2 else None
