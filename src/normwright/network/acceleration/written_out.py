"""RMS and layer norm that a module's forward writes out, as those of language models do.

    x = x.to(torch.float32)
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return weight * x.to(dtype)

Each of these lines is a sweep or more over memory. Models differ in what goes back to the input's dtype, x̂ or
weight·x̂, which decides the dtype of what comes out; that is kept. Rounded it is once, at the end, and float64
is not rounded to float32.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.fx import Graph, Node

from normwright import functional
from normwright.functional.arguments import is_number

# ---- What is called in their place


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, offset: float, narrowed: bool) -> Tensor:
    """(offset + weight)·x̂ over the last axis, in the dtype that it had when it was written out.

    Args:
        x: (*, C).
        weight: of any shape that goes with x; None for x̂ itself.
        eps: added to the mean of the squares.
        offset: what is added to the weight.
        narrowed: the product goes back to the dtype of x; else it has the one that both promote to.
    """
    shape = x.shape[-1:]
    return _scaled(lambda scale: functional.rms_norm(x, shape, scale, eps), x, weight, offset, narrowed)


def layer_norm(x: Tensor, weight: Tensor | None, eps: float, offset: float, narrowed: bool) -> Tensor:
    """The same of layer norm without a bias."""
    shape = x.shape[-1:]
    return _scaled(
        lambda scale: functional.layer_norm(x, shape, scale, None, eps), x, weight, offset, narrowed
    )


def _scaled(
    normalise: Callable[[Tensor | None], Tensor],
    x: Tensor,
    weight: Tensor | None,
    offset: float,
    narrowed: bool,
) -> Tensor:
    if weight is None:
        return normalise(None)
    if offset:  # in bfloat16, 1 + weight would keep little of the weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        weight = offset + (weight.to(wide) if narrowed else weight)
    keeps_dtype = weight.dtype == x.dtype or (
        narrowed and x.dtype.itemsize == 2 and weight.dtype == torch.float32
    )
    if keeps_dtype and weight.shape == x.shape[-1:]:
        return normalise(weight)
    y = normalise(None) * weight
    return y.to(x.dtype) if narrowed else y


# ---- How they are known


@dataclass(frozen=True)
class _Term:
    """What a node of a trace is.

    Args:
        what: "x" (or x less its mean), "dtype" (of x), "mean", "square", "variance", "denominator", "rstd",
            "weight", "normalised" or "scaled".
        wide: in float32 where x is of half a dtype.
        centred: x is taken less its mean.
        narrowed: the product with the weight went back to the dtype of x.
    """

    what: str
    wide: bool = False
    centred: bool = False
    eps: float = 0.0
    weight: Node | None = None
    offset: float = 0.0
    narrowed: bool = False


def call_written_out(graph: Graph) -> None:
    """Puts one call in the place of a norm that is all that a trace computes; else leaves it as it is."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    output = next(node for node in graph.nodes if node.op == "output")
    result = output.args[0]
    if len(placeholders) != 1 or not isinstance(result, Node):
        return
    terms: dict[Any, _Term | None] = {placeholders[0]: _Term("x")}
    for node in graph.nodes:
        if node.op in ("call_function", "call_method", "get_attr"):
            terms[node] = _term(node, terms)
    found = terms.get(result)
    if found is None or found.what not in ("normalised", "scaled") or found.wide:
        return
    with graph.inserting_before(output):
        function = layer_norm if found.centred else rms_norm
        settings = (found.weight, found.eps, found.offset, found.narrowed)
        output.args = (graph.call_function(function, (placeholders[0], *settings)),)
    graph.eliminate_dead_code()


def _term(node: Node, terms: dict[Any, _Term | None]) -> _Term | None:
    """What a node is, or None where it is nothing of a norm."""
    if node.op == "get_attr":
        return _Term("weight", weight=node)
    read = _READERS.get(node.target)
    given = [terms.get(value) if isinstance(value, Node) else value for value in node.args]
    if read is None or None in given:
        return None
    try:
        return read(*given, **node.kwargs)
    except TypeError:  # other arguments than those that a norm gives
        return None


def _is(term: Any, *whats: str) -> TypeGuard[_Term]:
    return isinstance(term, _Term) and term.what in whats


def _to(term: Any, dtype: Any = None) -> _Term | None:
    if dtype is torch.float32 and _is(term, "x", "weight"):
        return replace(term, wide=True)
    if _is(dtype, "dtype") and _is(term, "normalised", "scaled"):
        return replace(term, wide=False, narrowed=term.what == "scaled")
    return None


def _type_as(term: Any, like: Any) -> _Term | None:
    return _to(term, _Term("dtype")) if like == _Term("x") else None


def _dtype(term: Any, name: Any) -> _Term | None:
    return _Term("dtype") if term == _Term("x") and name == "dtype" else None


def _power(term: Any, exponent: Any) -> _Term | None:
    if exponent == 2 and _is(term, "x"):
        return replace(term, what="square")
    return replace(term, what="rstd") if exponent == -0.5 and _is(term, "denominator") else None


def _mean(term: Any, axis: Any = None, keepdim: Any = False, dim: Any = None) -> _Term | None:
    if (dim if axis is None else axis) not in (-1, (-1,), [-1]) or keepdim is not True:
        return None
    if _is(term, "square"):
        return replace(term, what="variance")
    return replace(term, what="mean") if _is(term, "x") and not term.centred else None


def _difference(one: Any, other: Any) -> _Term | None:
    if _is(one, "x") and _is(other, "mean") and one == replace(other, what="x"):
        return replace(one, centred=True)
    return None


def _sum(one: Any, other: Any) -> _Term | None:
    term, number = (other, one) if is_number(one) else (one, other)
    if not is_number(number):
        return None
    if _is(term, "variance"):
        return replace(term, what="denominator", eps=float(number))
    return replace(term, offset=float(number)) if _is(term, "weight") and not term.offset else None


def _product(one: Any, other: Any) -> _Term | None:
    if _is(one, "rstd", "weight"):
        one, other = other, one
    if _is(one, "x") and _is(other, "rstd") and one == replace(other, what="x", eps=0.0):
        return replace(other, what="normalised")
    if _is(one, "normalised") and _is(other, "weight"):
        wide = one.wide or other.wide
        return replace(one, what="scaled", wide=wide, weight=other.weight, offset=other.offset)
    return _power(one, 2) if _is(one, "x") and one == other else None


_READERS: dict[Any, Callable[..., _Term | None]] = {
    "to": _to,
    "float": lambda term: _to(term, torch.float32),
    "type_as": _type_as,
    getattr: _dtype,
    "pow": _power,
    operator.pow: _power,  # torch.pow asks for the type of what it is given, which ends a trace
    "square": lambda term: _power(term, 2),
    torch.square: lambda term: _power(term, 2),
    "mean": _mean,
    torch.mean: _mean,
    "rsqrt": lambda term: _power(term, -0.5),
    torch.rsqrt: lambda term: _power(term, -0.5),
    operator.sub: _difference,
    operator.add: _sum,
    operator.mul: _product,
    torch.mul: _product,
}
