"""RMS and layer norm that a module's forward writes out, as those of language models do.

    x = x.to(torch.float32)
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return weight * x.to(dtype)

Each of these lines is a sweep or more over memory. Models differ in what goes back to which dtype, and when,
which decides the dtype of what comes out; that is kept. Rounded it is once, at the end, and float64 is not
rounded to float32 on the way.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from normwright import functional
from normwright.functional.arguments import is_number
from normwright.network.acceleration.mutation import Mutations

# ---- What is called in their place

Like = Sequence[Tensor | torch.dtype]


def rms_norm(x: Tensor, weight: Tensor | None, bias: None, eps: float, offset: float, like: Like) -> Tensor:
    """(offset + weight)·x̂ over the last axis, in the dtype that it had when it was written out.

    Args:
        x: (*, C).
        weight: of any shape that goes with x; None for x̂ itself.
        bias: None, for none is looked for.
        eps: added to the mean of the squares.
        offset: what is added to the weight.
        like: dtypes, and tensors for theirs: what all of them promote to is the result's.
    """

    def normalise(x: Tensor, weight: Tensor | None, bias: None) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], weight, eps)

    return _scaled(normalise, x, weight, bias, offset, like)


def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, offset: float, like: Like
) -> Tensor:
    """The same of layer norm, plus a bias, which has any shape that goes with x."""

    def normalise(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)

    return _scaled(normalise, x, weight, bias, offset, like)


def _scaled(
    normalise: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    offset: float,
    like: Like,
) -> Tensor:
    dtype = _promoted(*like)
    if offset and weight is not None:  # in bfloat16, 1 + weight would keep little of the weight
        weight = offset + weight.to(_promoted(weight, torch.float32))
    parameters = [parameter for parameter in (weight, bias) if parameter is not None]
    wide = _promoted(x, dtype, *parameters)
    # An operator takes parameters in float32 beside half a dtype, and rounds what it makes of them.
    if not (wide == torch.float32 and x.dtype == dtype and dtype.itemsize == 2):
        x = x.to(wide)
    weight, bias = (None if parameter is None else parameter.to(wide) for parameter in (weight, bias))
    if all(parameter.shape == x.shape[-1:] for parameter in parameters):
        return normalise(x, weight, bias).to(dtype)
    y = normalise(x, None, None)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(dtype)


def _promoted(*like: Tensor | torch.dtype) -> torch.dtype:
    dtypes = [part if isinstance(part, torch.dtype) else part.dtype for part in like]
    return functools.reduce(torch.promote_types, dtypes)


# ---- How they are known


@dataclass(frozen=True)
class _Term:
    """What a node of a trace is.

    Args:
        what: "x" (or x less its mean), "mean", "square", "variance", "denominator", "std", "rstd", "weight",
            "weighted" (x·weight), "normalised", "scaled", "biased", or "dtype" of any of them.
        x: what is normalised.
        centred: x is taken less its mean.
        like: what promotes to its dtype; nowhere is it computed in a coarser one than it was written in.
    """

    what: str
    x: Node | None = None
    centred: bool = False
    eps: float = 0.0
    weight: Node | None = None
    offset: float = 0.0
    bias: Node | None = None
    like: frozenset[Any] = field(default=frozenset(), compare=False)

    @property
    def is_apart(self) -> bool:
        """Whether it is nothing that a norm computes and another one would have to compute again."""
        return self.what in ("weight", "weighted", "dtype") or (self.what == "x" and not self.centred)


def call_written_out(graph: Graph, block: nn.Module) -> None:
    """Puts one call in the place of each norm that the trace of a block computes; else leaves it as it is."""
    terms: dict[Node, _Term] = {}
    for node in graph.nodes:
        # What is nothing of a norm may be normalised by one.
        terms[node] = _term(node, terms, block) or _Term("x", x=node, like=frozenset({node}))
    others = {node for node, term in terms.items() if term == _Term("x", x=node)}
    mutations = Mutations(block)
    if not all(mutations.only_reads(node) for node in others):
        return
    read = {value: terms[value] for node in terms if node in others for value in node.all_input_nodes}
    ends = [value for value, term in read.items() if _is(term, "normalised", "scaled", "biased")]
    # What lies within a norm would be computed twice if it is read from elsewhere.
    within = [value for value, term in read.items() if not term.is_apart and value not in ends]
    if within or any(user not in others for end in ends for user in end.users):
        return
    for end in ends:
        term = terms[end]
        settings = (term.weight, term.bias, term.eps, term.offset, tuple(sorted(term.like, key=str)))
        with graph.inserting_after(end):
            call = graph.call_function(layer_norm if term.centred else rms_norm, (term.x, *settings))
        end.replace_all_uses_with(call)
    # Only what the norms were: whether the rest may go, a graph without its module cannot say.
    graph.eliminate_dead_code(is_impure_node=others.__contains__)


def _term(node: Node, terms: dict[Node, _Term], block: nn.Module) -> _Term | None:
    """What a node is, or None where it is nothing of a norm."""
    if node.op == "get_attr":
        # The dtype of a number gives way to those of tensors.
        is_number = operator.attrgetter(str(node.target))(block).dim() == 0
        return None if is_number else _Term("weight", weight=node, like=frozenset({node}))
    read = _READERS.get(node.target) if node.op in ("call_function", "call_method") else None
    if read is None:
        return None
    args = [terms[value] if isinstance(value, Node) else value for value in node.args]
    named = {name: terms[value] if isinstance(value, Node) else value for name, value in node.kwargs.items()}
    try:
        return read(*args, **named)
    except TypeError:  # other arguments than those that a norm gives
        return None


def _is(term: Any, *whats: str) -> TypeGuard[_Term]:
    return isinstance(term, _Term) and term.what in whats


def _to(term: _Term, dtype: Any = None) -> _Term | None:
    if dtype is torch.float32:
        return replace(term, like=frozenset({dtype}))
    return replace(term, like=dtype.like) if _is(dtype, "dtype") else None


def _type_as(term: _Term, other: Any) -> _Term | None:
    return replace(term, like=other.like)


def _dtype(term: _Term, name: Any) -> _Term | None:
    return _Term("dtype", like=term.like) if name == "dtype" else None


def _power(term: Any, exponent: Any) -> _Term | None:
    if exponent == 2 and _is(term, "x"):
        return replace(term, what="square")
    roots = {0.5: "std", -0.5: "rstd"}
    if is_number(exponent) and exponent in roots and _is(term, "denominator"):
        return replace(term, what=roots[exponent])
    return None


def _mean(term: Any, axis: Any = None, keepdim: Any = False, dim: Any = None) -> _Term | None:
    if not _is_last(axis if dim is None else dim) or keepdim is not True:
        return None
    if _is(term, "square"):
        return replace(term, what="variance")
    return replace(term, what="mean") if _is(term, "x") and not term.centred else None


def _variance(
    term: Any, dim: Any = None, unbiased: Any = True, keepdim: Any = False, *, correction: Any = None
) -> _Term | None:
    biased = unbiased is False if correction is None else correction == 0
    if not _is_last(dim) or keepdim is not True or not biased or not _is(term, "x"):
        return None
    return replace(term, what="variance", centred=True)


def _is_last(axis: Any) -> bool:
    return axis in (-1, (-1,), [-1])


def _difference(one: Any, other: Any) -> _Term | None:
    if _is(one, "x") and _is(other, "mean") and one == replace(other, what="x"):
        return replace(one, centred=True, like=one.like | other.like)
    return None


def _sum(one: Any, other: Any) -> _Term | None:
    term, added = (other, one) if is_number(one) or _is(one, "weight") else (one, other)
    if is_number(added) and _is(term, "variance"):
        return replace(term, what="denominator", eps=float(added))
    if is_number(added) and _is(term, "weight") and not term.offset:
        return replace(term, offset=float(added))
    if _is(term, "normalised", "scaled") and term.centred and _is(added, "weight") and not added.offset:
        return replace(term, what="biased", bias=added.weight, like=term.like | added.like)
    return None


_PRODUCTS = {
    ("x", "rstd"): "normalised",
    ("weighted", "rstd"): "scaled",
    ("x", "weight"): "weighted",
    ("normalised", "weight"): "scaled",
}


def _product(one: Any, other: Any) -> _Term | None:
    if not isinstance(one, _Term) or not isinstance(other, _Term):
        return None
    if (other.what, one.what) in _PRODUCTS:
        return _product(other, one)
    what = _PRODUCTS.get((one.what, other.what))
    like = one.like | other.like
    if what is None:
        return _power(replace(one, like=like), 2) if one == other else None
    if other.what == "weight":
        return replace(one, what=what, weight=other.weight, offset=other.offset, like=like)
    if one.x is not other.x or one.centred != other.centred:
        return None
    return replace(one, what=what, eps=other.eps, like=like)


def _quotient(one: Any, other: Any) -> _Term | None:
    return _product(one, replace(other, what="rstd")) if _is(other, "std") else None


_READERS: dict[Any, Callable[..., _Term | None]] = {
    "to": _to,
    "float": lambda term: _to(term, torch.float32),
    "type_as": _type_as,
    getattr: _dtype,
    "pow": _power,
    operator.pow: _power,
    torch.pow: _power,
    "square": lambda term: _power(term, 2),
    torch.square: lambda term: _power(term, 2),
    "mean": _mean,
    torch.mean: _mean,
    "var": _variance,
    torch.var: _variance,
    "sqrt": lambda term: _power(term, 0.5),
    torch.sqrt: lambda term: _power(term, 0.5),
    "rsqrt": lambda term: _power(term, -0.5),
    torch.rsqrt: lambda term: _power(term, -0.5),
    operator.sub: _difference,
    operator.add: _sum,
    operator.mul: _product,
    torch.mul: _product,
    operator.truediv: _quotient,
    torch.div: _quotient,
}
