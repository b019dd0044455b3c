"""What to do next, in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence

from normwright.shift.report import Feature, NetworkShift, Recovery, Verdict

# Of what the AUC has above chance: a feature that costs this share of it tells most of the difference.
_MOST = 0.5


def advice(verdict: Verdict, features: Sequence[Feature], network: NetworkShift | None, *, auc: float) -> str:
    """What follows from a verdict.

    Args:
        auc: with all features.
    """
    if verdict == "undecided":
        return "Next: collect more rows of the smaller set, and test again."
    steps = [*_about_features(features, auc), *_about_network(network, verdict)]
    if verdict == "no shift":
        steps = [*steps] or [
            "nothing: these columns give no reason to distrust what was trained on the reference"
        ]
    if not steps:
        steps = [
            "look at a few rows of both sets side by side: no column alone is missed by "
            "more than chance explains"
        ]
    return f"Next: {'; '.join(steps)}."


def _about_features(features: Sequence[Feature], auc: float) -> list[str]:
    if not features:
        return []
    first = features[0]
    changed = f"find out why {first.name} changed ({first.reference} to {first.current})"
    if first.fall >= _MOST * (auc - 0.5):
        return [f"{changed}, then test without it: it tells most of the difference"]
    if len(features) == 1:
        return [f"{changed}, and look at the other columns, too: without it they still tell most"]
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
