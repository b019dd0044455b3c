"""How a graph calls one module several times: in several places, or once for each step of a sequence."""

from __future__ import annotations

from normwright.doctor.structure.graph import Graph

_JOINING = ("add", "multiply", "concatenate")


def sources_of(graph: Graph, place: int) -> frozenset[str]:
    """The nearest operations above one that have parameters, or are inputs, by their names."""
    layers = {operation.name for operation in graph.operations if not operation.functional}
    found, seen = set(), set()
    waiting = [edge.source for edge in graph.feeding(place)]
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        operation = graph.operations[at]
        holders = {name.rpartition(".")[0] for name in operation.parameters}
        if operation.kind in _JOINING and holders and holders <= layers:
            # what a layer makes of a constant, as of a recurrence's first state of zeros, is constant too
            found |= holders
            waiting += [edge.source for edge in graph.feeding(at)]
        elif operation.parameters or not graph.feeding(at):
            found.add(operation.name)
        else:
            waiting += [edge.source for edge in graph.feeding(at)]
    return frozenset(found)


def is_unrolled(graph: Graph, places: list[int]) -> bool:
    """Whether calls of one module are steps of a recurrence.

    They are where the same layers feed all of them, and some layer is called again on what was made of its
    own earlier output and of an earlier one of these calls.

    Args:
        graph: of the network.
        places: of the module's calls.
    """
    sources = {names for place in places if (names := sources_of(graph, place))}
    if len(places) < 2 or len(sources) > 1:
        return False
    after_first = graph.below(places[0])
    by_name: dict[str, list[int]] = {}
    for place in sorted(after_first | set(places)):
        operation = graph.operations[place]
        if operation.parameters:
            by_name.setdefault(operation.name, []).append(place)
    return any(
        not after_first.isdisjoint(again)
        for calls in by_name.values()
        for place in calls
        if (again := graph.below(place) & set(calls))
    )
