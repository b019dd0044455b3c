"""How a converted network is made again elsewhere: a line of Python, tried before it is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normwright.errors import NormwrightError, OptionError


def line_again(
    converted: nn.Module,
    build: Callable[[], nn.Module],
    call: str,
    to: str,
    options: Mapping[str, Any],
    example: Any,
) -> str:
    """The line that makes a network with the layers of `converted` of what the function builds.

    Args:
        converted: what `nw.convert` made of a network with the checkpoint's weights.
        build, call: the function, and how it is written.
        to, options: what `nw.convert` was given beside an example and batches.
        example: an input, or None. It is named where the layers depend on its shape.
    Raises:
        OptionError: a network without the checkpoint's weights becomes another.
    """
    from normwright.network.conversion.convert import convert

    given = {name: value for name, value in options.items() if value}
    shapes = [None] if example is None else [None, example]
    # The statistics that batches gave are the checkpoint's then, and no loss.
    for asked, shown in itertools.product((given, given | {"lossy": True}), shapes):
        try:
            network = convert(build(), to, **asked, example=_blank(shown), inplace=True)
        except NormwrightError:
            continue
        if _layers(network) == _layers(converted):
            named = asked if shown is None else asked | {"example": shown}
            written = "".join(f", {name}={_written(value)}" for name, value in named.items())
            return f'network = normwright.convert({call}, "{to}"{written})'
    raise OptionError(
        "a network as the function builds it must become, by nw.convert, what the one with the checkpoint's "
        "weights became, but becomes another: convert it in Python, and keep the network"
    )


def _layers(network: nn.Module) -> list[tuple[object, ...]]:
    own = [(name, type(module).__name__, module.extra_repr()) for name, module in network.named_modules()]
    return [*own, *((name, value.shape) for name, value in network.state_dict().items() if _is_tensor(value))]


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _blank(example: Any) -> Any:
    """The example with zeros for values, and two samples at most."""
    if isinstance(example, Tensor):
        return torch.zeros(_shape(example), dtype=example.dtype)
    if isinstance(example, Mapping):
        return {name: _blank(value) for name, value in example.items()}
    if isinstance(example, list | tuple):
        return tuple(map(_blank, example))
    return example


def _shape(example: Tensor) -> tuple[int, ...]:
    return (min(2, len(example)), *example.shape[1:]) if example.dim() else ()


def _written(value: Any) -> str:
    """The value in Python, where a tensor is blank."""
    if isinstance(value, Tensor):
        dtype = "" if value.dtype == torch.get_default_dtype() else f", dtype={value.dtype}"
        return f"torch.zeros({_shape(value)}{dtype})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {_written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_written, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)
