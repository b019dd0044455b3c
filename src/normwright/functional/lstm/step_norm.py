"""A normaliser as an LSTM layer calls it, forward and backward: at one time step, or at all of them at once.

One is made for each pass over a batch of sequences, and remembers the moments of every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

Gradients = tuple[Tensor, Tensor | None, Tensor | None]


class StepNorm(Protocol):
    """One normaliser in one pass over the time steps.

    `forward` and `backward` are kernels; `plain` is the same in differentiable operations. Where all steps
    are known, as those of the input path are, `forward_all` and `backward_all` take them together.
    """

    def forward(
        self,
        step: int,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Tensor:
        """activation(x̂·weight + bias + residual) of (n, C), the sequences that have this step."""

    def backward(
        self,
        step: int,
        dy: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        activation: str | None,
    ) -> Gradients:
        """dx, dweight and dbias."""

    def forward_all(
        self, sizes: Sequence[int], x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """x̂·weight + bias of (S, C), the steps one after the other, of so many sequences each."""

    def backward_all(
        self, sizes: Sequence[int], dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Gradients:
        """dx, dweight and dbias of `forward_all`."""

    def plain(self, step: int, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """x̂·weight + bias."""

    def close(self) -> None:
        """Ends a forward pass: moves what running statistics there are."""


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """x·weight + bias."""
    y = x if weight is None else x * weight.to(x.dtype)
    return y if bias is None else y + bias.to(y.dtype)
