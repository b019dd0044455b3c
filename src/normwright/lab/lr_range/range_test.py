"""The learning-rate range test, with normalisers and without."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from normwright.doctor.random_states import random_states_kept
from normwright.errors import DataError, OptionError
from normwright.lab.advice.exhaustion import is_out_of_memory
from normwright.lab.advice.subject import Subject, subject_of
from normwright.lab.advice.trainee import Optimiser, Trainee
from normwright.lab.batch_size.noise import lone_element
from normwright.lab.lr_range.records import LearningRates, RateCurve, UsableRange, decades_between
from normwright.lab.lr_range.rules import ends, is_fall, lowest_place
from normwright.lab.lr_range.sweep import DONE, Sweep, rates_between, sweep
from normwright.lab.lr_range.why import steepest_of, why
from normwright.lab.objective import Loss
from normwright.network.batch_call import ForwardFn

OnProgress = Callable[[int, int, Sequence[tuple[str, int, int]]], None]

_LEAST_STEPS = 20
_LEAST_WINDOW = 3


def lr_range_test(
    network: nn.Module | str,
    data: Any,
    loss: str | Loss | None = "cross_entropy",
    *,
    batch_size: int,
    low: float = 1e-5,
    high: float = 10.0,
    steps: int = 100,
    seeds: int = 3,
    optimiser: Optimiser | str = "sgd",
    norm: str | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    forward_fn: ForwardFn | None = None,
    on_stage: Callable[[str], None] = lambda sentence: None,
    on_progress: OnProgress = lambda done, total, running: None,
    **options: Any,
) -> LearningRates:
    """Raises the learning rate step by step and says where the loss begins to fall, and where it rises again.

        rate at step t = low · (high / low)^(t / (steps − 1));   its loss is that of the next mini-batch

    Losses are smoothed by a centred running mean over a twentieth of the steps (three at least). `change` is
    a tenth of the way from the least loss that any sweep begins with to the lowest that any reaches, or four
    standard errors of a smoothed loss if that is more. The usable range of a sweep goes from the first rate
    at which the loss lies by `change` below that beginning (and stays there up to its lowest) to the last
    before it has risen by `change` above its own lowest, or is no longer finite. A sweep has none whose
    lowest does not lie below that beginning by four standard errors of the losses around it. The range of a
    network is what its seeds have in common. Recommended is where the loss falls most from one step to the
    next (the median over seeds, within the range). All rates that are named were run. A sweep ends early
    where the mean of the last losses has risen above its start by more than twice what was gained, and by
    ten standard errors.

    The same is done to the network with every normaliser replaced by the identity. Where that takes away the
    biases of convolutions that a normaliser made needless, they are missing.

    Copies are trained. The network, its optimiser and all random states stay as they are, whatever happens; a
    stream of batches has been read.

    Args:
        network: in training mode as its parts are, else all of it is put into it; every seed begins with its
            present values. Or a name as `compare` takes it; every seed draws its own initial weights.
        data, loss, norm, device, data_dir, forward_fn, options: see `find_batch_size`.
        batch_size: samples per step.
        low, high: the first and the last rate.
        steps: how many rates.
        seeds: how many sweeps; they differ in the order of the samples too.
        optimiser: sgd or adamw, an optimiser of this network (whose groups keep the ratios of their rates),
            or what makes one for parameters.
        on_stage: called with a sentence at the beginning of each part.
        on_progress: called with (sweeps done, sweeps in all, those under way) after each step.
    Returns:
        The usable ranges, how much wider the normalisers make it, and the rate to take.
    Raises:
        OptionError: an argument lies outside what is offered; batch norm would meet one element; there are
            more classes than outputs.
        DataError: no labels, no samples, or fewer than the batch size; the loss is not finite to begin with.
        UserCodeError: the network fails on the data, or the loss is no scalar.
    References:
        Smith 2017, arXiv:1506.01186, section 3.3.
    Example:
        >>> import torch
        >>> x = torch.randn(64, 8)
        >>> network = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> found = lr_range_test(network, (x, (x[:, 0] > 0).long()), batch_size=32, steps=30, seeds=1)
        >>> found.recommended in found.ranges[0].curves[0].rates
        True
    """
    _check_whole("batch_size", batch_size, 1)
    _check_whole("steps", steps, _LEAST_STEPS)
    _check_whole("seeds", seeds, 1)
    if not (0 < low < high < math.inf):
        raise OptionError(
            f"the rates must rise from low to high, both above 0, but low is {low!r} and high {high!r}"
        )
    with random_states_kept(0), torch.inference_mode(False):
        subject = subject_of(
            network, data, loss, optimiser=optimiser, norm=norm, device=device, data_dir=data_dir,
            forward_fn=forward_fn, options=options,
        )  # fmt: skip
        if batch_size > subject.samples.count:
            raise DataError(
                f"the data must hold at least one mini-batch of {batch_size:,} samples, but hold "
                f"{subject.samples.count:,}: take a smaller batch size, or more data"
            )
        test = _Test(subject, batch_size, rates_between(low, high, steps), seeds, on_stage, on_progress)
        return test.run()


def _check_whole(what: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{what} must be at least {least} and a whole number, but is {value!r}")


class _Test:
    """One test, once it is known what is trained on what."""

    def __init__(
        self,
        subject: Subject,
        batch_size: int,
        rates: tuple[float, ...],
        seeds: int,
        on_stage: Callable[[str], None],
        on_progress: OnProgress,
    ) -> None:
        self.subject, self.batch_size, self.rates, self.seeds = subject, batch_size, rates, seeds
        self.on_stage, self.on_progress = on_stage, on_progress
        self.window = max(_LEAST_WINDOW, len(rates) // 20 // 2 * 2 + 1)
        self.device = ""

    def run(self) -> LearningRates:
        """Both networks, seed by seed."""
        kinds = [(True, self.subject.make)]
        if self.subject.normalisers:
            kinds.append((False, self.subject.make_without))
        self._check()
        self.on_stage(
            f"{len(kinds) * self.seeds} sweeps of {len(self.rates)} rates at batch size {self.batch_size:,}"
        )
        sweeps: dict[bool, list[Sweep]] = {normalised: [] for normalised, _ in kinds}
        for seed in range(self.seeds):
            for normalised, make in kinds:
                done = sum(map(len, sweeps.values()))
                sweeps[normalised].append(self._sweep(make, seed, normalised, done, len(kinds) * self.seeds))
        return self._found(sweeps)

    def _check(self) -> None:
        trainee = self.subject.make(0)
        self.device = str(trainee.device)
        if self.batch_size == 1:
            batch = self.subject.samples.take(slice(0, 1), trainee.device)
            lone = lone_element(trainee.network, lambda: trainee.outputs(batch))
            if lone is not None:
                raise OptionError(
                    f"batch norm {lone!r} would take a moment of one element at batch size 1: take at least 2"
                )
        try:
            trainee.check(self.subject.samples, self.batch_size)
        except Exception as error:
            if is_out_of_memory(error):
                raise OptionError(
                    f"a step at batch size {self.batch_size:,} must fit the memory of {self.device}, but "
                    "does not: take a smaller one (normwright batch-size says which fit)"
                ) from error
            raise

    def _sweep(
        self, make: Callable[[int], Trainee], seed: int, normalised: bool, done: int, total: int
    ) -> Sweep:
        name = f"{_label(normalised, self.subject)}, seed {seed}"

        def told(step: int) -> None:
            self.on_progress(done, total, [(name, step, len(self.rates))])

        found = sweep(
            make(seed), self.subject.samples, self.rates,
            batch_size=self.batch_size, seed=seed, window=self.window, on_step=told,
        )  # fmt: skip
        if normalised and not math.isfinite(found.start):
            raise DataError(
                "the loss of the network must be finite before the first step, but is not: look for NaN or "
                "infinity in the data and in the weights"
            )
        self.on_progress(done + 1, total, [])
        return found

    def _found(self, sweeps: dict[bool, list[Sweep]]) -> LearningRates:
        every = [each for group in sweeps.values() for each in group]
        start = min(each.start for each in every)
        places = [lowest_place(each.smoothed, self.window) for each in every]
        lowest = min(
            (each.smoothed[place] for each, place in zip(every, places, strict=True) if place is not None),
            default=start,
        )
        ranges = tuple(
            _usable(
                normalised,
                _label(normalised, self.subject),
                [self._curve(each, start, lowest) for each in group],
            )
            for normalised, group in sweeps.items()
        )
        widening, ratio = _compared(ranges)
        recommended = ranges[0].steepest if ranges[0].lower is not None else None
        return LearningRates(
            network=self.subject.network,
            data=self.subject.data,
            device=self.device,
            batch_size=self.batch_size,
            ranges=ranges,
            recommended=recommended,
            widening=widening,
            upper_ratio=ratio,
            why=why(ranges),
            notes=self._notes(),
        )

    def _curve(self, each: Sweep, start: float, lowest: float) -> RateCurve:
        best, found = lowest_place(each.smoothed, self.window), None
        if best is not None and is_fall(each.losses, best, self.window, start=start):
            found = ends(each.noise, each.smoothed, best, start=start, lowest=lowest)
        return RateCurve(
            **vars(each),
            lower=None if found is None else each.rates[found.lower],
            steepest=None if found is None else each.rates[found.steepest],
            upper=None if found is None else each.rates[found.upper],
            open_below=found is not None and found.lower == 0,
            open_above=found is not None and found.upper == len(self.rates) - 1 and each.ended == DONE,
        )

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if not self.subject.normalisers:
            notes.append("The network has no normaliser, so there is nothing to leave out.")
        if self.subject.samples.count < 2 * self.batch_size:
            notes.append(
                f"The {self.subject.samples.count:,} samples make one mini-batch: every step sees the same, "
                "and the losses have no noise to be judged by."
            )
        return tuple(notes)


def _label(normalised: bool, subject: Subject) -> str:
    if not subject.normalisers:
        return "as it is"
    return "with normalisers" if normalised else "without"


def _usable(normalised: bool, label: str, curves: list[RateCurve]) -> UsableRange:
    """What the seeds have in common."""
    lowers = [curve.lower for curve in curves if curve.lower is not None]
    uppers = [curve.upper for curve in curves if curve.upper is not None]
    lower, upper = max(lowers, default=math.inf), min(uppers, default=0.0)
    if len(lowers) < len(curves) or lower > upper:
        return UsableRange(normalised, label, tuple(curves), None, None, None, False, False, None)
    return UsableRange(
        normalised,
        label,
        tuple(curves),
        lower,
        min(max(steepest_of(curves), lower), upper),
        upper,
        all(curve.open_below for curve in curves),
        all(curve.open_above for curve in curves),
        decades_between(lower, upper),
    )


def _compared(ranges: Sequence[UsableRange]) -> tuple[float | None, float | None]:
    if len(ranges) < 2 or ranges[0].decades is None or ranges[1].decades is None:
        return None, None
    assert ranges[0].upper is not None
    assert ranges[1].upper is not None
    return ranges[0].decades - ranges[1].decades, ranges[0].upper / ranges[1].upper
