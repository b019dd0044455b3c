"""The last batch of an epoch is too small for its moments."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.moments import MomentFacts
from normwright.doctor.statistics.small_batches import is_of_one, noise_at, over_batches, too_noisy
from normwright.doctor.subject import Subject


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for the network: the layer in which the last batch does most harm is named."""
    sizes = [size for size in evidence.sizes if size]  # an empty batch moves nothing
    if len(sizes) < 2:
        raise SkipError("the loader does not tell how many samples its last batch has")
    last, usual = sizes[-1], max(sizes)
    over = over_batches(evidence) if last < usual else ()
    found = [facts for facts in over if too_noisy(facts, _rows(facts, last, usual))]
    ones = [facts for facts in found if is_of_one(facts, _rows(facts, last, usual))]
    if ones:
        message = (
            f"the last batch has {last} of {usual} samples, which gives {ones[0].layer!r} one value per "
            "channel: "
            "PyTorch raises there, at the end of the epoch"
        )
        yield Fault("", message, float(last), "batch_samples", "error")
        return
    harmed = [facts for facts in found if not too_noisy(facts, _rows(facts, usual, usual))]
    if harmed:
        noises = {facts: noise_at(facts, _rows(facts, last, usual)) for facts in harmed}
        worst = max(noises, key=lambda facts: noises[facts])
        message = (
            f"the last batch has {last} of {usual} samples: means in {worst.layer!r} are off by "
            f"{noises[worst]:.2g} deviations in it, and move the running statistics last"
        )
        yield Fault("", message, float(last), "batch_samples")


def _rows(facts: MomentFacts, samples: int, usual: int) -> int:
    """Of how many samples a layer's moments are in a batch of so many; of a sequence each step is one."""
    if facts.samples <= usual:
        return min(samples, facts.samples)
    return max(1, facts.samples * samples // usual)


def healthy() -> Subject:
    """Batches of one size."""
    return _subject(32)


def sick() -> Subject:
    """Two samples are left for the last."""
    return _subject(2)


def _subject(last: int) -> Subject:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    sizes = (32, 32, 32, last)
    return Subject(network, tuple(torch.randn(size, 4) for size in sizes), sizes=sizes)


RULE = Rule(
    name="last_batch_ragged",
    what="The last batch of an epoch has far fewer samples than the others.",
    why="Its moments are noisy, and they are the last that the running statistics take in before the "
    "network is "
    "evaluated; with one value per channel training stops with an error.",
    advice="Pass drop_last=True to the training loader; shuffling gives the dropped samples their turn.",
    references=("pytorch/pytorch issue 4534", "Wu & Johnson 2021, arXiv:2105.07576"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)
