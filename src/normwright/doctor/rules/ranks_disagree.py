"""Processes that train together do not hold the same network."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Severity
from normwright.doctor.missing import known
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.small_batches import noise_at, over_batches
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS

# PyTorch's, where a normaliser did not run.
_MOMENTUM = 0.1


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for parameters, one for each setting, and one for each normaliser whose statistics differ."""
    facts = evidence.ranks
    yield from _values(facts.parameters, "parameters", facts.ranks, "error")
    yield from _values(facts.buffers, "buffers", facts.ranks, "warning")
    for setting in facts.settings:
        yield Fault(setting.partition(": ")[0], f"the ranks' settings differ: {setting}")
    momenta = _momenta(evidence)
    moments = {found.layer: found for found in over_batches(evidence)}
    for layer, distance in facts.statistics:
        found, momentum = moments.get(layer), momenta.get(layer, _MOMENTUM)
        noise = 1.0 if found is None else noise_at(found, found.samples)
        times = distance / (noise * math.sqrt(2 * momentum / (2 - momentum)))
        grave = times > THRESHOLDS["rank_distance"].value
        message = (
            f"the ranks' running means are up to {distance:.2g} deviations apart, {times:.2g} times what the "
            f"noise of their mini-batches explains"
        )
        yield Fault(layer, message, times, "rank_distance", "warning" if grave else "note")


def _values(names: tuple[str, ...], kind: str, ranks: int, severity: Severity) -> Iterator[Fault]:
    if names:
        some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        message = f"{len(names)} {kind} differ between the {ranks} ranks: {some}"
        yield Fault(names[0].rpartition(".")[0], message, float(len(names)), severity=severity)


def _momenta(evidence: Evidence) -> dict[str, float]:
    return {facts.layer: facts.momentum or _MOMENTUM for facts in known(lambda: evidence.running)}


def healthy() -> Subject:
    """The same weights in every rank of the default group, which must have been joined."""
    return _subject(seed=0)


def sick() -> Subject:
    """Weights drawn by each rank for itself."""
    return _subject(seed=torch.distributed.get_rank())


def _subject(seed: int) -> Subject:
    draw = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=draw)
    batches = tuple(torch.randn(16, 4) for _ in range(2))
    return Subject(network, batches, process_group=torch.distributed.group.WORLD)


RULE = Rule(
    name="ranks_disagree",
    what="Processes that train together hold different parameters, settings or running statistics.",
    why="Gradients are averaged over networks that are not one, and what is saved or evaluated depends on "
    "the "
    "rank that does it.",
    advice="Send rank 0's parameters and buffers to all before training (DistributedDataParallel does), "
    "build "
    "every rank alike, and synchronise batch norms or their statistics.",
    references=(
        "pytorch/pytorch documentation of DistributedDataParallel",
        "facebookresearch/fvcore issue 152",
    ),
    severity="error",
    check=check,
    healthy=healthy,
    sick=sick,
)
