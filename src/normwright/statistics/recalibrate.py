"""Estimates anew the population statistics that a network normalises by at inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.distributed import ProcessGroup

from normwright.errors import OptionError, unknown_name
from normwright.functional.arguments import is_number
from normwright.network.batch_call import Caller, ForwardFn
from normwright.network.copying import check_holds_numbers
from normwright.nn.bookkeeping import re_estimating
from normwright.statistics.batches import check_iterable, none_called, nothing_read, samples_in, unwrapped
from normwright.statistics.changes import fitting, in_order, largest_errors, moved
from normwright.statistics.estimate import ESTIMATORS, Estimator
from normwright.statistics.layers import Layer, Layers
from normwright.statistics.ranks import (
    Share,
    agreed,
    check_group,
    in_step,
    joined,
    telling_others,
    why_it_waits,
)
from normwright.statistics.recalibration import LayerChange, Recalibration, RecalibrationReport
from normwright.statistics.recorder import Recorder
from normwright.statistics.replacement import Replacement
from normwright.statistics.untouched import untouched, warn_of_dropout, warn_of_others
from normwright.statistics.waiting import Seen
from normwright.statistics.watch import Watch

# Below this many mini-batches, how far they lie apart says little of how well the statistics are known.
_LEAST_BATCHES = 8


def recalibrate(
    network: nn.Module,
    batches: Iterable[Any],
    *,
    estimator: Estimator = "total",
    forward_fn: ForwardFn | None = None,
    samples: int | None = None,
    tolerance: float | None = None,
    layers: Collection[str] | None = None,
    process_group: ProcessGroup | None = None,
) -> Recalibration:
    """Replaces the running statistics of a network by those of its finished self over a data set.

        total    mean = Σ m_B·mean_B / M,   variance = Σ m_B·(variance_B + (mean_B − mean)²) / M
        within   the same mean,             variance = Σ m_B·(m_B/(m_B − 1)·variance_B) / M,    M = Σ m_B

    over the mini-batches B, each of m_B elements per channel; for equal m_B, *within* is the batch-norm
    paper's estimate, and *total* is the variance of the joined data set. Every use of a layer counts as a
    mini-batch, and in instance norm every sample does.

    While it reads, each normaliser normalises by its batch, so that those after it see what they will see;
    everything else runs in the mode that it is in. A normaliser in inference mode inside a network in
    training mode is taken for frozen, as is one whose class is called Frozen…. Moments are kept and merged
    in float64. Only running_mean and running_var are changed, at the end and all at once; of whitening,
    running_mean and running_covariance, which the same formulas give of products.

    A `RecurrentBatchNorm`, as in a `BatchNormLSTM`, has its statistics estimated for each time step that the
    sequences reach, which counts as seen from then on; the report joins its steps. One under a mask
    (`MaskedBatchNorm1d`) has them of what counts.

    Args:
        network: changed in place. A wrapper (DistributedDataParallel, torch.compile) is looked through;
            SyncBatchNorm normalises by the batch of its own process.
        batches: an iterable of tensors; of tuples or lists with the input first, as loaders give (input,
            target), where the input may be a tuple of positional arguments; or of mappings of keyword
            arguments, of which those that forward does not take are left out.
        estimator: "total" or "within".
        forward_fn: called as forward_fn(network, batch) instead, for any other signature.
        samples: reading ends with the batch that reaches this number; None for no end.
        tolerance: reading ends when each mean is known to this many of its deviations and each variance to
            this share of itself (one standard error, from how far mini-batches lie apart; after 8 of them);
            None reads all.
        layers: qualified names of the modules to re-estimate; None for all.
        process_group: joins the shares of its processes, which may be unequal or empty, so that all end with
            the same bits; `samples` and `tolerance` then hold for each share. Where a forward waits for the
            others (parameters spread by fully_shard or tensor parallelism, a synchronised norm that is left
            alone and trains) each must have as many batches, and reading ends when it may in every share.
    Returns:
        A handle: `undo()`, `layers` (the change of each), `samples`, `table()`.
    Raises:
        OptionError: nothing keeps statistics, forward does not take the batch, or an option is out of range.
        DataError: no batch came, or a layer met NaN or infinity; layer and batch are named.
        ShapeError: a layer met a single value per channel.
        RankError: another process failed, made another call, has fewer batches where a forward waits for the
            others, or died (within the group's time limit). Where such a forward failed in one process, the
            others raise what PyTorch raises once that process has ended.
        Whatever the loader or the network raises. In each case the network is as it was.
    References:
        Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2.
        Wu & Johnson 2021, "Rethinking Batch in BatchNorm", arXiv:2105.07576.
    Example:
        >>> network = nn.Sequential(nn.BatchNorm1d(1)).eval()
        >>> handle = recalibrate(network, [torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [8.0]])])
        >>> network[0].running_mean, network[0].running_var
        (tensor([4.]), tensor([6.5000]))
        >>> handle.undo()
        >>> network[0].running_mean
        tensor([0.])
    """
    check_group(process_group)
    with telling_others(process_group) as others:
        network = unwrapped(network)
        if estimator not in ESTIMATORS:
            raise unknown_name("estimator", estimator, ESTIMATORS)
        check_samples(samples)
        check_tolerance(tolerance)
        check_iterable(batches)
        found = Layers(network, layers)
        found.check_any()
        check_holds_numbers(network)
        warn_of_dropout(network)
        waits = why_it_waits(network, found.modules)
        warn_of_others(waits, process_group)
        # A batch is read once, and its clone would take as long as a small layer.
        call = others.calling(Caller(network, forward_fn).on_itself, waits)
        agree = partial(agreed, group=process_group if waits else None)
        reader = _Reader(network, found, call, estimator, samples, tolerance, agree)
        share = reader.read(in_step(batches, waits, process_group))
    share = joined(share, process_group, (f"recalibrate(estimator={estimator!r})", *found.described()))
    if not share.batches or not (share.layers or share.samples):
        raise nothing_read("estimate")
    if not share.layers:
        raise none_called(found.normalisers)
    old = [layer.moments_in(network) for layer in share.layers]
    new = [seen.statistics(estimator) for seen in share.layers.values()]
    values = fitting(share.layers, new, old)
    changes = _changes(share.layers, estimator, moved(old, new, [seen.eps for seen in share.layers.values()]))
    rows = in_order(found, changes, lambda name, kind, why: LayerChange(name, kind, reason=why))
    report = RecalibrationReport(estimator, rows, share.samples, share.batches, reader.stopped)
    return Recalibration(report, Replacement(network, values))


class _Reader:
    """Reads batches through a network until there is enough."""

    def __init__(
        self,
        network: nn.Module,
        found: Layers,
        call: Callable[[Any], object],
        estimator: Estimator,
        samples: int | None,
        tolerance: float | None,
        agree: Callable[[bool], bool],
    ) -> None:
        self.stopped = "the batches ended"
        self._agree = agree
        self._network, self._found, self._call = network, found, call
        self._estimator, self._samples, self._tolerance = estimator, samples, tolerance
        self._may_end = samples is not None or tolerance is not None

    def read(self, batches: Iterable[Any]) -> Share[Seen]:
        recorder = Recorder()
        samples = 0
        with untouched(self._network, self._found.modules), re_estimating():
            for batch in batches:
                recorder.batch += 1
                with Watch(self._found, recorder.normalise):
                    self._call(batch)
                samples += samples_in(batch)
                if self._may_end and self._agree(self._is_enough(samples, recorder)):
                    break
        recorder.merge()
        return Share(recorder.seen, samples, recorder.batch)

    def _is_enough(self, samples: int, recorder: Recorder) -> bool:
        if self._samples is not None and samples >= self._samples:
            self.stopped = f"the {self._samples} samples asked for were reached"
            return True
        if self._tolerance is None or recorder.batch < _LEAST_BATCHES:
            return False
        recorder.merge()
        for seen in recorder.seen.values():
            errors = seen.estimate.standard_errors(self._estimator)
            if any(bool((error > self._tolerance).any()) for error in errors):
                return False
        self.stopped = f"the statistics are known to {self._tolerance:g}"
        return True


def _changes(
    layers: Mapping[Layer, Seen], estimator: Estimator, moves: Iterable[tuple[float, tuple[float, float]]]
) -> dict[str, LayerChange]:
    """By name, how far the statistics moved and how well they are known; time steps are joined."""
    errors = largest_errors([seen.estimate for seen in layers.values()], estimator)
    changes: dict[str, LayerChange] = {}
    for (layer, seen), move, error in zip(layers.items(), moves, errors, strict=True):
        elements = int(seen.estimate.elements.count)
        of_mean, of_variance = (one if math.isfinite(one) else None for one in error)
        change = LayerChange(
            layer.name, layer.kind, seen.uses, elements, *move, mean_error=of_mean, variance_error=of_variance
        )
        before = changes.get(layer.name) if layer.step is not None else None
        changes[layer.name] = change if before is None else before.with_step(change)
    return changes


def check_samples(samples: int | None) -> None:
    """Reading can end there."""
    if samples is not None and not (is_number(samples) and samples >= 1):
        raise OptionError(f"samples= must be at least 1, but is {samples!r}: leave it out to read all")


def check_tolerance(tolerance: float | None) -> None:
    """The statistics can be known to it."""
    if tolerance is not None and not (is_number(tolerance) and 0 < tolerance < math.inf):
        raise OptionError(
            f"tolerance= must be a positive number of deviations, but is {tolerance!r}: leave it out to read "
            "all"
        )
