"""Finds the batch size from which on training is no faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from normwright.errors import DataError, OptionError
from normwright.lab.advice.exhaustion import available_bytes, give_memory_back, is_out_of_memory
from normwright.lab.advice.randomness import random_states_kept
from normwright.lab.advice.subject import Subject, subject_of
from normwright.lab.advice.trainee import Optimiser, Trainee
from normwright.lab.batch_size.clock import Clock
from normwright.lab.batch_size.noise import batch_norms, lone_element, moment_noise
from normwright.lab.batch_size.records import BatchSizes, MomentNoise, SizeTrial, SkippedSize
from normwright.lab.batch_size.rules import Rate, fastest, knee, levelled, reason, undecided
from normwright.lab.memory import peak_bytes
from normwright.lab.objective import Loss
from normwright.statistics.batches import ForwardFn

OnStage = Callable[[str], None]

# Mini-batches that the noise is measured over, and the samples that may be spent on them.
_MOST_BATCHES = 32
_NOISE_SAMPLES = 8192
_FEW_BATCHES = 4

# Of the CPU's memory no more is asked for: the system kills a process before an allocation fails.
_MEMORY_SHARE = 0.9

_NO_BATCH_NORM = (
    "The network has no batch norm that takes moments of the batch, so the noise of moments does not apply."
)


def find_batch_size(
    network: nn.Module | str,
    data: Any,
    loss: str | Loss | None = "cross_entropy",
    *,
    optimiser: Optimiser | str = "sgd",
    sizes: Sequence[int] | None = None,
    tolerance: float = 0.05,
    relative_error: float = 0.02,
    seconds: float = 3.0,
    norm: str | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    forward_fn: ForwardFn | None = None,
    on_stage: OnStage = lambda sentence: None,
    **options: Any,
) -> BatchSizes:
    """Times training steps at growing batch sizes until samples per second level off, and recommends one.

        rate(size) = size / median seconds of a step
        recommended: the smallest size that was run with rate ≥ (1 − tolerance)·(best rate that was run)

    Each rate has a 95 % interval, by the order statistics of the steps' times; where the intervals leave other
    sizes open, a note names them. A step is forward, backward and the optimiser's update on samples that lie
    on the device: reading data is not timed. The search ends where the intervals of two sizes in a row stay
    below (1 + tolerance) of the best rate before, at the end of the data, or where memory is used up. All
    sizes are then timed again in turn, so that a busy moment of the machine meets all of them.

    A copy of the network is trained, from its present values at every size. The network, its optimiser and
    all random states stay as they are, whatever happens; a stream of batches has been read.

    Args:
        network: in training mode as its parts are, else all of it is put into it; or a name as `compare`
            takes it: mlp, lenet, vgg, resnet20, lstm, `package.module:function`, `path/to/file.py:function`.
        data: a name as `compare` takes it, the two tensors (x, labels), a data set of PyTorch, or batches of
            (x, labels) or of mappings with `labels`, of which at most 65,536 samples are read.
        loss: cross_entropy, mse, a function (outputs, labels) -> scalar or its name; None where the network's
            output holds it as `loss`.
        optimiser: sgd or adamw, an optimiser of this network, or what makes one for parameters.
        sizes: the sizes to run, all of them; by default 1, 2, 4, … until the search ends.
        tolerance: share of the best rate that the recommended size may lack.
        relative_error: half of a rate's interval, over the rate, at which it counts as known.
        seconds: of timed steps for a size, where it is not known before; seven steps at the least.
        norm: of a network by name, the normaliser in it; by default batch, or those that a function put there.
        device: of a network by name: auto, cpu or cuda.
        data_dir: where data files are looked for first.
        forward_fn: forward_fn(network, batch) in place of network(x).
        on_stage: called with a sentence about each size.
        options: momentum and weight_decay of an optimiser by name, image_size of images:DIR, and, of a network
            by name, any other field of `NetworkRecipe`, as of `compare`.
    Returns:
        The sizes that were run, the noise of batch-norm moments at each, and the recommendation.
    Raises:
        OptionError: an argument lies outside what is offered; there are more classes than outputs; no size
            could be run.
        DataError: no labels, no samples, or fewer than the smallest size.
        UserCodeError: the network fails on the data, or the loss is no scalar.
    Example:
        >>> x, labels = torch.randn(64, 8), torch.arange(64) % 2
        >>> found = find_batch_size(nn.Linear(8, 2), (x, labels), sizes=(16, 64), seconds=0.01)
        >>> found.recommended in (16, 64)
        True
    """
    asked = _checked_sizes(sizes)
    for what, value in (("tolerance", tolerance), ("relative_error", relative_error), ("seconds", seconds)):
        if not (isinstance(value, int | float) and 0 < value < (math.inf if what == "seconds" else 1)):
            raise OptionError(
                f"{what} must be above 0{'' if what == 'seconds' else ' and below 1'}, but is {value!r}"
            )
    with random_states_kept(0):
        subject = subject_of(
            network, data, loss, optimiser=optimiser, norm=norm, device=device, data_dir=data_dir,
            forward_fn=forward_fn, options=options,
        )  # fmt: skip
        return _Search(subject, asked, tolerance, relative_error, seconds, on_stage).run()


def _checked_sizes(sizes: Sequence[int] | None) -> tuple[int, ...]:
    if sizes is None:
        return ()
    if isinstance(sizes, str) or not hasattr(sizes, "__iter__") or not len(sizes):
        raise OptionError(f"sizes must be a sequence such as (32, 64), but is {sizes!r}")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionError(f"a batch size must be at least 1 and a whole number, but is {size!r}")
    return tuple(sorted(set(sizes)))


class _Search:
    """One search, once it is known what is trained on what."""

    def __init__(
        self,
        subject: Subject,
        asked: tuple[int, ...],
        tolerance: float,
        relative_error: float,
        seconds: float,
        on_stage: OnStage,
    ) -> None:
        self.subject, self.samples, self.asked = subject, subject.samples, asked
        self.tolerance, self.relative_error, self.limit = tolerance, relative_error, seconds
        self.on_stage = on_stage
        self.clocks: dict[int, Clock] = {}
        self.peaks: dict[int, int] = {}
        self.noises: dict[int, tuple[MomentNoise | None, str]] = {}
        self.skipped: list[SkippedSize] = []
        self.generator = torch.Generator().manual_seed(0)
        self.order = torch.randperm(self.samples.count, generator=self.generator)
        self.available: int | None = None

    def run(self) -> BatchSizes:
        """The search."""
        sizes = self.asked or tuple(2**power for power in range(self.samples.count.bit_length()))
        if sizes[0] > self.samples.count:
            raise DataError(
                f"the data must hold at least as many samples as the smallest batch size ({sizes[0]:,}), but "
                f"hold {self.samples.count:,}: take a smaller size, or more data"
            )
        trainee = self.subject.make(0)
        self.device = trainee.device
        self.available = available_bytes(self.device)
        stopped, limit = self._grow(trainee, sizes)
        if not self.clocks:
            raise OptionError(
                "at least one batch size must run, but none did: "
                + "; ".join(f"{each.batch_size}, {each.reason}" for each in self.skipped)
            )
        self._refine(trainee)
        return self._found(trainee, stopped, limit)

    def _grow(self, trainee: Trainee, sizes: Sequence[int]) -> tuple[str, str]:
        """Opens size after size; says why no larger one was tried, and what ended it before it levelled off."""
        for size in sizes:
            end = self._too_large(size)
            if end:
                self.skipped.append(SkippedSize(size, end))
                return end, end
            reason, fatal = self._open(trainee, size)
            if reason:
                self.skipped.append(SkippedSize(size, reason))
                self.on_stage(f"batch size {size:,}: {reason}")
            if fatal:
                return f"batch size {size:,} {reason}", f"batch size {size:,} {reason}"
            if not self.asked and levelled([clock.rate for clock in self.clocks.values()], self.tolerance):
                return (
                    f"two sizes in a row raised samples per second by less than {100 * self.tolerance:g} %",
                    "",
                )
        if self.asked:
            return "it was the largest asked for", "larger sizes were not asked for"
        return (
            f"the data hold {self.samples.count:,} samples",
            f"the data hold {self.samples.count:,} samples",
        )

    def _too_large(self, size: int) -> str:
        if size > self.samples.count:
            return f"the data hold {self.samples.count:,} samples"
        needed = self._foreseen(size)
        if self.device.type != "cpu" or self.available is None or needed <= _MEMORY_SHARE * self.available:
            return ""
        return (
            f"batch size {size:,} would need about {needed / 2**20:,.0f} MiB of the "
            f"{self.available / 2**20:,.0f} MiB of memory that were available"
        )

    def _foreseen(self, size: int) -> float:
        """Bytes of a step, on the straight line through the last two sizes."""
        if not self.peaks:
            return 0.0
        (last, peak), *_ = points = sorted(self.peaks.items(), reverse=True)[:2]
        slope = (peak - points[1][1]) / (last - points[1][0]) if len(points) > 1 else peak / last
        return peak + slope * (size - last)

    def _open(self, trainee: Trainee, size: int) -> tuple[str, bool]:
        """Runs a size for the first time: why it was skipped, and whether larger ones must be, too."""
        self.on_stage(f"batch size {size:,}")
        failed = False
        try:
            return self._first(trainee, size), False
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        finally:
            # Here the exception, and with it the tensors of the frames that it went through, is gone.
            if failed:
                for known in (self.clocks, self.peaks, self.noises):
                    known.pop(size, None)  # type: ignore[attr-defined]
                trainee.back_to_start()
                give_memory_back(self.device)
        return "ran out of memory", True

    def _first(self, trainee: Trainee, size: int) -> str:
        if not self.clocks:
            trainee.check(self.samples, min(max(size, 2), self.samples.count))
        batch = self._batch(size)
        if size == 1:
            lone = lone_element(trainee.network, lambda: trainee.outputs(batch))
            if lone is not None:
                return f"batch norm {lone!r} would take a moment of one element"
        clock = Clock(size)
        clock.block(trainee, batch, self.limit)
        trainee.optimiser.zero_grad(set_to_none=True)
        tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
        self.peaks[size] = peak_bytes(lambda: trainee.step(batch), [*trainee.held(), *tensors], self.device)
        trainee.back_to_start()
        self.noises[size] = self._noise(trainee, size)
        self.clocks[size] = clock
        return ""

    def _batch(self, size: int) -> Any:
        return self.samples.take(self.order[:size], self.device)

    def _noise(self, trainee: Trainee, size: int) -> tuple[MomentNoise | None, str]:
        if not batch_norms(trainee.network):
            return None, _NO_BATCH_NORM
        whole = self.samples.count // size
        batches = min(_MOST_BATCHES, whole, max(_FEW_BATCHES, _NOISE_SAMPLES // size))
        if batches < 2:
            return None, (
                f"The noise at {size:,} is not known: the {self.samples.count:,} samples make fewer than two "
                "such mini-batches."
            )
        parts = self.samples.parts(size, self.generator)

        def passes() -> Iterator[Callable[[], object]]:
            for _ in range(batches):
                batch = self.samples.take(next(parts), self.device)
                yield lambda batch=batch: trainee.outputs(batch)

        return moment_noise(trainee.network, passes()), ""

    def _refine(self, trainee: Trainee) -> None:
        """Times all sizes in turn, until each is known or has had its time."""
        while True:
            open_ = [
                c
                for c in self.clocks.values()
                if not c.known(self.relative_error) and not c.used_up(self.limit)
            ]
            if not open_:
                return
            names = ", ".join(f"{clock.batch_size:,}" for clock in open_)
            self.on_stage(f"timing again, until each is known to {100 * self.relative_error:g} %: {names}")
            for clock in open_:
                clock.block(trainee, self._batch(clock.batch_size), self.limit)

    def _found(self, trainee: Trainee, stopped: str, limit: str) -> BatchSizes:
        rates = [clock.rate for clock in self.clocks.values()]
        best, chosen = fastest(rates), knee(rates, self.tolerance)
        rising = best is rates[-1] and not levelled(rates, self.tolerance)
        return BatchSizes(
            network=self.subject.network,
            data=self.subject.data,
            device=str(self.device),
            samples=self.samples.count,
            recommended=chosen.batch_size,
            why=reason(rates, self.tolerance, limit if rising else ""),
            trials=tuple(self._trial(clock, best.value) for clock in self.clocks.values()),
            skipped=tuple(self.skipped),
            stopped=stopped,
            tolerance=self.tolerance,
            relative_error=self.relative_error,
            available_bytes=self.available,
            notes=self._notes(rates),
        )

    def _trial(self, clock: Clock, best: float) -> SizeTrial:
        rate, size = clock.rate, clock.batch_size
        noise, noise_reason = self.noises[size]
        return SizeTrial(
            batch_size=size,
            steps=len(clock.seconds),
            rate=rate.value,
            rate_low=rate.low,
            rate_high=rate.high,
            share=rate.value / best,
            certain=clock.known(self.relative_error),
            peak_bytes=self.peaks[size],
            memory_left=None if self.available is None else 1 - self.peaks[size] / self.available,
            noise=noise,
            noise_reason=noise_reason,
        )

    def _notes(self, rates: Sequence[Rate]) -> tuple[str, ...]:
        notes = []
        others = undecided(rates, self.tolerance)
        if others:
            notes.append(
                f"By the intervals of the rates it may as well be {' or '.join(f'{o:,}' for o in others)}."
            )
        vague = [f"{c.batch_size:,}" for c in self.clocks.values() if not c.known(self.relative_error)]
        if vague:
            notes.append(
                f"Not known to {100 * self.relative_error:g} % within {self.limit:g} s: the rate at "
                f"{', '.join(vague)}. The machine is busy, or steps differ: give it more time."
            )
        return tuple(notes)
