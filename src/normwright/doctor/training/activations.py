"""What the layers of a network take and give while it trains."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from normwright.doctor.training.activity import DEADENING, FLAT_INPUTS, SATURATING
from normwright.doctor.training.calls import LayerCall, always, calls_heard
from normwright.doctor.training.layers import feature_axis
from normwright.doctor.training.spread import Spread, sample_of, spread_of
from normwright.doctor.training.units import Units


@dataclass(frozen=True)
class ActivationFacts:
    """One layer or activation function over the mini-batches, in the order of the forward pass.

    Args:
        layer: qualified name of the module, or "module: function" of a call that is none.
        kind: its class's or function's name ("ReLU", "relu").
        of_normaliser: it normalises.
        calls: how often it ran in the forward pass of each mini-batch; a recomputation does not count.
        inputs: of its first call in each mini-batch in which it ran; of normalisers alone, else ().
        outputs: the same of what it gives.
        flat: share of outputs in the flat part of a saturating function (sigmoid, tanh) in each of those
            mini-batches, where the derivative is below 5 % of its maximum; () for other layers.
        units: channels or units that were watched for activity, or 0 where there is none to watch for.
        spatial: a unit is a channel, which has a value at several positions of a sample.
        dead: of the units, those that were never active over all mini-batches: output 0, or in a flat part.
        seen: elements of each unit that this is judged by.
        is_output: what it gives is what the network gives.
    """

    layer: str
    kind: str
    of_normaliser: bool
    calls: tuple[int, ...]
    inputs: tuple[Spread, ...]
    outputs: tuple[Spread, ...]
    flat: tuple[float, ...] = ()
    units: int = 0
    spatial: bool = False
    dead: tuple[int, ...] = ()
    seen: int = 0
    is_output: bool = False


class ActivationObserver:
    """Reads what layers and activation functions take and give in each forward.

    Args:
        counts: asked at each call, whether it counts.
    """

    def __init__(self, counts: Callable[[], bool] = always) -> None:
        self._counts = counts
        self._read: dict[str, _Readings] = {}
        self._step = 0

    @contextlib.contextmanager
    def watching(self, network: nn.Module, step: int) -> Iterator[None]:
        """Hears of every call in the mini-batch."""
        self._step = step
        self._features_last = False
        self._known: dict[int, tuple[weakref.ref[Tensor], int, Spread]] = {}
        with calls_heard(network, self, self._counts):
            yield

    def gradients_ready(self, network: nn.Module, step: int, loss: float) -> None:
        """Nothing is read from gradients."""

    def stepped(self, network: nn.Module, step: int) -> None:
        """Nothing is read from updates."""

    def called(self, call: LayerCall, given: Tensor | None) -> None:
        """A layer is called; its input is read at once, for the layer may work in place."""
        read = self._read.setdefault(call.layer, _Readings(call.kind, call.of_normaliser))
        if read.calls_at(self._step) == 0 and call.of_normaliser and given is not None:
            read.inputs.append(self._spread(given))
        # A tensor of torch.inference_mode() does not tell whether it was written to.
        if given is None or given.is_inference():
            read.given = None
        else:
            read.given = weakref.ref(given), given._version

    def returned(self, call: LayerCall, y: Tensor) -> None:
        """A layer has returned."""
        read = self._read[call.layer]
        read.count(self._step)
        if call.features_last is not None:
            self._features_last = call.features_last
        first = read.calls_at(self._step) == 1
        if first:
            read.outputs.append(self._spread(y))
            if call.function in SATURATING:
                flat = SATURATING[call.function](sample_of(y))
                read.flat.append(float(flat.sum()) / max(flat.numel(), 1))
        axis = feature_axis(y, self._features_last)
        if call.function in DEADENING and axis is not None:
            x = read.input_as_given()
            if call.function in FLAT_INPUTS and x is not None and not call.of_normaliser:
                read.watch(x.detach(), axis, FLAT_INPUTS[call.function])
            else:
                read.watch(y.detach(), axis, DEADENING[call.function])
        read.latest = weakref.ref(y)

    def ended(self, outputs: list[Tensor]) -> None:
        """The network has returned."""
        for read in self._read.values():
            y = None if read.latest is None else read.latest()
            read.is_output = y is not None and any(y is out or y is out._base for out in outputs)

    def order(self) -> tuple[str, ...]:
        """Names of the layers, in the order of their first calls."""
        return tuple(self._read)

    def facts(self) -> tuple[ActivationFacts, ...]:
        """Of every layer that was called, in the order of the forward pass."""
        return tuple(read.facts(layer, self._step + 1) for layer, read in self._read.items())

    def _spread(self, x: Tensor) -> Spread:
        """Of a tensor that may have been read as the output of the layer before."""
        known = self._known.get(id(x))
        if known is not None and known[0]() is x and known[1] == x._version:
            return known[2]
        spread = spread_of(x, self._step)
        self._known[id(x)] = (weakref.ref(x), x._version, spread)
        return spread


@dataclass
class _Readings:
    """What was read of one layer."""

    kind: str
    of_normaliser: bool
    calls: dict[int, int] = field(default_factory=dict)
    inputs: list[Spread] = field(default_factory=list)
    outputs: list[Spread] = field(default_factory=list)
    flat: list[float] = field(default_factory=list)
    units: Units | None = None
    given: tuple[weakref.ref[Tensor], int] | None = None
    latest: weakref.ref[Tensor] | None = None
    is_output: bool = False

    def calls_at(self, step: int) -> int:
        return self.calls.get(step, 0)

    def count(self, step: int) -> None:
        self.calls[step] = self.calls_at(step) + 1

    def input_as_given(self) -> Tensor | None:
        """The latest call's, unless the layer worked in place."""
        x = None if self.given is None else self.given[0]()
        return x if x is not None and self.given is not None and x._version == self.given[1] else None

    def watch(self, y: Tensor, axis: int, is_flat: Callable[[Tensor], Tensor]) -> None:
        """Looks for activity; a layer whose number of units changes has none to watch."""
        if self.units is None:
            self.units = Units(y.shape[axis], axis == 1 and y.dim() > 2)
        self.units.watch(y, axis, is_flat)

    def facts(self, layer: str, steps: int) -> ActivationFacts:
        calls = tuple(map(self.calls_at, range(steps)))
        watched = self.units if self.units is not None and self.units.steady else Units(0, False)
        return ActivationFacts(
            layer,
            self.kind,
            self.of_normaliser,
            calls,
            tuple(self.inputs),
            tuple(self.outputs),
            tuple(self.flat),
            watched.count,
            watched.spatial,
            watched.dead(),
            watched.seen,
            self.is_output,
        )
