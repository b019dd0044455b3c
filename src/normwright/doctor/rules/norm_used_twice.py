"""One batch norm that is called in several places."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.structure.repeats import is_unrolled, sources_of
from normwright.doctor.subject import Subject


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each batch norm that averages over several places; a recurrence is another rule's."""
    for norm in evidence.normalisers:
        if not (norm.tracks and norm.over_batch) or norm.functional:
            continue
        places = evidence.graph.places(norm.name)
        if len(places) < 2 or is_unrolled(evidence.graph, places):
            continue
        sources = list(dict.fromkeys(sources_of(evidence.graph, place) for place in places))
        if len(sources) > 1:
            shown = " and ".join(" with ".join(sorted(names)) or "a constant" for names in sources[:3])
            what = f"on what {shown} give{'s' * (len(sources) == 1)}"
        else:
            what = f"each time on what {' with '.join(sorted(sources[0]))} gives, for other inputs"
        yield Fault(
            norm.name,
            f"it is called {len(places)} times in one forward, {what}: its running statistics are a mixture",
            len(places),
            severity=None if len(sources) > 1 else "note",
            where=norm.where,
        )


def healthy() -> Subject:
    """A norm for each place; an activation may well be shared, and so may a layer norm."""
    return _subject(_Two(nn.BatchNorm1d(4), nn.BatchNorm1d(4)))


def sick() -> Subject:
    """One norm for both."""
    norm = nn.BatchNorm1d(4)
    return _subject(_Two(norm, norm))


class _Two(nn.Module):
    def __init__(self, norm1: nn.Module, norm2: nn.Module) -> None:
        super().__init__()
        self.linear1 = nn.Linear(4, 4, bias=False)
        self.norm1 = norm1
        self.linear2 = nn.Linear(4, 4, bias=False)
        self.norm2 = norm2
        self.shared = nn.LayerNorm(4)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.activation(self.norm1(self.linear1(x))))
        y: Tensor = self.shared(self.activation(self.norm2(self.linear2(x))))
        return y


def _subject(network: nn.Module) -> Subject:
    return Subject(network, (torch.randn(8, 4),))


RULE = Rule(
    name="norm_used_twice",
    what="One batch norm is called in several places of the forward.",
    why="In training each call is normalised by its own moments, in inference both by one running mean and "
    "variance, which describe neither place.",
    advice="Give each place a batch norm of its own, or use a normaliser without running statistics.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1",
        "Ghiasi et al. 2019 (unshared batch norm in shared heads), arXiv:1904.07392",
    ),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    static=True,
)
