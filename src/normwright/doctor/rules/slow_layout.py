"""Conversions between memory layouts around a normaliser."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.structure.graph import Graph
from normwright.doctor.subject import Subject


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser whose input or output is copied into another order."""
    seen: set[str] = set()
    for place, norm in enumerate(evidence.graph.operations):
        if norm.kind != "normaliser" or norm.name in seen or not norm.input_shape:
            continue
        what = _conversions(evidence.graph, place)
        if what:
            seen.add(norm.name)
            yield Fault(norm.name, "; ".join(what), where=norm.where)


def _conversions(graph: Graph, place: int) -> list[str]:
    norm = graph.operations[place]
    found = []
    into = graph.feeding(place)[:1]
    if into and into[0].copied:
        found.append(f"its input is copied into another order before it ({', '.join(into[0].passed)})")
    elif norm.input_layout == "strided" and into and into[0].passed:
        found.append(
            f"its input comes through {', '.join(into[0].passed)} and is not contiguous, so that it is "
            "copied into another order first"
        )
    if {norm.input_layout, norm.layout} == {"contiguous", "channels_last"}:
        found.append(f"it takes its input {norm.input_layout} and gives it {norm.layout}")
    for edge in graph.reading(place):
        reader = graph.operations[edge.target]
        if edge.copied:
            found.append(
                f"its output is copied into another order for {reader.name} ({', '.join(edge.passed)})"
            )
        elif reader.kind == "add":
            layouts = {other.layout for other in graph.feeding(edge.target)}
            if layouts >= {"contiguous", "channels_last"}:
                found.append(f"{reader.name} adds what is contiguous to what is channels_last")
    return found


def healthy() -> Subject:
    """Layer norm over the channels of what lies channels-last already."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), _OverChannels(4)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Subject(network, (torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last),))


def sick() -> Subject:
    """The same of what lies contiguous."""
    return Subject(nn.Sequential(nn.Conv2d(3, 4, 3), _OverChannels(4)), (torch.randn(4, 3, 8, 8),))


class _OverChannels(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


RULE = Rule(
    name="slow_layout",
    what="What a normaliser reads or gives is copied into another order in memory.",
    why="Each copy moves as much memory as the normaliser itself.",
    advice="Keep images in one layout throughout: network.to(memory_format=torch.channels_last), the same "
    "for the input, and no .contiguous() between.",
    references=("PyTorch tutorials, channels last memory format",),
    severity="note",
    check=check,
    healthy=healthy,
    sick=sick,
    static=True,
)
