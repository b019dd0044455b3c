"""`nw.shift_test`: whether two data sets come from one distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normwright.doctor.random_states import random_states_kept
from normwright.errors import OptionError
from normwright.lab.samples import Reading, has_splits, read_samples
from normwright.lab.tensor_samples import Samples, mapped
from normwright.network.batch_call import ForwardFn
from normwright.shift.in_network import Shown, network_shift
from normwright.shift.judge import Stage, check_options, judged
from normwright.shift.report import NetworkShift, ShiftReport
from normwright.statistics.batches import unwrapped

Build = Callable[[tuple[int, ...] | None, int | None], nn.Module]
"""(sample shape, classes) -> network."""

# Of each set: accuracies are then known to 2 %, the mean of a channel to 0.02 of its deviation.
_RUN = 2_000


def _numbers(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _silent(sentence: str) -> None:
    pass


def shift_test(
    reference: Any,
    current: Any,
    *,
    network: nn.Module | None = None,
    label: str = "",
    with_labels: bool = False,
    samples: int = 10_000,
    level: float = 0.05,
    alarm: float = 0.2,
    seed: int = 0,
    split: str | None = None,
    current_split: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    data_dir: Path | None = None,
    batch_size: int = 64,
    forward_fn: ForwardFn | None = None,
    on_stage: Stage = _silent,
) -> ShiftReport:
    """Tests whether two data sets come from one distribution, says what differs, and what to do.

    Rows are taken for independent draws: of several rows of one patient, or frames of one film, the p-value
    is too small, since other patients and films differ, too.

    Gradient-boosted trees are asked to tell the sets apart, on rows that they were not taught from:

        MCC = (t + u − 1) / √(1 − (t − u)²),    AUC = P(score of a current row > score of a reference row)

    where t and u are the shares of the current set and of the reference that were taken for what they are:
    both sets weigh the same, whatever their sizes. The p-value permutes the sets' labels among rows that come
    later than all that the classifier was taught from, which is exact without teaching it again
    (`shift.two_sample` says why, and why out-of-fold answers will not do). The verdict takes both: a *shift*
    has p ≤ `level` and MCC ≥ `alarm`; a *small shift*, p ≤ `level` alone; MCC ≥ `alarm` alone is *undecided*,
    for want of rows.

    The intervals are Newcombe's for the AUC, and quantiles over Jeffreys' posteriors of t and u for the MCC,
    each with half the rows, because out-of-fold answers hang together. A feature is told of by what the AUC
    loses when its values are shuffled among rows out of fold, where that is more than chance explains.

    With a network, the same per normaliser: how far the mean and the variance of its input moved, whether by
    more than chance, the accuracy that is lost where the sets have labels, and what `adapt` on the current
    set would bring back.

    Args:
        reference, current: a path to .csv, .parquet or .npy; a named data set, `images:DIR` or
            `path/to/file.py:function`; a data frame of pandas, polars or another library that narwhals knows;
            an array or tensor (N, ...); (x, y) of these; a Dataset; or an iterable of batches. What of a
            table is text is taken as categories, up to 63 of them.
        network: run in inference mode on a copy; called with what is no label, in its floating-point dtype.
        label: the column of a table that holds the class, from 0 on; set aside for the accuracy.
        with_labels: compares the labels, too, as one more column.
        samples: the most that are drawn of each set; 2,000 of these are shown to the network.
        level: how often a shift may be seen where there is none.
        alarm: the least MCC worth an alarm.
        seed: of everything that is drawn; the same one gives the same report.
        split, current_split: train, validation, test or all, of what has splits. By default train of the
            reference and test of the current set, or all of `images:DIR`.
        image_size: height and width, in pixels, that `images:DIR` is scaled to; by default 32.
        mean, std: of `images:DIR`, taken off and divided by.
        data_dir: where the files of named data sets are looked for first.
        batch_size: samples of one call of the network.
        forward_fn: called as forward_fn(network, batch) instead, for any other signature.
        on_stage: told what is being done, in a sentence.
    Returns:
        A report of plain values, with `table()`; `network` holds the part about the network.
    Raises:
        DataError: a set is missing, empty or of fewer than 20 rows, columns differ in name or kind, none
            varies, or a label is beyond the network's outputs.
        OptionError: an option is out of its range, or the network does not take the samples.
        MissingExtraError: reading tables needs polars, images Pillow.
        Whatever a user's function or network raises. Network and random states are as they were.
    References:
        Lopez-Paz & Oquab 2017, "Revisiting Classifier Two-Sample Tests", arXiv:1610.06545.
        Schneider et al. 2020, arXiv:2006.16971.
    Example:
        >>> x = np.random.default_rng(0).normal(size=(400, 3))
        >>> report = shift_test(x[:200], x[200:] + [2.0, 0.0, 0.0])
        >>> report.verdict, report.features[0].name
        ('shift', 'x[0]')
    """
    built = None if network is None else unwrapped(network)
    return report_on(
        reference,
        current,
        None if built is None else lambda shape, classes: built,
        label=label,
        with_labels=with_labels,
        samples=samples,
        level=level,
        alarm=alarm,
        seed=seed,
        split=split,
        current_split=current_split,
        image_size=image_size,
        mean=mean,
        std=std,
        data_dir=data_dir,
        batch_size=batch_size,
        forward_fn=forward_fn,
        on_stage=on_stage,
    )


def report_on(
    reference: Any,
    current: Any,
    build: Build | None,
    *,
    label: str,
    with_labels: bool,
    samples: int,
    level: float,
    alarm: float,
    seed: int,
    split: str | None,
    current_split: str | None,
    image_size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    data_dir: Path | None,
    on_stage: Stage,
    batch_size: int = 64,  # no test, for all its module's name
    forward_fn: ForwardFn | None = None,
) -> ShiftReport:
    """See `shift_test`; the network is built once the reference tells sample shape and classes."""
    check_options(level, alarm, seed)
    for name, value in (("samples", samples), ("batch_size", batch_size)):
        if value < 1:
            raise OptionError(f"{name} must be at least 1, but is {value}")
    _check_served(
        (reference, current),
        split=split,
        current_split=current_split,
        image_size=image_size,
        mean=mean,
        std=std,
    )
    scale = (_numbers(mean), _numbers(std))
    sets: list[Samples] = []
    inside: NetworkShift | None = None
    with random_states_kept():
        for source, which, usual, chosen in (
            (reference, "reference", "train", split),
            (current, "current", "test", current_split or split),
        ):
            name = str(source) if isinstance(source, str | Path) else which
            if name != which and str(reference) == str(current):
                name += f" ({which})"  # two sets of one name would be told apart by nobody
            how = Reading(samples, seed, label, chosen, image_size, *scale, directory=data_dir)
            on_stage(f"reading {name}")
            sets.append(read_samples(source, name, usual, how))
        sets[1] = sets[1].ordered_as(sets[0])
        if with_labels:
            sets = [part.with_labels() for part in sets]
        if build is not None:
            network = build(sets[0].sample_shape, sets[0].classes)
            shown = [_shown(network, part, seed) for part in sets]
            inside = network_shift(
                network,
                *shown,
                batch_size=batch_size,
                level=level,
                seed=seed,
                forward_fn=forward_fn,
                on_stage=on_stage,
            )
        return judged(
            *(part.rows for part in sets),
            level=level,
            alarm=alarm,
            seed=seed,
            network=inside,
            notes=(*sets[0].notes, *sets[1].notes),
            on_stage=on_stage,
        )


def _check_served(sources: tuple[Any, Any], **options: Any) -> None:
    """What says how a named data set is read is not passed over where neither set is one."""
    given = [f"{name}=" for name, value in options.items() if value is not None]
    if given and not any(map(has_splits, sources)):
        raise OptionError(
            f"{', '.join(given)} must go with a named data set or images:DIR, but neither set is one: leave "
            "it out"
        )


def _shown(network: nn.Module, samples: Samples, seed: int) -> Shown:
    """The samples as a network is shown them."""
    if samples.inputs is None:
        raise OptionError(
            f"a network must be given numbers, but {samples.rows.name} has other columns, too: leave them "
            "out, or name a function that returns the network's inputs"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(samples))[:_RUN])
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)

    def taken(tensor: Tensor) -> Tensor:
        part = tensor[order]
        return part.to(dtype) if part.is_floating_point() else part

    inputs = mapped(samples.inputs, taken)
    labels = None if samples.labels is None else samples.labels[order]

    def batch(begin: int, end: int) -> Any:
        part = mapped(inputs, lambda tensor: tensor[begin:end])
        return (part,) if labels is None else (part, labels[begin:end])

    return Shown(samples.rows.name, len(order), batch, labels)
