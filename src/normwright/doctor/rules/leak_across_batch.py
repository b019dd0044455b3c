"""A sample's answer in inference depends on the samples beside it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding, Severity
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.treatments.recalibrated import recalibrated
from normwright.errors import OptionError


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser that does it, or one for the network where none does."""
    facts = evidence.company
    if not facts.outputs > facts.rounding:
        return
    of_outputs = (
        f"the same {facts.samples} samples in two halves give outputs that differ by {facts.outputs:.1%}"
    )
    untracked = {
        norm.name
        for norm in evidence.normalisers
        if norm.kind in ("batch", "synchronised") and not (norm.functional or norm.tracks)
    }
    for layer, apart in facts.layers:
        message = (
            f"in inference its output depends on the batch (by {apart:.1%} of its size), and {of_outputs}"
        )
        yield Fault(layer, message, apart, "company_gap", mechanical=layer in untracked)
    if not facts.layers:
        message = f"{of_outputs}; no normaliser does it"
        if facts.by_second_axis:
            message = (
                f"{of_outputs}, but halves along the second axis give the same: where the samples lie along "
                "that one, all is well"
            )
        severity: Severity | None = "note" if facts.by_second_axis else None
        yield Fault("", message, facts.outputs, "company_gap", severity, mechanical=False)


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Gives a batch norm running statistics of the subject's batches."""
    module = (
        subject.network.get_submodule(finding.layer) if finding.layer and ":" not in finding.layer else None
    )
    if not isinstance(module, _BatchNorm) or module.running_mean is not None:
        raise OptionError(
            f"{finding.layer or 'the network'} must be a batch norm without running statistics to be "
            "given some, "
            "but is not: what makes its output depend on the batch must be changed by hand"
        )
    like = next(iter([*module.parameters(), *subject.network.parameters()]), torch.empty(0))
    module.track_running_stats = True
    module.running_mean = torch.zeros(module.num_features, dtype=like.dtype, device=like.device)
    module.running_var = torch.ones_like(module.running_mean)
    module.num_batches_tracked = torch.zeros((), dtype=torch.long, device=like.device)
    return recalibrated(subject, finding.layer)


def healthy() -> Subject:
    """Batch norm with running statistics."""
    return _subject(tracks=True)


def sick() -> Subject:
    """Batch norm without, which takes the batch's moments in inference too."""
    return _subject(tracks=False)


def _subject(*, tracks: bool) -> Subject:
    norm = nn.BatchNorm1d(8, track_running_stats=tracks)
    network = nn.Sequential(nn.Linear(4, 8), norm, nn.ReLU(), nn.Linear(8, 2))
    return Subject(network, tuple(torch.randn(16, 4) for _ in range(2)))


RULE = Rule(
    name="leak_across_batch",
    what="In inference mode a sample's answer depends on the samples that share its batch.",
    why="The answer changes with the batch's size and order, a single sample cannot be answered, and a test "
    "set's samples inform one another.",
    advice="Keep running statistics (track_running_stats=True), pass training=self.training to functional "
    "calls, "
    "or find what else mixes samples.",
    references=("Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1", "Wu & Johnson 2021, arXiv:2105.07576"),
    severity="error",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
)
