"""Traces one call of a subject's network, as it is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from normwright.doctor.missing import SkipError
from normwright.doctor.structure.graph import Graph
from normwright.doctor.structure.graph_of import graph_of
from normwright.doctor.subject import Subject
from normwright.network.calling import Call
from normwright.network.trace import UntraceableError, first_line, trace


def gather_graph(subject: Subject) -> Graph:
    """The graph of a call on the first batch, in training mode, traced on a copy.

    Raises:
        SkipError: no way of tracing serves, or the network is not called as a whole.
    """
    twin = subject.twin()
    if not twin.network.training:
        twin.network.train()
    call = _first_call(twin)
    try:
        return graph_of(twin.network, trace(twin.network, call))
    except UntraceableError as error:
        raise SkipError(f"the network could not be traced: {error}") from error
    except Exception as error:  # of a trace such as none of those that were read before
        raise SkipError(f"the network's trace could not be read: {first_line(error)}") from error


class _Called(BaseException):  # no error, and not to be caught by a forward_fn
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call


def _first_call(subject: Subject) -> Call:
    """What the network is called with for the first batch; its forward does not run."""

    def stop(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _Called(Call(args, named))

    handle = subject.network.register_forward_pre_hook(stop, prepend=True, with_kwargs=True)
    try:
        subject.outputs(subject.batches[0])
    except _Called as called:
        return called.call
    finally:
        handle.remove()
    raise SkipError("forward_fn does not call the network itself, but parts of it")
