"""A right call of every operator, and what makes it a wrong one: each argument in turn, by its name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

OPERATORS = torch.ops.normwright


def draw(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.5


def _right_arguments(operator: str) -> dict[str, Any]:
    """Of which an operator takes those that its schema names."""
    given: dict[str, Any] = {name: draw(2, 4, 3, 5) for name in ("x", "dy", "residual", "out")}
    vectors = ("weight", "bias", "running_mean", "running_var", "mean", "variance")
    given |= {name: draw(4) for name in vectors}
    given |= {name: draw(2, 3) for name in ("dh", "squashed", "through", "before", "cell", "dcell")}
    given |= {name: draw(2, 12) for name in ("z", "gates", "dz")}
    given |= {"eps": 1e-5, "activation": "relu", "wanted": 31, "center": True}
    given |= {"num_batches_tracked": torch.tensor(3), "momentum": 0.1, "alpha": torch.tensor(0.5), "axis": 1}
    given |= {"groups": 2, "axes": 3, "parts": 2, "spans": torch.tensor([[0, 0, 9], [1, 12, 8], [0, 20, 10]])}
    moments, mask = {
        "rows": ((2, 2), (2, 8)),
        "groups": ((2, 2, 2), (4, 4)),
        "channels": ((2, 4), (2, 8)),
        "parts": ((3, 2, 4), (0, 0)),
    }.get(operator.split("_")[0], ((), ()))
    given |= {"moments": draw(*moments).double(), "mask": torch.full(mask, 0b10110, dtype=torch.uint8)}
    if operator.startswith("rows"):
        given |= {name: draw(4, 3, 5) for name in ("weight", "bias")}
    return given


def names_of(operator: str) -> list[str]:
    return [argument.name for argument in getattr(OPERATORS, operator).default._schema.arguments]


def needed_by(operator: str) -> set[str]:
    """The tensors that cannot be left out."""
    schema = getattr(OPERATORS, operator).default._schema
    return {argument.name for argument in schema.arguments if str(argument.type) == "Tensor"}


def written_by(operator: str) -> list[str]:
    schema = getattr(OPERATORS, operator).default._schema
    return [argument.name for argument in schema.arguments if argument.alias_info is not None]


def right_call(operator: str) -> dict[str, Any]:
    """By the arguments' names, in their order; memory of its own."""
    given = _right_arguments(operator)
    return {name: given[name] for name in names_of(operator)}


class Wrong(NamedTuple):
    """What a wrong call has in place of a right argument, and what is wrong with it."""

    operator: str
    argument: str
    fault: str
    value: Any

    @property
    def call(self) -> dict[str, Any]:
        return right_call(self.operator) | {self.argument: self.value}

    def __str__(self) -> str:
        return f"{self.operator}-{self.argument}-{self.fault}"


def _wrong_sizes(name: str, right: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "of an axis more", torch.stack([right, right])
    if right.dim() == 0:
        yield "empty", right.new_zeros(0)
    elif right.dim() > 1:
        yield "flat", right.flatten()
    for axis in range(1 if name == "spans" else 0, right.dim()):  # of spans there may be any number
        yield f"short by {axis}", right.narrow(axis, 0, right.shape[axis] - 1).clone()
        yield f"long by {axis}", torch.cat([right, right.narrow(axis, 0, 1)], axis)


# Of what is not of the four floating dtypes, what is wrong with it.
_WRONG_DTYPES = {torch.int64: torch.float32, torch.uint8: torch.int64}

_WRONG_SETTINGS = {
    "axes": (0, -1, 5),
    "groups": (0, -1, -2, 3, 8),
    "axis": (-1, 4),
    "parts": (-1,),
    "activation": ("swish",),
    "wanted": (-1, 32),
}

# The part, the first position and the length of each, of 30 positions.
WRONG_SPANS = {
    "overlapping": [[0, 0, 9], [1, 8, 4]],
    "of a negative length": [[0, 9, -3]],
    "beyond the end": [[0, 25, 6]],
    "before the beginning": [[0, -1, 2]],
    "of a part too many": [[2, 0, 4]],
    "of a part below 0": [[-1, 0, 4]],
    "of a length that overflows": [[0, 1, 2**63 - 1]],
}


def _wrong_tensors(operator: str, name: str, right: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name == "x":  # by whose sizes all others go
        yield "flat", right.flatten()
    else:
        yield from _wrong_sizes(name, right)
    if name == "num_batches_tracked":
        yield "true or false", right.bool()
        return
    yield "of a wrong dtype", right.to(_WRONG_DTYPES.get(right.dtype, torch.int64))
    if name == "out" or "cell" in operator:
        yield "of another floating dtype", right.double()


def wrong_calls(operator: str) -> Iterator[Wrong]:
    """Each with one argument that is wrong by its sizes, dtype or value."""
    for name, right in right_call(operator).items():
        if isinstance(right, Tensor):
            for fault, value in _wrong_tensors(operator, name, right):
                yield Wrong(operator, name, fault, value)
            if name in needed_by(operator):
                yield Wrong(operator, name, "left out", None)
        for value in _WRONG_SETTINGS.get(name, ()):
            yield Wrong(operator, name, str(value), value)
        if name == "activation" and ("masked" in operator or "mask" in right_call(operator)):
            yield Wrong(operator, name, "that no mask undoes", "silu")
