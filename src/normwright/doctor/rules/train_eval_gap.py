"""The network computes something else in inference mode than in training mode."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Severity
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.modes import ModeFacts
from normwright.doctor.statistics.running import RunningFacts
from normwright.doctor.statistics.small_batches import noise_at, over_batches
from normwright.doctor.statistics.staleness import judged
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.treatments.recalibrated import recalibrated


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for the network, with the layers that make it so."""
    modes = evidence.modes
    by_loss = _by_loss(modes)
    if by_loss or modes.outputs > THRESHOLDS["mode_outputs"].value:
        severity, reason = _reason(evidence)
        message = f"{_in_words(modes)}; {reason}{_of_dropout(evidence)}"
        if by_loss:
            yield Fault("", message, _times(modes), "mode_loss", severity)
        else:
            yield Fault("", message, modes.outputs, "mode_outputs", severity)


def _by_loss(modes: ModeFacts) -> bool:
    """Whether the loss rises by more than the threshold, and by more than batches vary."""
    rise = modes.loss_inference - modes.loss_training
    error = 0.0 if math.isnan(modes.loss_error) else modes.loss_error
    most = (THRESHOLDS["mode_loss"].value - 1) * abs(modes.loss_training)
    # a loss that is all but nothing may well double
    return rise > most + 3 * error and modes.outputs > THRESHOLDS["mode_outputs"].value / 2


def _times(modes: ModeFacts) -> float:
    """The loss in inference over that in training; of one not above 0, 1 and its rise over its size."""
    if modes.loss_training == 0:
        return math.inf
    return 1 + (modes.loss_inference - modes.loss_training) / abs(modes.loss_training)


def _in_words(modes: ModeFacts) -> str:
    words = f"outputs in inference differ from those in training by {modes.outputs:.0%} of their deviation"
    if not math.isnan(modes.loss_training):
        words += f", the loss is {modes.loss_inference:.3g} instead of {modes.loss_training:.3g}"
    if not math.isnan(modes.accuracy_training):
        words += f", the accuracy {modes.accuracy_inference:.1%} instead of {modes.accuracy_training:.1%}"
    return words


def _reason(evidence: Evidence) -> tuple[Severity, str]:
    """What makes the gap."""
    unlike = _unlike_batches(evidence)
    if unlike:
        return "warning", unlike
    widest = max(evidence.running, key=lambda facts: facts.gap, default=None)
    if widest is not None and _calls(evidence, widest.layer) > 1 and _moved(widest):
        return "warning", (
            f"most of all in {widest.layer!r}, which is called {_calls(evidence, widest.layer)} times in one "
            "forward: its running statistics are a mixture"
        )
    verdicts = [(facts, judged(facts, THRESHOLDS["stale_gap"].value)) for facts in evidence.running]
    reasons = [(facts, *verdict) for facts, verdict in verdicts if verdict is not None]
    stale = [(facts, why) for facts, severity, why in reasons if severity == "warning"]
    if stale:
        worst, why = max(stale, key=lambda found: found[0].gap)
        words = f"running statistics are not the data's, most of all in {worst.layer!r}"
        return "warning", f"{words}: {why}" if why else words
    excused = [(facts, why) for facts, _, why in reasons]
    if excused:
        worst, why = max(excused, key=lambda found: found[0].gap)
        return "note", f"{worst.layer!r}: {why}"
    if widest is not None and widest.gap <= THRESHOLDS["stale_lag"].value * widest.lag:
        return "note", (
            f"many layers lag a little, {widest.layer!r} most, by {widest.gap:.0%} of its outputs' size: the "
            f"moments move so fast that a moving average is {widest.lag:.0%} behind"
        )
    # those without running statistics compute the same in both modes
    over = [facts for facts in over_batches(evidence) if not facts.in_inference]
    noisiest = max((f for f in over if not math.isnan(f.gap)), key=lambda facts: facts.gap, default=None)
    if noisiest is None:
        # moments cannot be seen in a class with a forward of its own
        own = [norm for norm in evidence.normalisers if norm.tracks and not norm.known]
        if own and all(norm.weight is None or norm.weight.least == norm.weight.greatest for norm in own):
            return "note", f"{own[0].name!r} and others like it seem untrained: their weights are as built"
        return "warning", "no batch normaliser that is known makes it so"
    return "warning", (
        f"most of all in {noisiest.layer!r}, whose own outputs differ by {noisiest.gap:.0%}: its moments of "
        f"{noisiest.elements} elements are off by {noise_at(noisiest, noisiest.samples):.2g} deviations"
    )


def _moved(facts: RunningFacts) -> bool:
    """Whether training moved its running statistics; where that is not counted, its weights tell."""
    return not (facts.frozen or facts.untrained or facts.tracked == 0)


def _calls(evidence: Evidence, layer: str) -> int:
    """How often one forward calls a normaliser."""
    return next((norm.calls for norm in evidence.normalisers if norm.name == layer), 1)


def _unlike_batches(evidence: Evidence) -> str:
    """Says where batches differ by more than as many samples drawn at random would, or ""."""
    for facts in over_batches(evidence):
        if _calls(evidence, facts.layer) > 1:
            continue  # its calls are given unlike values, however the batches are drawn
        whole = facts.noise[0] if facts.noise else None
        if whole is None or whole.samples != facts.samples or whole.batches < 4 or not facts.corrected > 0:
            continue
        times = whole.mean / facts.corrected
        if times > THRESHOLDS["unlike_batches"].value:
            return (
                f"batches are unlike: the means in {facts.layer!r} lie {times:.2g} times as far apart as "
                "those of samples drawn at random, as in data that is not shuffled"
            )
    return ""


def _of_dropout(evidence: Evidence) -> str:
    """Dropout's share of the first batch's loss, where there is one."""
    try:
        share = evidence.losses[0] - evidence.modes.first_loss
    except SkipError:
        return ""
    return f"; dropout, which stood still in both, adds {share:.2g} to the loss" if abs(share) > 1e-3 else ""


def healthy() -> Subject:
    """Statistics of the data."""
    subject = sick()
    return dataclasses.replace(subject, network=recalibrated(subject, "1")[0])


def sick() -> Subject:
    """Statistics of other data: without, the classes cannot be told apart."""
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).train()
    for _ in range(120):
        network(5 * torch.randn(64, 4) + 5)
    batches = []
    for _ in range(4):
        x = torch.randn(64, 4)
        batches.append((x, (x.sum(1) > 0).long()))
    return Subject(network, tuple(batches), nn.functional.cross_entropy)


RULE = Rule(
    name="train_eval_gap",
    what="With dropout standing still, the network's outputs in inference mode are not those of training "
    "mode.",
    why="What is trained is not what is evaluated: the loss that falls in training says little of the "
    "network "
    "in inference.",
    advice="Estimate the running statistics anew: normwright.recalibrate(network, batches); shuffle the "
    "data; "
    "see the findings of stale_statistics and batch_too_small.",
    references=(
        "Wu & Johnson 2021, arXiv:2105.07576",
        "pytorch/pytorch issue 4741",
        "pytorch/pytorch issue 5406",
    ),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=lambda subject, finding: recalibrated(subject, finding.layer),
)
