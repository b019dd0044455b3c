"""The `activation=` of every module."""

from __future__ import annotations

from normwright.backends.activation import ACTIVATIONS
from normwright.errors import unknown_name


def known_activation(activation: str | None) -> str | None:
    """The activation itself, if it is offered; otherwise an OptionError with the nearest names."""
    if activation is not None and activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    return activation


def with_activation(representation: str, activation: str | None) -> str:
    """A module's `extra_repr`, with the activation where there is one."""
    return representation if activation is None else f"{representation}, activation={activation}"
