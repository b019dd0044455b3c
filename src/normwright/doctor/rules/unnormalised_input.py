"""The network is fed values that are far from mean 0 and deviation 1, or features of very different size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.training.inputs import InputFacts

# Below this share of its mean a feature's deviation is what sums in float64 make of a constant.
_ROUNDING = 2.0**-40

# With fewer elements that are not 0 it is these that have a scale: one-hot vectors, adjacency, word counts.
_SPARSE = 0.5


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each input and each way in which it is off."""
    layers = evidence.activations
    if layers and layers[0].of_normaliser:
        return
    normalised_next = len(layers) > 1 and layers[1].of_normaliser
    for given in evidence.inputs:
        if "mask" not in given.name:
            for fault in _faults(given):
                yield Fault(
                    "", fault.message + (", though the first layer is normalised" if normalised_next else ""),
                    fault.value, fault.threshold, "note" if normalised_next else None,
                )  # fmt: skip


def _faults(given: InputFacts) -> Iterator[Fault]:
    means, deviations = np.array(given.means), np.array(given.deviations)
    varies = deviations > _ROUNDING * np.abs(means)
    means, deviations = means[varies], deviations[varies]
    if not len(deviations):
        return
    # Of all features together: each mean's distance from 0 against the deviations within features.
    within = float(np.sqrt(np.mean(deviations**2)))
    offset = float(np.sqrt(np.mean(means**2))) / within
    if offset > THRESHOLDS["input_offset"].value:
        yield Fault(
            "", f"input {given.name}: features lie {offset:.3g} of their deviations from 0 on average",
            offset, "input_offset",
        )  # fmt: skip
    size, which = float(np.sqrt(np.mean(means**2 + deviations**2))), "values"
    if 0 < given.filled < _SPARSE:
        size, which = size / given.filled**0.5, "values other than 0"
    distance = max(size, 1 / size)
    if distance > THRESHOLDS["input_scale"].value:
        yield Fault(
            "", f"input {given.name}: its {which} have a root mean square of {size:.3g}",
            distance, "input_scale",
        )  # fmt: skip
    low, high = np.percentile(deviations, (10, 90))
    if high / low > THRESHOLDS["feature_scales"].value:
        yield Fault(
            "", f"input {given.name}: deviations of its features go from {low:.3g} to {high:.3g} (10th and "
            "90th percentile)", float(high / low), "feature_scales",
        )  # fmt: skip


def healthy() -> Subject:
    """Standardised features."""
    return _subject(torch.randn(32, 8))


def sick() -> Subject:
    """Grey values from 0 to 255 beside shares from 0 to 1."""
    return _subject(torch.rand(32, 8) * torch.tensor([255.0] * 4 + [1.0] * 4))


def _subject(x: torch.Tensor) -> Subject:
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    return Subject(network, ((x, torch.randint(2, (len(x),))),), nn.functional.cross_entropy)


RULE = Rule(
    name="unnormalised_input",
    what="The network's inputs are far from mean 0 and deviation 1, or its features differ much in size.",
    why="The gradient of the first layer's weights is the inputs' times what comes back: a common offset or "
    "one large feature decides all of it, and one learning rate cannot suit all weights.",
    advice="Subtract each feature's mean over the training set and divide by its deviation, or begin the "
    "network with a batch norm.",
    references=("LeCun et al. 1998, Efficient BackProp, section 4.3",),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)
