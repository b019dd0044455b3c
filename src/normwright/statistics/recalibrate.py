"""Estimates anew the population statistics that a network normalises by at inference."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.modules.dropout import _DropoutNd

from normwright.errors import DataError, OptionError, unknown_name
from normwright.statistics.batches import (
    Caller,
    ForwardFn,
    check_iterable,
    nothing_read,
    samples_in,
    unwrapped,
)
from normwright.statistics.estimate import ESTIMATORS, Estimator
from normwright.statistics.layers import Layer, Layers
from normwright.statistics.ranks import Seen, Share, joined
from normwright.statistics.recalibration import LayerChange, Recalibration, RecalibrationReport, write
from normwright.statistics.recorder import Recorder
from normwright.statistics.untouched import untouched
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
    in float64. Only running_mean and running_var are changed, at the end and all at once.

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
            the same bits; `samples` and `tolerance` then hold for each share.
    Returns:
        A handle: `undo()`, `layers` (the change of each), `samples`, `table()`.
    Raises:
        OptionError: nothing keeps statistics, forward does not take the batch, or an option is out of range.
        DataError: no batch came, or a layer met NaN or infinity; layer and batch are named.
        ShapeError: a layer met a single value per channel.
        RankError: another process failed, or died (within the group's time limit).
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
    network = unwrapped(network)
    _check_options(estimator, samples, tolerance)
    check_iterable(batches)
    found = Layers(network, layers)
    found.check_any()
    _warn(network, process_group)
    try:
        reader = _Reader(network, found, Caller(network, forward_fn), estimator, samples, tolerance)
        share = reader.read(batches)
    except Exception as error:
        if process_group is not None:
            joined(Share(failure=f"{type(error).__name__}: {error}"), process_group)
        raise
    share = joined(share, process_group)
    if not share.batches:
        raise nothing_read("estimate")
    if not share.layers:
        raise OptionError(
            "the network must call its normalisers in Python on the way through forward, but none was called "
            f"({', '.join(map(repr, list(found.normalisers)[:8]))}): do not script it, and let forward_fn "
            "call the whole network"
        )
    changes, values = {}, []
    for layer, seen in share.layers.items():
        mean, variance = seen.estimate.elements.mean, seen.estimate.variance(estimator)
        buffers = network.get_buffer(layer.mean), network.get_buffer(layer.variance)
        values += [(buffers[0], _fitting(mean, buffers[0], layer)),
                   (buffers[1], _fitting(variance, buffers[1], layer))]  # fmt: skip
        changes[layer.name] = _change(layer, seen, estimator, *buffers)
    before = [(buffer, buffer.detach().clone()) for buffer, _ in values]
    report = RecalibrationReport(
        estimator, _in_order(found, changes), share.samples, share.batches, reader.stopped
    )
    write(values)
    return Recalibration(report, before)


class _Reader:
    """Reads batches through a network until there is enough."""

    def __init__(
        self,
        network: nn.Module,
        found: Layers,
        call: Caller,
        estimator: Estimator,
        samples: int | None,
        tolerance: float | None,
    ) -> None:
        self.stopped = "the batches ended"
        self._network, self._found, self._call = network, found, call
        self._estimator, self._samples, self._tolerance = estimator, samples, tolerance

    def read(self, batches: Iterable[Any]) -> Share:
        recorder = Recorder()
        samples = 0
        with untouched(self._network, self._found.modules):
            for batch in batches:
                recorder.batch += 1
                with Watch(self._found, recorder.normalise):
                    self._call(batch)
                samples += samples_in(batch)
                if self._is_enough(samples, recorder):
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


def _change(
    layer: Layer, seen: Seen, estimator: Estimator, running_mean: Tensor, running_var: Tensor
) -> LayerChange:
    estimate = seen.estimate
    spread = running_var.detach().double().cpu() + seen.eps
    shift = (estimate.elements.mean - running_mean.detach().double().cpu()).abs() / spread.sqrt()
    ratio = (estimate.variance(estimator) + seen.eps) / spread
    errors = [float(error.max()) for error in estimate.standard_errors(estimator)]
    mean_error, variance_error = (error if math.isfinite(error) else None for error in errors)
    return LayerChange(
        layer.name,
        layer.kind,
        seen.uses,
        int(estimate.elements.count),
        float(shift.max()),
        (float(ratio.min()), float(ratio.max())),
        mean_error,
        variance_error,
    )


def _in_order(found: Layers, changes: dict[str, LayerChange]) -> tuple[LayerChange, ...]:
    """Every normaliser in the order of the network, then what was called without being a module."""
    not_called = "not called, or by a forward of its own that calls no batch_norm"
    rows = [
        changes.get(name) or LayerChange(name, type(module).__name__, reason=found.left.get(name, not_called))
        for name, module in found.normalisers.items()
    ]
    return (*rows, *(change for name, change in changes.items() if name not in found.normalisers))


def _fitting(value: Tensor, buffer: Tensor, layer: Layer) -> Tensor:
    """The value in the buffer's dtype, on its device."""
    fitting = value.to(buffer.device, buffer.dtype)
    if not bool(fitting.isfinite().all()):
        raise DataError(
            f"the statistics of layer {layer.name!r} must fit {buffer.dtype}, but reach "
            f"{float(value.abs().max()):.3g}; nothing was changed. Scale the layer's input down"
        )
    return fitting


def _check_options(estimator: str, samples: int | None, tolerance: float | None) -> None:
    if estimator not in ESTIMATORS:
        raise unknown_name("estimator", estimator, ESTIMATORS)
    if samples is not None and samples < 1:
        raise OptionError(f"samples must be at least 1, or None for all, but is {samples}")
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise OptionError(
            f"tolerance must be a positive number of deviations, or None to read all, but is {tolerance}"
        )


def _warn(network: nn.Module, group: ProcessGroup | None) -> None:
    awake = next(
        (
            name
            for name, module in network.named_modules()
            if isinstance(module, _DropoutNd) and module.training and module.p > 0
        ),
        None,
    )
    if awake is not None:
        warnings.warn(
            f"dropout {awake!r} is in training mode and stays so: the statistics will be those of a network "
            "that drops out. Call network.eval() first for those of inference",
            stacklevel=3,
        )
    if group is None and torch.distributed.is_available() and torch.distributed.is_initialized():
        world = torch.distributed.get_world_size()
        if world > 1:
            warnings.warn(
                f"this process is one of {world}, and estimates from its own batches alone: the processes' "
                "statistics will differ. Pass process_group=torch.distributed.group.WORLD in each",
                stacklevel=3,
            )
