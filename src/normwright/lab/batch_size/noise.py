"""The noise of batch-norm moments: how they differ from mini-batch to mini-batch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normwright.lab.batch_size.records import LayerNoise, MomentNoise
from normwright.network.walk import GHOSTS

Moments = tuple[Tensor, Tensor, int]
"""Mean and biased variance of each channel, and the elements per moment."""


class LoneElement(Exception):  # noqa: N818  # not an error: it ends a look
    """A batch norm would take a moment of one element."""


def batch_norms(network: nn.Module) -> dict[str, nn.Module]:
    """The normalisers that take their moments over the mini-batch, in the mode that the network is in.

    Example:
        >>> network = nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2), nn.BatchNorm1d(2).eval())
        >>> list(batch_norms(network))
        ['0']
    """
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        and (module.training or module.running_mean is None)
        and not any("Frozen" in kind.__name__ for kind in type(module).__mro__)
    }


def lone_element(network: nn.Module, forward: Callable[[], object]) -> str | None:
    """The name of a batch norm that meets one element per channel in a forward pass, or None.

    It is found before the normaliser itself would raise.
    """

    def look(name: str, x: Tensor) -> None:
        if x.dim() > 1 and x.numel() == x.shape[1]:
            raise LoneElement(name)

    try:
        with torch.no_grad(), _watched(batch_norms(network), look):
            forward()
    except LoneElement as found:
        return str(found)
    return None


def moment_noise(network: nn.Module, passes: Iterable[Callable[[], object]]) -> MomentNoise | None:
    """The noise of the moments over some forward passes, each of another mini-batch.

        mean noise = √ mean over channels of var(μ_B)/σ²,   variance noise = √ mean of var(σ_B²)/σ⁴

    var is over the mini-batches, unbiased; σ² is the variance over all of them. A channel that is constant
    counts in neither. A normaliser that is called several times is measured at each call, and the noisiest
    call is its noise. That of ghost norm is of its virtual batches, the first of each mini-batch.

    Args:
        network: in training mode.
        passes: at least two, each runs the network forward once.
    Returns:
        None where the network has no batch norm that takes moments of the batch.
    """
    norms = batch_norms(network)
    if not norms:
        return None
    seen: dict[str, list[list[Moments]]] = {}
    batches = 0
    with torch.no_grad():
        for forward in passes:
            calls: dict[str, list[Moments]] = {}

            def note(name: str, x: Tensor, calls: dict[str, list[Moments]] = calls) -> None:
                calls.setdefault(name, []).append(_moments(x))

            with _watched(norms, note):
                forward()
            for name, moments in calls.items():
                seen.setdefault(name, []).append(moments)
            batches += 1
    layers = tuple(_layer(name, of_batches) for name, of_batches in seen.items())
    means = [layer.mean for layer in layers]
    variances = [layer.variance for layer in layers]
    if not layers:
        return None
    return MomentNoise(
        batches, layers, statistics.median(means), max(means), statistics.median(variances), max(variances)
    )


def _moments(x: Tensor) -> Moments:
    axes = [axis for axis in range(x.dim()) if axis != 1]
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, axes, correction=0)
    return mean, variance, x.numel() // x.shape[1]


def _layer(name: str, of_batches: list[list[Moments]]) -> LayerNoise:
    """Of the calls with the fewest elements, and of all calls the noisiest."""
    uses = min(map(len, of_batches))
    noises = [_noise([moments[use] for moments in of_batches]) for use in range(uses)]
    elements = min(moments[use][2] for moments in of_batches for use in range(uses))
    return LayerNoise(
        name,
        elements,
        max(mean for mean, _ in noises),
        max(variance for _, variance in noises),
        1 / math.sqrt(elements),
        math.sqrt(2 / (elements - 1)) if elements > 1 else math.inf,
    )


def _noise(moments: list[Moments]) -> tuple[float, float]:
    means = torch.stack([mean.double().cpu() for mean, _, _ in moments])
    variances = torch.stack([variance.double().cpu() for _, variance, _ in moments])
    population = variances.mean(0) + means.var(0, correction=0)
    alive = population > 0
    if not bool(alive.any()):
        return 0.0, 0.0
    of_mean = (means.var(0) / population)[alive].mean().sqrt()
    of_variance = (variances.var(0) / population**2)[alive].mean().sqrt()
    return float(of_mean), float(of_variance)


@contextmanager
def _watched(norms: dict[str, nn.Module], look: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Shows what a moment of every normaliser is of, before it is normalised."""

    def watch(name: str) -> Callable[..., None]:
        def show(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
            look(name, x[: module.ghost_size] if isinstance(module, GHOSTS) else x)

        return show

    handles = [
        module.register_forward_pre_hook(watch(name), with_kwargs=True) for name, module in norms.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
