"""How far the inputs of a network's normalisers moved from one set to the other, and whether by chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from normwright.shift.layer_inputs import CURRENT, REFERENCE, LayerInput
from normwright.shift.report import LayerShift
from normwright.statistics.accumulator import Accumulator

GROUPS = 100
"""Groups that each set is cut into for the permutations."""

PERMUTATIONS = 999


def layer_shifts(inputs: Sequence[LayerInput], *, level: float, seed: int) -> tuple[LayerShift, ...]:
    """The shift of each layer.

        mean shift = |mean_c − mean_r| / σ_r,    σ² = variance + eps
        KL(current ‖ reference) = ½·(σ_c²/σ_r² + (mean shift)² − 1 − ln(σ_c²/σ_r²))

    Whether a layer moved is decided by permuting groups of samples between the sets: the statistic is the
    largest difference of any channel's mean or mean square between the sets, in deviations of that figure
    over all groups. A layer's p-value is the share of permutations in which any layer's statistic reaches its
    own (Westfall and Young's maximum): where the sets do not differ, any layer at all is said to have moved
    no more often than the level. Groups and not elements, because a sample's elements are no independent
    draws.

    Args:
        inputs: what each layer was given of both sets, in the order of execution.
        level: of the p-values.
        seed: of the permutations.
    References:
        Westfall & Young 1993, Resampling-Based Multiple Testing.
    """
    groups = [None if layer.reason else layer.groups for layer in inputs]
    observed, chance = _largest(groups, seed)
    shifts = []
    for layer, reached in zip(inputs, observed, strict=True):
        before, after = layer.moments[REFERENCE], layer.moments[CURRENT]
        if reached is None or before is None or after is None:
            reason = layer.reason or "not called for every sample of both sets"
            shifts.append(LayerShift(layer.name, layer.kind, reason=reason))
            continue
        p_value = (1 + int((chance >= reached).sum())) / (1 + PERMUTATIONS)
        mean_shift, divergence = _distance(before, after, layer.eps)
        shifts.append(
            LayerShift(
                layer.name,
                layer.kind,
                float(mean_shift.mean()),
                float(mean_shift.max()),
                float(divergence.mean()),
                float(divergence.max()),
                p_value,
                p_value <= level,
            )
        )
    return tuple(shifts)


def _distance(before: Accumulator, after: Accumulator, eps: float) -> tuple[Tensor, Tensor]:
    """Mean shift and divergence of each channel."""
    # A channel without variance, in a layer without eps, is infinitely far from any other value.
    spread, spread_after = before.variance + eps, after.variance + eps
    apart = (after.mean - before.mean).abs()
    shift = torch.where(apart > 0, apart / spread.sqrt(), apart)
    ratio = torch.where(spread_after == spread, torch.ones_like(spread), spread_after / spread)
    return shift, (ratio + shift.square() - 1 - ratio.log()) / 2


def _largest(groups: Sequence[Tensor | None], seed: int) -> tuple[list[float | None], Tensor]:
    """Each layer's statistic, and under each permutation the largest of all layers."""
    chance = torch.zeros(PERMUTATIONS, dtype=torch.float64)
    some = next((values for values in groups if values is not None), None)
    if some is None:
        return [None] * len(groups), chance
    half = len(some) // 2
    signs = np.concatenate([np.full(half, -1.0), np.full(half, 1.0)]) / half
    permuted = np.random.default_rng(seed).permuted(np.broadcast_to(signs, (PERMUTATIONS, 2 * half)), axis=1)
    weights = torch.from_numpy(np.concatenate([signs[None], permuted]))
    observed: list[float | None] = []
    for values in groups:
        if values is None:
            observed.append(None)
            continue
        centred = values - values.mean(0)
        deviation = centred.square().mean(0).sqrt()
        figures = torch.where(deviation > 0, centred / deviation, torch.zeros_like(centred))
        largest = (weights @ figures).abs().amax(1)
        # Rounding must not make a permutation that leaves a statistic as it was look smaller.
        observed.append(float(largest[0]) * (1 - 1e-9))
        chance = torch.maximum(chance, largest[1:])
    return observed, chance
