"""Finds what is wrong with a network's normalisation."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from normwright.doctor.diagnosis import Diagnosis
from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import SEVERITIES, Finding
from normwright.doctor.gathering import OnStage, gather, gather_when_read, quiet
from normwright.doctor.random_states import random_states_kept
from normwright.doctor.rule import Outcome, Rule, all_rules, judge
from normwright.doctor.statistics.ranks import waits_for_others
from normwright.doctor.subject import Loss, PaddingFn, Subject, subject_of
from normwright.doctor.treatments.treatment import treat
from normwright.errors import OptionError, unknown_name
from normwright.network.batch_call import ForwardFn
from normwright.network.names import names_in
from normwright.statistics.ranks import check_group, telling_others


@torch.inference_mode(False)  # else the copy's tensors would be that mode's, and could not be trained
def diagnose(
    network: nn.Module,
    batches: Iterable[Any],
    loss: Loss | None = None,
    *,
    optimiser: Optimizer | None = None,
    steps: int = 8,
    rules: Collection[str] | None = None,
    forward_fn: ForwardFn | None = None,
    accumulation: int = 1,
    padding: PaddingFn | None = None,
    averaged: bool = False,
    process_group: ProcessGroup | None = None,
) -> Diagnosis:
    """Examines a network on a few batches, and says what is wrong with its normalisation.

    A copy is trained for `steps` mini-batches, and run in inference mode; the network, the optimiser and
    every random state stay as they were, to the bit. A rule without the evidence it needs is skipped, and
    says why.

    Args:
        network: as it is trained, in either mode.
        batches: as `recalibrate` takes them; the target is the second part of a pair, or the `labels` of a
            mapping.
        loss: called as loss(outputs, target) -> scalar; None for a network that returns its own as `.loss`.
        optimiser: the one in use, for the rules about updates and parameter groups.
        steps: how many batches are read.
        rules: names of those to ask; None for all.
        forward_fn: called as forward_fn(network, batch) in place of network(input).
        accumulation: mini-batches for each step of the optimiser.
        padding: called as padding(batch) -> (N, L) bool, true where a position is padding.
        averaged: the network holds averaged weights (EMA, SWA).
        process_group: the ranks that train together, all of which must call this, and fix() of a finding.
            Needed where batch norm is synchronised over them; each has then as many batches.
    Returns:
        The findings, the gravest first; `finding.fix()` makes the change on a copy where it is mechanical.
    Raises:
        OptionError: an unknown rule, an option out of range, a network that cannot be copied or looked into
            (of torch.jit, lazy, or on the device meta), or a loss that is not a scalar.
        DataError: no batch came.
        RankError: another process failed, died, or has fewer batches where batch norm is synchronised.
        Whatever the loader, the network or the loss raises.
    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
        >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=1e-4)
        >>> batches = [(torch.randn(16, 4), torch.randint(8, (16,)))]
        >>> found = diagnose(network, batches, nn.functional.cross_entropy, optimiser=optimiser)
        >>> "weight_decay_on_norm" in {finding.rule for finding in found.findings}
        True
    """
    check_group(process_group)
    with random_states_kept(), telling_others(process_group):
        asked = asked_for(rules)
        subject = subject_of(
            network,
            batches,
            most=steps,
            loss=loss,
            optimiser=optimiser,
            forward_fn=forward_fn,
            accumulation=accumulation,
            padding=padding,
            averaged=averaged,
            process_group=process_group,
        )
    if process_group is None and waits_for_others(subject.network):
        raise OptionError(
            "process_group must be given where batch norm is synchronised over several processes, each of "
            "which waits for the others, but is None: pass torch.distributed.group.WORLD in each"
        )
    return examine(subject, asked)


@torch.inference_mode(False)  # of a finding's fix, too
def examine(subject: Subject, rules: Collection[Rule], on_stage: OnStage = quiet) -> Diagnosis:
    """What rules find in a subject; where not all are asked, only what these read is gathered.

    Args:
        subject: who is examined.
        rules: that are asked.
        on_stage: told what is done next.
    """
    whole = len(rules) == len(all_rules())
    evidence = gather(subject, on_stage) if whole else gather_when_read(subject, on_stage)
    outcomes, findings = judged_by(rules, evidence)
    return Diagnosis(
        evidence.network,
        tuple(treat(finding, subject, functools.partial(_again, finding.rule)) for finding in findings),
        outcomes,
        evidence.as_read(),
    )


def judged_by(rules: Collection[Rule], evidence: Evidence) -> tuple[tuple[Outcome, ...], tuple[Finding, ...]]:
    """What each rule came to, and what all of them found, the gravest first."""
    judged = [judge(rule, evidence) for rule in rules]
    findings = [finding for _, found in judged for finding in found]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return tuple(outcome for outcome, _ in judged), tuple(findings)


def _again(rule: str, subject: Subject) -> Diagnosis:
    return examine(subject, [all_rules()[rule]])


def asked_for(rules: Collection[str] | None) -> list[Rule]:
    """The rules of these names, or all.

    Raises:
        OptionError: an unknown name.
    """
    known = all_rules()
    rules = None if rules is None else names_in("rules=", rules)
    for name in rules or ():
        if name not in known:
            raise unknown_name("rule", name, known)
    return [rule for name, rule in known.items() if rules is None or name in rules]
