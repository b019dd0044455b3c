"""Predicts a stream of batches, each by statistics that it has itself adapted."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

from torch import nn

from normwright.errors import OptionError
from normwright.functional.arguments import is_number
from normwright.network.batch_call import Caller, ForwardFn
from normwright.network.copying import check_holds_numbers
from normwright.statistics.adapter import Adapter, SourceWeight, check_source_weight
from normwright.statistics.batches import none_called, samples_in, unwrapped
from normwright.statistics.guard import Guard, ScoresOf, answers_of_source, class_scores
from normwright.statistics.layers import Layers
from normwright.statistics.ranks import why_it_waits
from normwright.statistics.untouched import untouched
from normwright.statistics.watch import Watch


class AdaptedStream:
    """A network that answers each batch by statistics blended from the source's and the batch's own.

    Used as a context: inside, call it on batches as loaders give them. The network itself never changes. A
    batch whose predictions collapse is answered by the source's statistics, is counted in `refused`, and
    leaves no trace in what follows.

    See `adapt` for the blend and the arguments.

    Args:
        decay: how much a sample counts one batch later, from 0 (each batch by itself) to less than 1: the
            evidence is that of some 1/(1 − decay) batches, for slow streams in small batches.
    Raises:
        OptionError: nothing keeps statistics, or decay or source_weight lies outside its range.
    References:
        Schneider et al. 2020, arXiv:2006.16971; Nado et al. 2020, arXiv:2006.10963.
    Example:
        >>> network = nn.BatchNorm1d(1).eval()
        >>> with AdaptedStream(network, source_weight=0) as adapted:
        ...     adapted(torch.tensor([[3.0], [5.0]])).round()
        tensor([[-1.],
                [ 1.]])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        source_weight: SourceWeight = None,
        decay: float = 0.0,
        forward_fn: ForwardFn | None = None,
        layers: Collection[str] | None = None,
        scores_of: ScoresOf = class_scores,
    ) -> None:
        if not (is_number(decay) and 0 <= decay < 1):
            raise OptionError(f"decay must be at least 0 and less than 1, but is {decay!r}")
        self._network = unwrapped(network)
        self._found = Layers(self._network, layers, instance_norm=False, recurrent=False)
        self._found.check_any()
        check_holds_numbers(self._network)
        check_source_weight(source_weight, self._found.normalisers)
        self._adapter = Adapter(self._network, source_weight, decay)
        self._guard = Guard(scores_of)
        self._call = Caller(self._network, forward_fn)
        self._waits = bool(why_it_waits(self._network, self._found.modules))
        self._open = False
        self.batches = self.samples = self.refused = 0

    def __call__(self, batch: Any) -> Any:
        """What the network answers, without gradients.

        Raises:
            DataError: a layer met NaN or infinity; the stream goes on as if the batch had not come.
            OptionError: no batch so far has met a layer, as where the network is compiled by `torch.jit`.
        """
        if not self._open:
            raise OptionError("an adapted stream must be used inside its context: with ... as adapted: …")
        self._adapter.number += 1
        with untouched(self._network, self._found.modules):
            try:
                with Watch(self._found, self._adapter.normalise):
                    output = self._call(batch)
                if not self._adapter.called:
                    raise none_called(self._found.normalisers)
            except BaseException:
                self._adapter.drop()
                raise
            source = answers_of_source(self._call, batch, waits=self._waits)
            reason = self._guard.reason(output, source)
            if reason:
                output = source()
                self._refuse(reason)
            else:
                self._adapter.keep()
        self.batches += 1
        self.samples += samples_in(batch)
        return output

    def _refuse(self, reason: str) -> None:
        self._adapter.forget()
        self._guard.forget()
        if not self.refused:
            warnings.warn(
                f"{reason} (batch {self._adapter.number}): such a batch is answered by the source's "
                "statistics, and counted in `refused`",
                stacklevel=3,
            )
        self.refused += 1

    def __enter__(self) -> AdaptedStream:
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._adapter.forget()
