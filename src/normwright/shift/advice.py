"""What to do next, in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence

from normwright.shift.report import Feature, NetworkShift, Recovery, Verdict

# Of the fall of the AUC: a feature that costs this share of all that is shown stands out.
_MOST = 0.5


def advice(verdict: Verdict, features: Sequence[Feature], network: NetworkShift | None) -> str:
    """What follows from a verdict."""
    if verdict == "undecided":
        return "Next: collect more rows of the smaller set, and test again."
    steps = [*_about_features(features), *_about_network(network, verdict)]
    if verdict == "no shift":
        steps = [*steps] or [
            "nothing: these columns give no reason to distrust what was trained on the reference"
        ]
    if not steps:
        steps = [
            "look at a few rows of both sets side by side: no column gives the difference away by itself"
        ]
    return f"Next: {'; '.join(steps)}."


def _about_features(features: Sequence[Feature]) -> list[str]:
    if not features:
        return []
    first, total = features[0], sum(feature.fall for feature in features)
    if first.fall >= _MOST * total:
        return [
            f"find out why {first.name} changed ({first.reference} to {first.current}), then test without "
            "it: it tells most of the difference"
        ]
    names = ", ".join(feature.name for feature in features[:3])
    return [f"find out what {names} have in common: no single one tells most of the difference"]


def _about_network(network: NetworkShift | None, verdict: Verdict) -> list[str]:
    if network is None:
        return []
    steps = []
    if network.first_moved is not None:
        steps.append(f"inside the network the shift begins at {network.first_moved or '(network)'}")
    elif verdict == "no shift":
        return []
    return [*steps, *_about_recovery(network.recovery)]


def _about_recovery(recovery: Recovery) -> list[str]:
    if recovery.gain_interval is None or recovery.adapted is None or recovery.current is None:
        return []
    low, high = recovery.gain_interval
    change = f"accuracy {recovery.current:.1%} would become {recovery.adapted:.1%}"
    if low > 0:
        return [f"run adapt on the current set: {change}"]
    if high < 0:
        return [f"do not adapt, which would do harm: {change}; train on data like the current set"]
    if recovery.reference is not None and recovery.reference - recovery.current > high:
        return [f"adapt would not help ({change}): train on data like the current set"]
    return []
