"""Which fused kernel would serve each normaliser, and why none would."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from normwright.backends import backends
from normwright.doctor.structure.graph import Graph, Operation
from normwright.doctor.subject import Subject
from normwright.network.acceleration.accelerate import accelerate_with_report
from normwright.network.frozen_class import unfrozen_class

_BACKENDS = {"cpu": "native", "cuda": "triton"}


@dataclass(frozen=True)
class KernelFacts:
    """What `nw.accelerate` says of one normaliser, or of one function's call.

    Args:
        name: qualified name of the module; of a function as in the graph.
        kind: its class's or function's name.
        served: a fused kernel serves it, or would after `nw.accelerate`.
        fused: what is computed with it: "relu", "residual + relu".
        device: the network's, such as "cpu".
        backend: that serves this device: "native", "triton" or "eager".
        reason: why no fused kernel serves it, or "".
        without: why the device's own backend is not there, or "".
    """

    name: str
    kind: str
    served: bool
    fused: tuple[str, ...]
    device: str
    backend: str
    reason: str
    without: str


def kernels_of(subject: Subject, graph: Graph | None) -> tuple[KernelFacts, ...]:
    """The facts of every module, in the network's order, and of every function's call, in the graph's.

    Args:
        subject: left as it is; its network does not run.
        graph: of a call of it, or None, by which functions' calls are known.
    """
    _, report = accelerate_with_report(subject.twin().network, inplace=True)
    device, backend, without = _backend(subject.network)
    modules = dict(subject.network.named_modules())
    found = [
        KernelFacts(
            record.name,
            record.kind,
            backend != "eager" and (record.became is not None or _has_own(modules[record.name])),
            record.fused,
            device,
            backend,
            record.reason if record.became is None and not _has_own(modules[record.name]) else "",
            without,
        )
        for record in report.normalisers
    ]
    calls = {} if graph is None else {call.name: call for call in graph.operations if _is_function(call)}
    for name, call in calls.items():
        own = str(dict(call.settings).get("operator")).startswith("normwright.")
        reason = "" if own else "it is a call of PyTorch's function, which nw.accelerate leaves as it is"
        served = own and backend != "eager"
        found.append(KernelFacts(name, call.what, served, (), device, backend, reason, without))
    return tuple(found)


def _has_own(module: nn.Module) -> bool:
    """Whether a module is normwright's alone and computes in its own way, which nothing is faster than."""
    kind = unfrozen_class(type(module))
    return kind.__module__.startswith("normwright.nn.") and not hasattr(nn, kind.__name__)


def _is_function(call: Operation) -> bool:
    return call.kind == "normaliser" and call.functional


def _backend(network: nn.Module) -> tuple[str, str, str]:
    """The network's device, the backend that serves it, and why a better one does not."""
    held = next(iter([*network.parameters(), *network.buffers()]), None)
    device = "cpu" if held is None else held.device.type
    wanted = _BACKENDS.get(device)
    found = next((backend for backend in backends() if backend.name == wanted), None)
    if found is None:
        return device, "eager", f"there is no backend for {device}"
    interpreted = wanted == "native" and not found.loaded and "interpreter" in found.reason
    if found.loaded or interpreted:
        return device, found.name if found.loaded else "triton", ""
    return device, "eager", found.reason
