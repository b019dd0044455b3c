"""Whether a gap between running statistics and the population is a defect, or of the moving average."""

from __future__ import annotations

import math

from normwright.doctor.finding import Severity
from normwright.doctor.statistics.running import RunningFacts
from normwright.doctor.thresholds import THRESHOLDS

# A moving average is within 5 e-foldings of its initial values after that many times 1/momentum batches.
_FOLDINGS = 10

# Where PyTorch's momentum would have left less than this of the initial values, it is the momentum that is
# too small, and not the training too short: from 44 mini-batches on.
_USUAL_MOMENTUM, _LITTLE = 0.1, 0.01


def judged(facts: RunningFacts, threshold: float) -> tuple[Severity, str] | None:
    """How grave it is and what explains it, or None where the gap is within the threshold."""
    if not facts.gap > threshold:
        return None
    if facts.frozen:
        return "note", "they are frozen, and training goes by them too"
    if facts.untrained:
        return "note", "the layer was never trained, and its running statistics are still as built"
    if not facts.tracked:
        as_built = "they are 0 and 1 as built, though its weight or bias is not"
        return "warning", as_built if facts.remainder == 1 else ""
    if not facts.gap_beyond_start > threshold:
        share = f"{100 * facts.remainder:.2g}" if facts.remainder < 0.995 else "100"
        kept = f"{share}% of the initial values is still in them"
        return _of_a_start(facts, f"after {facts.tracked} mini-batches {kept}")
    if facts.momentum is not None and facts.tracked * facts.momentum < 1:
        words = f"they are of {facts.tracked} mini-batches, during which the weights moved fast"
        return _of_a_start(facts, words)
    if math.isnan(facts.lag):
        young = facts.momentum is not None and facts.tracked * facts.momentum < _FOLDINGS
        if young:
            return (
                "note",
                f"they are of {facts.tracked} mini-batches, and no optimiser shows how fast they move",
            )
    elif facts.gap_beyond_start <= THRESHOLDS["stale_lag"].value * facts.lag:
        return "note", f"the moments move so fast that a moving average is {facts.lag:.0%} behind"
    return "warning", ""


def _of_a_start(facts: RunningFacts, words: str) -> tuple[Severity, str]:
    """Of statistics that hardly left the start: the training has only begun, or the momentum is too small."""
    assert facts.tracked is not None
    if (1 - _USUAL_MOMENTUM) ** facts.tracked > _LITTLE or facts.remainder <= _LITTLE:
        return "note", words
    return "warning", f"{words}, as their momentum is {facts.momentum:g} (PyTorch's is {_USUAL_MOMENTUM:g})"


def in_words(facts: RunningFacts) -> str:
    """The gap, and what makes it."""
    shift = max(map(abs, facts.mean_shift))
    least, most = min(facts.variance_ratio), max(facts.variance_ratio)
    return (
        f"in inference its outputs are off by {facts.gap:.0%} of their size: running means by up to "
        f"{shift:.2g} deviations, running variances are {least:.2g} to {most:.2g} times the data's"
    )
