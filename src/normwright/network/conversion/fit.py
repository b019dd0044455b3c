"""Fits the weight and bias of converted normalisers to what the network computed before.

Layer by layer, in the order in which a batch reaches them: a layer's input already comes from fitted ones.
For each channel, over all batches, samples and positions,

    weight, bias = argmin Σ (weight·x̂ + bias − t)²

where x̂ is what the new normaliser makes of its input in the converted network, and t what the old one put
out, in inference, for the same batch in the network as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normwright.errors import DataError, ShapeError
from normwright.network.conversion.foreign import eps_of
from normwright.network.conversion.kinds import BATCH_KINDS
from normwright.network.conversion.memory import Values, tensor_of
from normwright.network.conversion.observe import Calls, Forward, inference, watching

# x̂ comes of float32 or less: a deviation below 2^-20 of its size is its rounding, and no slope can be told.
_ROUNDING = 2.0**-20


@dataclass(frozen=True)
class Fitted:
    """What the fit found for one normaliser.

    Args:
        values: weight and bias, as its parameters are shaped.
        statistics: running mean and variance, where the kind has them.
        explained: share of the variance of the old outputs that the new ones explain, over all channels;
            1 where they are the same.
        calls: how often a batch calls it. One that is called again saw its later inputs as they were before
            the fit.
    """

    values: Values
    statistics: Values
    explained: float
    calls: int


class _Reached(Exception):  # noqa: N818  # no error: the rest of a forward is not needed
    """The layer that is looked at has had its last call."""


class CoMoments:
    """Count, means and centred products of pairs (x, t) per channel, merged batch by batch in float64.

        Sxt = Σ (x − mean x)(t − mean t)

    By the formula of Chan, Golub & LeVeque for merging, which does not cancel.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean_x: Any = 0.0
        self.mean_t: Any = 0.0
        self.xx: Any = 0.0
        self.xt: Any = 0.0
        self.tt: Any = 0.0

    def add(self, x: Tensor, t: Tensor) -> None:
        """Adds the pairs of one call; both (C, m), float64."""
        count = x.shape[1]
        if not count:
            return
        mean_x, mean_t = x.mean(1), t.mean(1)
        dx, dt = x - mean_x[:, None], t - mean_t[:, None]
        apart_x, apart_t = mean_x - self.mean_x, mean_t - self.mean_t
        total = self.count + count
        between = self.count * (count / total)
        self.xx = self.xx + dx.square().sum(1) + between * apart_x.square()
        self.xt = self.xt + (dx * dt).sum(1) + between * apart_x * apart_t
        self.tt = self.tt + dt.square().sum(1) + between * apart_t.square()
        self.mean_x = self.mean_x + apart_x * (count / total)
        self.mean_t = self.mean_t + apart_t * (count / total)
        self.count = total

    def variance_x(self) -> Tensor:
        """Of all x together, biased."""
        variance: Tensor = self.xx / self.count
        return variance

    def slope(self, otherwise: Tensor, *, through_origin: bool) -> Tensor:
        """The slope of t over x; `otherwise` in a channel whose x is one value, of which there is none."""
        xx, xt = self.xx, self.xt
        if through_origin:
            xx = xx + self.count * self.mean_x.square()
            xt = xt + self.count * self.mean_x * self.mean_t
        known = xx > self.count * _ROUNDING**2 * self.mean_x.square()
        slope: Tensor = torch.where(known, xt / torch.where(known, xx, 1.0), otherwise)
        return slope

    def explained(self, slope: Tensor, offset: Tensor) -> float:
        """1 − Σ (slope·x + offset − t)² / Σ (t − mean t)², both summed over the channels too."""
        level = slope * self.mean_x + offset - self.mean_t
        residual = self.tt - 2 * slope * self.xt + slope.square() * self.xx + self.count * level.square()
        whole = float(self.tt.sum())
        return 1.0 - float(residual.sum()) / whole if whole else float(not residual.any())


def fit(
    before: nn.Module,
    after: nn.Module,
    kinds: dict[str, tuple[str, str]],
    calls: dict[str, Calls],
    batches: Iterable[Any],
    forward: Forward,
    write: Any,
) -> dict[str, Fitted]:
    """Fits one normaliser after the other.

    Args:
        before: the network as it was.
        after: the converted one.
        kinds: by name, what each normaliser was and is.
        calls: in the order in which a batch reaches them.
        batches: to be read once for each of them.
        forward: runs a network on a batch.
        write: called as write(name, fitted) to put each fit into `after` before the next.
    Raises:
        DataError: there is no batch, or one has outputs that are not finite.
        ShapeError: the two networks call a normaliser differently.
    """
    fitted = {}
    changed = {after.get_submodule(name) for name in kinds}
    with inference(before), inference(after, changed):
        for name in calls:
            if name in kinds:
                fitted[name] = _fit_one(before, after, name, kinds[name], calls[name], batches, forward)
                write(name, fitted[name])
    return fitted


def _fit_one(
    before: nn.Module,
    after: nn.Module,
    name: str,
    kinds: tuple[str, str],
    calls: Calls,
    batches: Iterable[Any],
    forward: Forward,
) -> Fitted:
    old, new = before.get_submodule(name), after.get_submodule(name)
    moments = CoMoments()
    for number, batch in enumerate(batches, 1):
        targets = [outputs(old, kinds[0], x) for x in _inputs(before, name, calls.count, batch, forward)]
        inputs = [standardised(new, kinds[1], x) for x in _inputs(after, name, calls.count, batch, forward)]
        shapes, others = ([tuple(part.shape) for part in parts] for parts in (targets, inputs))
        if shapes != others:
            raise ShapeError(
                f"{name!r} must be called alike before and after the conversion, but batch {number} (counted "
                f"from 1) calls it with {shapes} and {others}: leave it out"
            )
        for x, t in zip(inputs, targets, strict=True):
            if not (torch.isfinite(x).all() and torch.isfinite(t).all()):
                raise DataError(
                    f"batch {number} (counted from 1) must give finite values at {name!r}, but gives NaN or "
                    "infinity: see that batch; nothing was changed"
                )
            moments.add(_by_channel(x), _by_channel(t))
    if not moments.count:
        raise DataError("calibrate= must give at least one batch with a sample, but gives none")
    return _solve(new, kinds[1], moments, calls.count)


def _inputs(network: nn.Module, name: str, count: int, batch: Any, forward: Forward) -> list[Tensor]:
    """What one normaliser is given, at every call, in float64."""
    inputs: list[Tensor] = []

    def see(_: str, x: Tensor) -> None:
        inputs.append(x.detach().double())
        if len(inputs) == count:
            raise _Reached

    with watching({name: network.get_submodule(name)}, see), contextlib.suppress(_Reached):
        forward(network, batch)
    return inputs


def _by_channel(x: Tensor) -> Tensor:
    return x.movedim(1, 0).reshape(x.shape[1], -1)


def standardised(module: Any, kind: str, x: Tensor) -> Tensor:
    """x̂ of group, instance, layer and RMS norm; x itself where the statistics are yet to be found."""
    if kind in BATCH_KINDS:
        return x
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    if kind == "instance":
        return F.instance_norm(x, eps=module.eps)
    if kind == "layer":
        return F.layer_norm(x, module.normalized_shape, eps=module.eps)
    eps = module.eps
    if eps is None:  # that of the dtype in which the network computes
        eps = torch.finfo(torch.float32 if module.weight is None else module.weight.dtype).eps
    y: Tensor = F.rms_norm(x, module.normalized_shape, eps=eps)
    return y


def outputs(module: Any, kind: str, x: Tensor) -> Tensor:
    """What a normaliser of any kind puts out in inference, without the activation it may have."""
    weight, bias = (tensor_of(module, name) for name in ("weight", "bias"))
    mean, variance = (tensor_of(module, name) for name in ("running_mean", "running_var"))
    if mean is not None and variance is not None:
        column = (-1, *(1 for _ in x.shape[2:]))
        rstd = (variance.double() + (eps_of(module) or 0.0)).rsqrt()
        y = (x - mean.double().view(column)) * rstd.view(column)
    elif kind in BATCH_KINDS:
        y = F.batch_norm(x, None, None, training=True, eps=module.eps)
    else:
        y = standardised(module, kind, x)
    if weight is not None:
        y = y * _wide(weight, x)
    return y if bias is None else y + _wide(bias, x)


def _wide(value: Tensor, x: Tensor) -> Tensor:
    """Weight or bias in float64, in a shape that broadcasts against x."""
    wide = value.double()
    return wide if wide.dim() > 1 else wide.view(-1, *(1 for _ in x.shape[2:]))


def _solve(module: nn.Module, kind: str, moments: CoMoments, calls: int) -> Fitted:
    """Weight, bias and statistics of least squares, cast once."""
    weight, bias = (tensor_of(module, name) for name in ("weight", "bias"))
    scale: Any = torch.ones_like(moments.xx)
    shift: Any = torch.zeros_like(moments.xx)
    statistics: Values = {}
    if kind in BATCH_KINDS:
        variance = moments.variance_x()
        statistics = {"running_mean": moments.mean_x, "running_var": variance}
        scale = (variance + module.eps).rsqrt()  # type: ignore[operator]
        shift = -moments.mean_x * scale
    slope, offset = scale, shift
    if weight is not None:
        otherwise = weight.detach().double().reshape(len(scale), -1)[:, 0] * scale
        slope = moments.slope(otherwise, through_origin=bias is None and kind not in BATCH_KINDS)
        offset = slope * shift / scale
    if bias is not None:
        offset = moments.mean_t - slope * moments.mean_x
    values: Values = {}
    if weight is not None:
        values["weight"] = _like(slope / scale, weight)
    if bias is not None:
        values["bias"] = _like(offset - slope * shift / scale, bias)
    return Fitted(values, statistics, moments.explained(slope, offset), calls)


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """One value per channel, repeated over space where the parameter has one per element."""
    column = value.to(parameter.dtype).view(-1, *(1 for _ in parameter.shape[1:]))
    return column.expand(parameter.shape).contiguous()
