"""Traces a whole network: by `torch.export`, else by `torch.fx` and a recording, else by a recording alone.

`torch.export` proves what feeds what. Where it cannot, `torch.fx` proves that the forward is one straight
line, and a recording of one call shows which. A recording alone shows what happened once.
"""

from __future__ import annotations

import copy
import io
import warnings
from contextlib import redirect_stderr, redirect_stdout

import torch
from torch import nn
from torch.export import ExportedProgram

from normwright.functional.whitening.inverse_root import graphs_that_are_only_read
from normwright.network.calling import Call
from normwright.network.flow import Flow
from normwright.network.recording import record


class UntraceableError(Exception):
    """No way of tracing serves a network; the message says why each did not."""


def trace(network: nn.Module, call: Call) -> Flow:
    """The flow of one call.

    Args:
        network: in the mode in which it is to be traced; it is not changed.
        call: its arguments.
    Raises:
        UntraceableError: no way of tracing serves.
    """
    why = []
    for how, way in (("torch.export", _exported), ("torch.fx", _straight), ("recording", _recorded)):
        try:
            return way(network, call)
        except Exception as error:
            why.append(f"{how}: {first_line(error)}")
    raise UntraceableError("; ".join(why))


def _exported(network: nn.Module, call: Call) -> Flow:
    printed = io.StringIO()  # an export that fails prints what it has so far
    with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
        warnings.simplefilter("ignore")  # of export's own, about what we do not use
        with graphs_that_are_only_read():
            return flow_of(torch.export.export(network, call.args, call.named, strict=False))


def _straight(network: nn.Module, call: Call) -> Flow:
    """A recording of one call of a network whose forward torch.fx shows to be a straight line."""
    torch.fx.symbolic_trace(copy.deepcopy(network))
    return record(network, call, "torch.fx", "")


def _recorded(network: nn.Module, call: Call) -> Flow:
    return record(
        network,
        call,
        "recording",
        "What feeds what was seen in the example's call, and is taken to be so in others.",
    )


def flow_of(program: ExportedProgram) -> Flow:
    """The flow of an exported program."""
    signature = program.graph_signature
    owned = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names, tensors = {}, {}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name in owned:
            names[node] = owned[node.name]
        target = owned.get(node.name) or signature.inputs_to_lifted_tensor_constants.get(node.name)
        if target is not None:
            # a buffer that is not persistent is a constant
            tensors[node] = program.state_dict.get(target, program.constants.get(target))
    return Flow(program.graph, names, tensors, "torch.export")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to a cell of a table."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line.strip()[:160]}" if line else type(error).__name__
