"""One search: opens batch sizes until samples per second level off, and measures each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from normwright.errors import DataError, OptionError
from normwright.lab.advice.exhaustion import available_bytes, give_memory_back, is_out_of_memory
from normwright.lab.advice.subject import Subject
from normwright.lab.advice.trainee import Trainee
from normwright.lab.batch_size.clock import Clock
from normwright.lab.batch_size.noise import batch_norms, lone_element, moment_noise
from normwright.lab.batch_size.records import BatchSizes, MomentNoise, SizeTrial, SkippedSize
from normwright.lab.batch_size.rules import Rate, fastest, knee, levelled, reason, undecided
from normwright.lab.memory import bytes_of, peak_bytes
from normwright.network.counting import how_many

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


class Search:
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
        self.order = torch.randperm(self.samples.count, generator=self.generator, device="cpu")
        self.available: int | None = None
        self.fixed = 0

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
        self.fixed = bytes_of(trainee.held())
        left = available_bytes(self.device)
        # What the copy holds already is part of what a step needs.
        self.available = None if left is None else left + self.fixed
        stopped, limit = self._grow(trainee, sizes)
        if not self.clocks:
            raise OptionError(
                "at least one batch size must run, but none did: "
                + "; ".join(f"{each.batch_size}, {each.reason}" for each in self.skipped)
            )
        self._refine(trainee)
        return self._found(stopped, limit)

    def _grow(self, trainee: Trainee, sizes: Sequence[int]) -> tuple[str, str]:
        """Opens size after size; says why no larger one was tried, and what kept it from levelling off."""
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
        held = f"the data hold {how_many(self.samples.count, 'sample')}"
        return held, held

    def _too_large(self, size: int) -> str:
        if size > self.samples.count:
            return f"the data hold {how_many(self.samples.count, 'sample')}"
        needed = self._foreseen(size)
        if self.device.type != "cpu" or self.available is None or needed <= _MEMORY_SHARE * self.available:
            return ""
        return (
            f"batch size {size:,} would need about {needed / 2**20:,.0f} MiB of the "
            f"{self.available / 2**20:,.0f} MiB of memory that were available"
        )

    def _foreseen(self, size: int) -> float:
        """Bytes of a step, on the straight line through the last two sizes.

        After one size alone, as if all but the parameters and buffers grew with it.
        """
        if not self.peaks:
            return 0.0
        (last, peak), *before = sorted(self.peaks.items(), reverse=True)
        other, least = before[0] if before else (0, self.fixed)
        return peak + (peak - least) / (last - other) * (size - last)

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
                self.peaks.pop(size, None)
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
                yield partial(trainee.outputs, self.samples.take(next(parts), self.device))

        return moment_noise(trainee.network, passes()), ""

    def _refine(self, trainee: Trainee) -> None:
        """Times all sizes in turn, until each is known or has had its time."""
        left = self._unknown()
        if left:
            names = ", ".join(f"{clock.batch_size:,}" for clock in left)
            self.on_stage(f"timing in turn, until known to {100 * self.relative_error:g} %: {names}")
        while left := [clock for clock in left if not clock.used_up(self.limit)]:
            for clock in left:
                clock.block(trainee, self._batch(clock.batch_size), self.limit)
            left = self._unknown()

    def _unknown(self) -> list[Clock]:
        return [clock for clock in self.clocks.values() if not clock.known(self.relative_error)]

    def _found(self, stopped: str, limit: str) -> BatchSizes:
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
        vague = [f"{clock.batch_size:,}" for clock in self._unknown()]
        if vague:
            notes.append(
                f"Not known to {100 * self.relative_error:g} % within {self.limit:g} s: the rate at "
                f"{', '.join(vague)}. The machine is busy, or steps differ: give it more time."
            )
        return tuple(notes)
