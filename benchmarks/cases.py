"""What is measured: one operator on one shape, layout and dtype, and which part of training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from normwright.reference import Axes, axes_of

EPS = 1e-5

# What the operators are called in the table of axes.
KINDS = {
    "batch_norm": "batch",
    "group_norm": "group",
    "instance_norm": "instance",
    "layer_norm": "layer",
    "rms_norm": "rms",
}

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        operator: a name that `torch.nn.functional` and `normwright.functional` share.
        shape: of x.
        groups: of group norm.
        normalized_shape: of layer and RMS norm.
        residual: whether a residual is added.
        activation: what follows, or None.
        mode: "forward" in training, with all that a backward needs recorded; "step", forward and
            backward; or "inference".
        layout: "contiguous" or "channels-last".
        dtype: torch's name of it.
        threads: how many.
        source: where the shape comes from.
    """

    operator: str
    shape: tuple[int, ...]
    groups: int | None = None
    normalized_shape: tuple[int, ...] | None = None
    residual: bool = False
    activation: str | None = None
    mode: str = "step"
    layout: str = "contiguous"
    dtype: str = "float32"
    threads: int = 2
    source: str = ""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout, in PyTorch's terms."""
        if self.layout == "contiguous":
            return torch.contiguous_format
        return _CHANNELS_LAST[len(self.shape)]

    @property
    def axes(self) -> Axes:
        """The row of the reference's table, worked out for this shape."""
        return axes_of(
            KINDS[self.operator], self.shape, groups=self.groups, normalized_shape=self.normalized_shape
        )

    @property
    def center(self) -> bool:
        """Whether the operator takes the mean away."""
        return self.operator != "rms_norm"

    @property
    def what(self) -> str:
        """The operator and what is folded into it."""
        groups = f" ({self.groups})" if self.groups else ""
        folded = [self.operator + groups, "add" if self.residual else "", self.activation or ""]
        return " + ".join(part for part in folded if part)

    @property
    def size(self) -> str:
        """The shape, as a table shows it."""
        return "×".join(map(str, self.shape))

    @property
    def label(self) -> str:
        """All of it on one line."""
        run = f"{self.size} {self.mode} {self.layout} {self.dtype} {self.threads}t"
        return f"{self.source}: {self.what} {run}" if self.source else f"{self.what} {run}"


def has_channels_last(case: Case) -> bool:
    """Whether the shape can be laid out channels-last."""
    return len(case.shape) in _CHANNELS_LAST


def shrunk(case: Case, elements: int = 2**15) -> Case:
    """The case on a small shape of the same kind: fewer samples and less space, the channels kept."""
    shape, trailing = list(case.shape), case.normalized_shape
    last_is_space = trailing is None or len(trailing) > 1
    space = range(2, len(shape)) if last_is_space else range(1, len(shape) - 1)
    while math.prod(shape) > elements:
        axis = max((0, *space), key=lambda axis: shape[axis])
        if shape[axis] <= 1:  # the channels alone are more
            break
        shape[axis] = (shape[axis] + 1) // 2
    normalized_shape = None if trailing is None else tuple(shape[-len(trailing) :])
    return replace(case, shape=tuple(shape), normalized_shape=normalized_shape)
