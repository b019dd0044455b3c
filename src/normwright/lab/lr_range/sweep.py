"""One sweep through the learning rates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from normwright.lab.advice.samples import Samples
from normwright.lab.advice.trainee import Trainee
from normwright.lab.lr_range.rules import out_of_hand, smooth

# Mini-batches whose loss is taken before the first step.
_START_BATCHES = 16

NOT_FINITE, ROSE, DONE = "the loss was not finite", "the loss rose far above its start", "all rates were run"


@dataclass(frozen=True)
class Sweep:
    """The losses of one sweep; see `RateCurve`."""

    seed: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    start: float
    noise: float
    ended: str


def rates_between(low: float, high: float, steps: int) -> tuple[float, ...]:
    """Rates with equal ratios, the ends among them.

    Example:
        >>> [round(rate, 6) for rate in rates_between(0.01, 1.0, 3)]
        [0.01, 0.1, 1.0]
    """
    return tuple(low * (high / low) ** (step / (steps - 1)) for step in range(steps))


def sweep(
    trainee: Trainee,
    samples: Samples,
    rates: Sequence[float],
    *,
    batch_size: int,
    seed: int,
    window: int,
    on_step: Callable[[int], None],
) -> Sweep:
    """Takes one step at each rate, from small to large, until the loss gets out of hand.

    The loss that belongs to a rate is that of the next mini-batch, which no step has seen.

    Args:
        trainee: is trained.
        seed: of the order of the samples, and of what the network draws.
        window: of the smoothing, odd.
        on_step: called with the steps done.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    parts = samples.parts(batch_size, generator)
    start, noise = _start(trainee, samples, batch_size, seed, window)
    trainee.back_to_start()
    if not math.isfinite(start):
        return Sweep(seed, (), (), (), start, noise, NOT_FINITE)
    losses: list[float] = []
    ended = DONE
    batch = samples.take(next(parts), trainee.device)
    for step, rate in enumerate(rates):
        trainee.set_lr(rate)
        trainee.step(batch)
        batch = samples.take(next(parts), trainee.device)
        with torch.no_grad():
            loss = float(trainee.loss(batch))
        losses.append(loss)
        on_step(step + 1)
        if out_of_hand(start, noise, losses, window):
            ended = ROSE if math.isfinite(loss) else NOT_FINITE
            break
    if not math.isfinite(losses[-1]):
        losses.pop()
    done = tuple(rates[: len(losses)])
    return Sweep(seed, done, tuple(losses), smooth(losses, window), start, noise, ended)


def _start(
    trainee: Trainee, samples: Samples, batch_size: int, seed: int, window: int
) -> tuple[float, float]:
    """The mean loss of the network as it is, and the standard error of such a mean over a window.

    Infinite where some loss is not finite.
    """
    parts = samples.parts(batch_size, torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        losses = [
            float(trainee.loss(samples.take(next(parts), trainee.device))) for _ in range(_START_BATCHES)
        ]
    if not all(map(math.isfinite, losses)):
        return math.inf, 0.0
    return statistics.fmean(losses), statistics.stdev(losses) / math.sqrt(window)
