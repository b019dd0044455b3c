"""The operators' test cases: options, inputs, the call, and the float64 answer with its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pairwise import Case, all_of, all_pairs
from tolerances import Analysis, Bounds
from torch import Tensor

from normwright import functional as F
from normwright.reference import (
    ACTIVATIONS,
    Axes,
    activate,
    activate_backward,
    axes_of,
    fused,
    fused_backward,
    moments,
)
from normwright.reference.moments import sum_over

EPS = 2.0**-7

KINDS = ("batch", "batch-eval", "layer", "rms", "group", "instance", "instance-eval", "response")
ABOUT_ZERO = ("rms", "response")  # the mean is taken as 0
EVALUATED = {"batch-eval": "batch", "instance-eval": "batch"}  # inference reduces nothing: C numbers suffice

DTYPES = (  # of the input, of the parameters
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float16),
    (torch.float16, torch.float32),
)


@dataclass(frozen=True)
class Size:
    """A shape, its groups for group norm, and how many trailing axes layer and RMS norm take."""

    shape: tuple[int, ...]
    groups: int = 1
    trailing: int = 1


SIZES = (
    Size((6,)),
    Size((7, 5), groups=5),  # one element per moment of group norm
    Size((1, 6), groups=2),  # one row
    Size((5, 1)),  # one element per moment of layer and group norm
    Size((3, 4, 2), groups=2, trailing=2),
    Size((3, 6, 7), groups=3, trailing=2),
    Size((2, 5, 33)),
    Size((2, 6, 5, 7), groups=2, trailing=3),
    Size((3, 4, 1, 1), groups=2, trailing=3),
    Size((1, 3, 1, 17), groups=3),
    Size((2, 4, 3, 5, 3), groups=2, trailing=4),
    Size((3, 4, 9, 8), groups=2, trailing=3),  # a space of 64 or more, which kernels take by planes
    Size((2, 32, 4, 9), groups=2, trailing=3),  # channels that kernels take in blocks
    Size((0, 4, 3, 3), groups=2, trailing=3),  # an empty batch
)

LAYOUTS = ("contiguous", "channels-last", "sliced", "transposed", "expanded")
AFFINE = ("weight and bias", "weight", "bias", "neither")
RESIDUALS = (None, "laid out alike", "contiguous")

FACTORS: tuple[Sequence[Any], ...] = (KINDS, DTYPES, SIZES, LAYOUTS, ACTIVATIONS, RESIDUALS, AFFINE)
WHOLE = (0, 1, 3)  # kind, dtypes, layout


def allowed(case: Case) -> bool:
    """Whether the options that are chosen already (indices, None where open) go together."""
    kind, _, size, layout, _, _, affine = (
        None if index is None else factor[index] for factor, index in zip(FACTORS, case, strict=True)
    )
    if kind == "rms" and affine in ("weight and bias", "bias"):
        return False
    if size is None:
        return True
    rank = len(size.shape)
    if layout == "channels-last" and rank < 4:
        return False
    if kind in ("layer", "rms", None):
        return True
    if kind == "batch" and size.shape[0] == 1 and rank == 2:
        return False  # one element per channel
    if kind in ("instance", "response") and np.prod(size.shape[2:]) == 1:
        return False
    return rank >= (3 if kind.startswith(("instance", "response")) else 2)


def laid_out(values: Tensor, layout: str) -> Tensor:
    """The values, in other strides. An expanded tensor repeats those of its first index along axis 0."""
    if layout == "channels-last":
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        return values.contiguous(memory_format=formats[values.dim()])
    if layout == "sliced":
        wider = torch.zeros(*values.shape[:-1], 2 * values.shape[-1] + 1, dtype=values.dtype)
        view = wider[..., 1::2]
        return view.copy_(values)
    if layout == "transposed":
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded" and values.shape[0]:
        return values[:1].expand(values.shape)
    return values.contiguous()


class Call:
    """One call of a normaliser: its tensors, and what the reference says of them."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        chosen = (factor[index] for factor, index in zip(FACTORS, case, strict=True))
        self.kind, dtypes, self.size, layout, self.activation, residual, affine = chosen
        self.dtype, parameter_dtype = dtypes
        self.parameter_dtype = parameter_dtype
        generator = torch.Generator().manual_seed(seed)

        def random(shape: Sequence[int], dtype: torch.dtype, low: float, high: float) -> Tensor:
            drawn = torch.rand(shape, dtype=torch.float64, generator=generator)
            return (low + (high - low) * drawn).to(dtype)

        shape, parameters = self.size.shape, self.axes.weight_shape
        self.x = laid_out(random(shape, self.dtype, -2, 4), layout)
        self.dy = random(shape, self.dtype, -1, 1)
        self.weight = random(parameters, parameter_dtype, -2, 2) if "weight" in affine else None
        self.bias = random(parameters, parameter_dtype, -1, 1) if "bias" in affine else None
        self.residual = None
        if residual is not None:
            like = layout if residual == "laid out alike" else "contiguous"
            self.residual = laid_out(random(shape, self.dtype, -2, 2), like)
        self.running_mean = random(parameters, parameter_dtype, -1, 3)
        self.running_var = random(parameters, parameter_dtype, 0.1, 4)

    @property
    def axes(self) -> Axes:
        """The reference's axes."""
        shape, trailing = self.size.shape, self.size.shape[len(self.size.shape) - self.size.trailing :]
        kind = {**EVALUATED, "response": "instance"}.get(self.kind, self.kind)
        return axes_of(kind, shape, groups=self.size.groups, normalized_shape=trailing)

    def run(self, x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """The function of normwright.functional, on tensors like this call's."""
        fused = {"residual": residual, "activation": self.activation}
        running = (self.running_mean, self.running_var)
        if self.kind == "layer":
            return F.layer_norm(x, self.axes.weight_shape, weight, bias, EPS, **fused)
        if self.kind == "rms":
            return F.rms_norm(x, self.axes.weight_shape, weight, EPS, **fused)
        if self.kind == "group":
            return F.group_norm(x, self.size.groups, weight, bias, EPS, **fused)
        if self.kind == "instance":
            return F.instance_norm(x, None, None, weight, bias, eps=EPS, **fused)
        if self.kind == "response":
            return F.filter_response_norm(x, weight, bias, eps=EPS, **fused)
        if self.kind == "instance-eval":
            return F.instance_norm(x, *running, weight, bias, use_input_stats=False, eps=EPS, **fused)
        if self.kind == "batch":
            return F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS, **fused)
        return F.batch_norm(x, *running, weight, bias, eps=EPS, **fused)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray | None]:
        """The tensors in float64, exactly."""
        given = {"x": self.x, "weight": self.weight, "bias": self.bias, "residual": self.residual}
        return {
            name: None if tensor is None else tensor.detach().double().numpy()
            for name, tensor in given.items()
        }

    @cached_property
    def analysis(self) -> Analysis:
        """The rounding errors of this call."""
        mean, rstd = self._moments()
        settings = {"center": self.kind not in ABOUT_ZERO, "fixed_moments": self.kind in EVALUATED}
        arrays = {"mean": mean, "rstd": rstd, **self.arrays}
        return Analysis(axes=self.axes, activation=self.activation, dtype=self.dtype, **arrays, **settings)

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        axes = self.axes
        if self.kind in EVALUATED:
            mean, variance = self.running_mean.double().numpy(), self.running_var.double().numpy()
        else:
            mean, variance = moments(self.arrays["x"], axes, center=self.kind not in ABOUT_ZERO)
        mean, variance = (np.expand_dims(moment, axes.reduce) for moment in (mean, variance))
        with np.errstate(invalid="ignore"):
            return mean, 1 / np.sqrt(variance + EPS)

    def expected(self, dy: np.ndarray) -> Bounds:
        """y, and the gradients by x, residual, weight and bias, from the reference."""
        if self.kind in EVALUATED:
            return self._inference(dy)
        options = {"eps": EPS, "center": self.kind not in ABOUT_ZERO, "activation": self.activation}
        y = fused(axes=self.axes, **self.arrays, **options).y
        return Bounds(y, *fused_backward(dy, axes=self.axes, **self.arrays, **options))

    def _inference(self, dy: np.ndarray) -> Bounds:
        """With fixed moments y = activation(x̂·weight + bias + residual) is elementwise, and so is dx."""
        axes, arrays = self.axes, self.arrays
        mean, rstd = self._moments()
        x_hat = (arrays["x"] - mean) * rstd
        weight = 1.0 if self.weight is None else arrays["weight"].reshape(axes.parameter_shape)
        z = x_hat * weight
        if self.bias is not None:
            z = z + arrays["bias"].reshape(axes.parameter_shape)
        if self.residual is not None:
            z = z + arrays["residual"]
        dz = activate_backward(dy, z, self.activation)
        y, dx = activate(z, self.activation), dz * weight * rstd
        dweight, dbias = (
            sum_over(terms, axes.shared).reshape(axes.weight_shape) for terms in (dz * x_hat, dz)
        )
        return Bounds(y, dx, dz, dweight, dbias)


def name(case: Case) -> str:
    """A case in words, for pytest."""
    kind, dtypes, size, layout, activation, residual, affine = (
        factor[index] for factor, index in zip(FACTORS, case, strict=True)
    )
    kinds = "+".join(dict.fromkeys(str(dtype).removeprefix("torch.") for dtype in dtypes))
    shape = "x".join(map(str, size.shape))
    words = (kind, kinds, shape, layout, activation, residual and f"residual {residual}", affine)
    return "-".join(str(word) for word in words if word).replace(" ", "_")


def case_of(kind: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **options: Any) -> Case:
    """One case by its options: layout, activation, residual and affine, else the first of each."""
    named = {"layout": LAYOUTS, "activation": ACTIVATIONS, "residual": RESIDUALS, "affine": AFFINE}
    size = next(index for index, size in enumerate(SIZES) if size.shape == shape)
    rest = (values.index(options.get(name, values[0])) for name, values in named.items())
    return (KINDS.index(kind), DTYPES.index((dtype, dtype)), size, *rest)


# Every two options meet, and every kind meets every dtype in every layout, whatever else is drawn.
CASES = list(dict.fromkeys(all_pairs(FACTORS, allowed) + all_of(FACTORS, allowed, WHOLE)))
