"""The settings of every normaliser of a network, as it came."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normwright.doctor.structure.graph import Graph, Operation
from normwright.doctor.structure.where import where_defined
from normwright.network.acceleration.drop_in import normalisers_by_name
from normwright.network.conversion.kinds import CLASSES, known_base, species_of
from normwright.network.frozen_class import is_frozen, unfrozen_class

#: Of these, the moments run over the samples of the batch while the network trains.
_OVER_BATCH = ("batch", "synchronised", "renormalised", "ghost", "split", "whitening")

_BY_NAME = {
    "frozenbatchnorm": "frozen",
    "whiteningnorm": "whitening",
    "recurrentbatchnorm": "recurrent",
    "filterresponsenorm": "filter_response",
    "dynamictanh": "dynamic_tanh",
    "rms": "rms",
    "layernorm": "layer",
    "localresponse": "local_response",
}


@dataclass(frozen=True)
class Summary:
    """A parameter's entries in short."""

    least: float
    mean: float
    greatest: float


@dataclass(frozen=True)
class NormaliserFacts:
    """One normaliser: a module, or a function's call in a forward.

    Args:
        name: qualified name of the module; of a function as in the graph, "module: function".
        functional: it is a function's call.
        kind: "batch", "synchronised", "frozen", "renormalised", "ghost", "split", "whitening", "recurrent",
            "group", "instance", "layer", "rms", "local_response", "filter_response", "dynamic_tanh", or ""
            for a class whose formula is not known.
        known: it computes that kind's formula and nothing else: no subclass with a forward of its own.
        what: the class's or function's name.
        features: channels, or elements of the normalised shape; None where not known.
        groups: of group norm, else None.
        axes: how many trailing ones layer and RMS norm reduce, else None.
        elements: per moment in the example's call, the least of several calls; None where there was none, or
            the graph is missing.
        by_data: while the network trains it normalises by its input's moments, not by running ones.
        over_batch: and these run over the samples of the batch, with one set of running ones for every call.
        eps: as it is set, or None.
        momentum: PyTorch's, the weight of the newest batch; None for a cumulative average, or none at all.
        affine: it has a weight.
        tracks: it keeps running statistics, or has some to keep.
        training: the mode it came in.
        trained: its weight takes a gradient.
        frozen: it keeps its statistics whatever mode it is put in.
        weight, bias: in short, or None.
        calls: how often one forward called it; 0 where it was not called, or the graph is missing.
        where: file and line, or "".
    """

    name: str
    functional: bool
    kind: str
    known: bool
    what: str
    features: int | None
    groups: int | None
    axes: int | None
    elements: int | None
    by_data: bool
    over_batch: bool
    eps: float | None
    momentum: float | None
    affine: bool
    tracks: bool
    training: bool
    trained: bool
    frozen: bool
    weight: Summary | None
    bias: Summary | None
    calls: int
    where: str


def normalisers_of(network: nn.Module, graph: Graph | None) -> tuple[NormaliserFacts, ...]:
    """The facts of every module, in the network's order, and of every function's call, in the graph's.

    Args:
        network: as it came.
        graph: of one of its calls, or None.
    """
    operations = () if graph is None else graph.operations
    calls: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.kind == "normaliser":
            calls.setdefault(operation.name, []).append(operation)
    modules = normalisers_by_name(network)
    found = [_of_module(name, module, network, calls.get(name, [])) for name, module in modules.items()]
    found += [_of_function(call) for of_name in calls.values() for call in of_name if call.functional]
    return tuple(found)


def _of_module(name: str, module: Any, network: nn.Module, calls: list[Operation]) -> NormaliserFacts:
    kind = kind_of_module(module)
    weight, bias = (getattr(module, part, None) for part in ("weight", "bias"))
    tracks = isinstance(getattr(module, "running_mean", None), Tensor)
    # a network that came in inference mode is put into training mode as a whole
    trains = module.training or not network.training
    frozen = is_frozen(module)
    by_data = kind != "dynamic_tanh" and (not tracks or (trains and not frozen))
    features = _features(module, weight)
    groups = getattr(module, "num_groups", None)
    elements = [
        _elements(kind, call.input_shape, features, groups, getattr(module, "size", None)) for call in calls
    ]
    return NormaliserFacts(
        name,
        False,
        kind,
        isinstance(species_of(module), tuple),
        unfrozen_class(type(module)).__name__,
        features,
        groups,
        len(_normalised_shape(module)) or None,
        min((count for count in elements if count is not None), default=None),
        by_data,
        by_data and (kind in _OVER_BATCH or getattr(module, "max_length", None) == 1),
        _number(getattr(module, "eps", getattr(module, "variance_epsilon", None))),
        _number(getattr(module, "momentum", None)),
        isinstance(weight, Tensor),
        tracks,
        module.training,
        isinstance(weight, Tensor) and weight.requires_grad,
        frozen,
        _summary(weight),
        _summary(bias),
        len(calls),
        calls[0].where if calls else where_defined([module]),
    )


def kind_of_module(module: nn.Module) -> str:
    """The kind of a normaliser by what its class derives from, or else by its name; "" if neither tells.

    Example:
        >>> kind_of_module(nn.GroupNorm(2, 4)), kind_of_module(nn.LocalResponseNorm(5))
        ('group', 'local_response')
    """
    base = known_base(unfrozen_class(type(module)))
    if base is not None:
        return CLASSES[base].kind
    named = type(module).__name__.lower()
    return next((kind for part, kind in _BY_NAME.items() if part in named), "")


def _of_function(call: Operation) -> NormaliserFacts:
    given = dict(call.settings)
    kind, groups = _kind_of_call(call, given)
    shape = call.input_shape
    features = shape[1] if len(shape) > 1 else None
    axes = None
    if kind in ("layer", "rms") and shape:
        normalised = _normalised(shape, given)
        axes, features = len(normalised), math.prod(normalised)
    by_data = bool(given.get("training", given.get("use_input_stats", "affine" not in given["operator"])))
    return NormaliserFacts(
        call.name,
        True,
        kind,
        True,
        call.what,
        features,
        groups,
        axes,
        _elements(kind, shape, features, groups, None),
        by_data,
        by_data and kind == "batch",
        _number(given.get("eps", given.get("epsilon"))),
        _number(given.get("momentum")),
        given.get("weight") == "tensor",
        given.get("running_mean") == "tensor",
        by_data,
        given.get("weight") == "tensor",
        False,
        None,
        None,
        1,
        call.where,
    )


def _kind_of_call(call: Operation, given: Mapping[str, Any]) -> tuple[str, int | None]:
    kind = call.what.removesuffix("_norm")
    if kind == "layer" and given.get("center") is False:
        return "rms", None
    if kind != "group":
        return kind, None
    groups = given.get("num_groups", given.get("groups", given.get("group")))
    return "group", groups if isinstance(groups, int) else None


def _normalised(shape: tuple[int, ...], given: Mapping[str, Any]) -> tuple[int, ...]:
    if isinstance(given.get("axes"), int):
        return shape[len(shape) - given["axes"] :]
    # with the example's sizes, where the call computes some of them
    return shape[len(shape) - len(given.get("normalized_shape", shape[-1:])) :]


def _features(module: Any, weight: Any) -> int | None:
    for name in ("num_features", "num_channels"):
        if isinstance(getattr(module, name, None), int):
            return int(getattr(module, name))
    if _normalised_shape(module):
        return math.prod(_normalised_shape(module))
    return weight.numel() if isinstance(weight, Tensor) else None


def _normalised_shape(module: Any) -> tuple[int, ...]:
    shape = getattr(module, "normalized_shape", None)
    return tuple(shape) if isinstance(shape, (tuple, list)) else ()


def _elements(
    kind: str, shape: tuple[int, ...], features: int | None, groups: int | None, window: Any
) -> int | None:
    """Elements of an input of this shape that each moment is taken over."""
    if kind in ("layer", "rms"):
        return features
    if kind == "local_response":
        return window if isinstance(window, int) else None
    if not shape or not features or 0 in shape:
        return None
    everything = math.prod(shape)
    if kind in (*_OVER_BATCH, "frozen", "recurrent"):
        return everything // features
    samples = shape[0] if everything // features > 0 and _has_batch(kind, shape, features) else 1
    if kind in ("instance", "filter_response"):
        return everything // (samples * features)
    return everything // (samples * groups) if kind == "group" and groups else None


def _has_batch(kind: str, shape: tuple[int, ...], features: int) -> bool:
    """Whether the first axis is the batch; instance norm takes single samples as well."""
    return kind != "instance" or len(shape) < 2 or shape[1] == features


def _summary(parameter: Any) -> Summary | None:
    if not isinstance(parameter, Tensor) or parameter.is_meta or not parameter.numel():
        return None
    least, greatest = torch.aminmax(parameter.detach())
    return Summary(float(least), float(parameter.detach().double().mean()), float(greatest))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
