"""What the batch-size search found, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from normwright.network.table import Table


@dataclass(frozen=True)
class LayerNoise:
    """How much one normaliser's mini-batch moments differ from batch to batch.

    Args:
        name: qualified.
        elements: m, elements per moment.
        mean: deviation of the mini-batch mean over mini-batches, in population deviations; root mean square
            over channels.
        variance: deviation of the mini-batch variance, in population variances; likewise.
        mean_expected: 1/√m, that of m independent elements.
        variance_expected: √(2/(m − 1)), that of m independent normal elements.
    """

    name: str
    elements: int
    mean: float
    variance: float
    mean_expected: float
    variance_expected: float


@dataclass(frozen=True)
class MomentNoise:
    """The noise of all batch norms at one batch size.

    Args:
        batches: mini-batches that it was measured over.
        layers: in the order in which a batch meets them.
        mean_median, mean_largest, variance_median, variance_largest: over the layers.
    """

    batches: int
    layers: tuple[LayerNoise, ...]
    mean_median: float
    mean_largest: float
    variance_median: float
    variance_largest: float


@dataclass(frozen=True)
class SizeTrial:
    """One batch size that was run.

    Args:
        batch_size: samples per step.
        steps: how many were timed.
        rate, rate_low, rate_high: samples per second by the median step, and its 95 % interval.
        share: the rate over the best that was run.
        certain: whether the interval is as narrow as was asked.
        peak_bytes: the most that tensors held at once in a step.
        memory_left: share of the memory available that a step leaves; None where that is not known.
        noise: of batch-norm moments; None where there is none to measure.
        noise_reason: why there is none, or "".
    """

    batch_size: int
    steps: int
    rate: float
    rate_low: float
    rate_high: float
    share: float
    certain: bool
    peak_bytes: int
    memory_left: float | None
    noise: MomentNoise | None
    noise_reason: str


@dataclass(frozen=True)
class SkippedSize:
    """One batch size that was not run to its end, or not at all."""

    batch_size: int
    reason: str


@dataclass(frozen=True)
class BatchSizes:
    """Every batch size that was run, and the one to take.

    Args:
        network, data, device: what was trained, on what, and where.
        samples: how many the data hold.
        recommended: the batch size to take, one of those that were run.
        why: one sentence.
        trials: those that were run, from small to large.
        skipped: those that were not.
        stopped: why no larger size was tried.
        tolerance: the share of the best rate that the recommended size may lack.
        relative_error: the half-width of a rate's interval that was asked for, over the rate.
        available_bytes: what the device had left before the first step; None where that is not known.
        notes: what else to know.
    """

    network: str
    data: str
    device: str
    samples: int
    recommended: int
    why: str
    trials: tuple[SizeTrial, ...]
    skipped: tuple[SkippedSize, ...]
    stopped: str
    tolerance: float
    relative_error: float
    available_bytes: int | None
    notes: tuple[str, ...]

    def table(self) -> Table:
        """One row per batch size; the recommended one has an arrow."""
        columns = (
            "", "batch size", "samples/s", "95 % interval", "of best", "memory, MiB", "left",
            "mean noise", "largest", "variance noise", "largest", "not run because",
        )  # fmt: skip
        every: list[SizeTrial | SkippedSize] = [*self.trials, *self.skipped]
        ordered = sorted(every, key=lambda each: each.batch_size)
        rows = tuple(
            self._row(each) if isinstance(each, SizeTrial) else _skipped_row(each) for each in ordered
        )
        return Table(f"Take batch size {self.recommended}: {self.why}", columns, rows, self._remarks())

    def __str__(self) -> str:
        return str(self.table())

    def _row(self, trial: SizeTrial) -> tuple[str, ...]:
        noise = trial.noise
        noises = ("", "", "", "") if noise is None else (
            f"{noise.mean_median:.2g} σ", f"{noise.mean_largest:.2g} σ",
            f"{noise.variance_median:.2g}", f"{noise.variance_largest:.2g}",
        )  # fmt: skip
        return (
            "→" if trial.batch_size == self.recommended else "",
            f"{trial.batch_size:,}",
            f"{trial.rate:,.4g}" if trial.rate < 1000 else f"{trial.rate:,.0f}",
            f"±{100 * half_width(trial):.1f} %",
            f"{100 * trial.share:.0f} %",
            f"{trial.peak_bytes / 2**20:,.1f}",
            "" if trial.memory_left is None else f"{100 * trial.memory_left:.0f} %",
            *noises,
            "",
        )

    def _remarks(self) -> tuple[str, ...]:
        reasons = dict.fromkeys(trial.noise_reason for trial in self.trials if trial.noise_reason)
        return (f"No larger size was tried: {self.stopped}.", *self.notes, *reasons)


def half_width(trial: SizeTrial) -> float:
    """Half of the interval of a rate, over the rate."""
    return (trial.rate_high - trial.rate_low) / 2 / trial.rate


def _skipped_row(skipped: SkippedSize) -> tuple[str, ...]:
    return ("", f"{skipped.batch_size:,}", *([""] * 9), skipped.reason)
