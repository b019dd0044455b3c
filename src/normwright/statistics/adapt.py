"""Moves a network's population statistics to a shifted domain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from torch import nn
from torch.distributed import ProcessGroup

from normwright.errors import CollapseError
from normwright.network.batch_call import Caller, ForwardFn
from normwright.network.copying import check_holds_numbers
from normwright.statistics.adaptation import Adaptation, AdaptationReport, LayerAdaptation
from normwright.statistics.adapter import Adapter, SourceWeight, check_source_weight
from normwright.statistics.batches import check_iterable, none_called, nothing_read, samples_in, unwrapped
from normwright.statistics.blend import Evidence
from normwright.statistics.changes import fitting, in_order, moved
from normwright.statistics.guard import Guard, ScoresOf, answers_of_source, class_scores
from normwright.statistics.layers import Layers
from normwright.statistics.ranks import (
    Share,
    check_group,
    in_step,
    joined,
    telling_others,
    why_it_waits,
)
from normwright.statistics.replacement import Replacement
from normwright.statistics.untouched import untouched, warn_of_dropout, warn_of_others
from normwright.statistics.watch import Watch


def adapt(
    network: nn.Module,
    batches: Iterable[Any],
    *,
    source_weight: SourceWeight = None,
    forward_fn: ForwardFn | None = None,
    layers: Collection[str] | None = None,
    scores_of: ScoresOf = class_scores,
    process_group: ProcessGroup | None = None,
) -> Adaptation:
    """Moves the running statistics of batch norm to the domain of the batches, without labels.

        mean = λ·mean_s + (1 − λ)·mean_t,    λ = N/(N + n)
        variance = λ·variance_s + (1 − λ)·variance_t + λ·(1 − λ)·(mean_s − mean_t)²

    blends the source's statistics, which the network holds, with those of the n samples seen of the target;
    of whitening, covariances likewise, with the products of (mean_s − mean_t) for its square.
    Each layer normalises by its blend while it reads, so that those after it see what they will see. N is
    chosen for each layer from the samples: large where the target does not differ from the source by more
    than chance explains, small where it does (`blend.chosen_share`).

    A guard watches the predictions: where they would collapse, nothing is changed. Other classes than the
    source's, or other shares of them, move the statistics as another domain does, and the guard does not see
    it: what is to be told apart should be in the batches as it will be met.

    Args:
        network: changed in place; its modules run in the modes that they are in. Layer, group and instance
            norm adapt by themselves and are left alone; so are frozen ones, as in `recalibrate`.
        batches: as for `recalibrate`; targets are not looked at.
        source_weight: N, how many samples the source counts for, for all layers or by name; 0 takes the
            target alone; None, or a name left out, chooses it.
        forward_fn: called as forward_fn(network, batch) instead, for any other signature.
        layers: qualified names of the modules to adapt; None for all.
        scores_of: finds the class scores (N, K, …) in what the network answers; lambda output: None where
            there are none, which leaves it without a guard.
        process_group: joins the samples of its processes, which may be unequal or empty. Equal to
            one process in the first layer alone: those after it see what their own process's blends make of
            its samples.
    Returns:
        A handle: `undo()`, `layers`, `samples`, `table()`; used as a context, it undoes at the end.
    Raises:
        CollapseError: the predictions became all of one class where the source's are not, or their entropy
            fell ten batches in a row to less than half.
        OptionError, DataError, RankError: as `recalibrate`.
        Whatever the loader or the network raises. In each case the network is as it was.
    References:
        Schneider et al. 2020, "Improving robustness against common corruptions by covariate shift
        adaptation", arXiv:2006.16971.
    Example:
        >>> network = nn.BatchNorm1d(1).eval()
        >>> with adapt(network, [torch.tensor([[3.0], [5.0]])], source_weight=2):
        ...     network.running_mean, network.running_var  # halfway; 1/2 + 1/2 + 1/4·4²
        (tensor([2.]), tensor([5.]))
        >>> network.running_mean
        tensor([0.])
    """
    check_group(process_group)
    with telling_others(process_group) as others:
        network = unwrapped(network)
        check_iterable(batches)
        found = Layers(network, layers, instance_norm=False, recurrent=False)
        found.check_any()
        check_holds_numbers(network)
        check_source_weight(source_weight, found.normalisers)
        warn_of_dropout(network)
        waits = why_it_waits(network, found.modules)
        warn_of_others(waits, process_group)
        adapter, guard = Adapter(network, source_weight), Guard(scores_of)
        stream = in_step(batches, waits, process_group)
        forward = others.calling(Caller(network, forward_fn), waits)
        share = _read(network, found, adapter, guard, stream, forward, waits=bool(waits))
    call = f"adapt(source_weight={_in_words(source_weight)})"
    share = joined(share, process_group, (call, *found.described()))
    if not share.batches or not (share.layers or share.samples):
        raise nothing_read("adapt")
    if not share.layers:
        raise none_called(found.normalisers)
    blends = {layer: adapter.blend(layer, seen) for layer, seen in share.layers.items()}
    old = [layer.moments_in(network) for layer in blends]
    new = [(blended.mean, blended.variance) for blended in blends.values()]
    moves = moved(old, new, [seen.eps for seen in share.layers.values()])
    values = fitting(blends, new, old)
    changes = {
        layer.name: LayerAdaptation(
            layer.name, layer.kind, round(seen.samples), blends[layer].source_share, *move
        )
        for (layer, seen), move in zip(share.layers.items(), moves, strict=True)
    }
    rows = in_order(found, changes, lambda name, kind, why: LayerAdaptation(name, kind, reason=why))
    report = AdaptationReport(rows, share.samples, share.batches, guard.judged)
    return Adaptation(report, Replacement(network, values))


def _in_words(weight: SourceWeight) -> str:
    """The same for weights that mean the same: 16 and 16.0, None and a name left out."""
    if isinstance(weight, Mapping):
        return str({name: float(each) for name, each in sorted(weight.items()) if each is not None})
    return str(None if weight is None else float(weight))


def _read(
    network: nn.Module,
    found: Layers,
    adapter: Adapter,
    guard: Guard,
    batches: Iterable[Any],
    call: Callable[[Any], object],
    *,
    waits: bool,
) -> Share[Evidence]:
    samples = 0
    with untouched(network, found.modules):
        for batch in batches:
            adapter.number += 1
            with Watch(found, adapter.normalise):
                output = call(batch)
            reason = guard.reason(output, answers_of_source(call, batch, waits=waits))
            if reason:
                raise CollapseError(
                    f"an adapted network must go on telling classes apart, but {reason} (batch "
                    f"{adapter.number}); the network is as it was. Adapt to batches of all classes, or give "
                    "the source more weight by source_weight="
                )
            adapter.keep()
            samples += samples_in(batch)
    return Share(adapter.seen, samples, adapter.number)
