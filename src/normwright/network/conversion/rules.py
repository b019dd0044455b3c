"""Which normaliser may become which: what stays, what is set aside for the way back, what is lost.

One table, and everything else reads it. What is *set aside* is remembered by the converted module and comes
back with its kind. What would be *lost* is refused, unless the caller says that it may be.
"""

from __future__ import annotations

from dataclasses import dataclass

from normwright.network.conversion.kinds import BATCH_KINDS

_PER_CHANNEL = ("group", "instance")


@dataclass(frozen=True)
class Rule:
    """One row.

    Args:
        sources: kinds that a module may be.
        targets: kinds that it may become.
        same: both compute the same in inference, so that there is nothing to calibrate.
        keeps: what stays; device, dtype, mode, requires_grad, hooks and attributes always do.
        aside: what the new kind has no use for, and what is remembered for the way back.
        loses: what cannot be kept, and is refused where there is any.
        needs: what must be known besides.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    same: bool = False
    keeps: str = ""
    aside: str = ""
    loses: str = ""
    needs: str = ""


_NUMBERS = "weight, bias, eps"
_STATISTICS = "statistics, momentum"
_SHAPE = "the input's shape"

TABLE = (
    Rule(
        BATCH_KINDS, BATCH_KINDS, same=True, keeps=f"{_NUMBERS}, {_STATISTICS}",
        needs="statistics, for frozen and renormalised; the number of axes, from synchronised",
    ),
    Rule(BATCH_KINDS, ("group", "instance", "layer"), keeps=_NUMBERS, aside=_STATISTICS),
    Rule(BATCH_KINDS, ("rms",), keeps="weight, eps", aside=_STATISTICS, loses="a bias", needs=_SHAPE),
    Rule(
        _PER_CHANNEL, BATCH_KINDS,
        keeps=_NUMBERS, loses="inference without statistics", needs="statistics: calibrate",
    ),
    Rule(_PER_CHANNEL, ("group", "instance", "layer"), keeps=_NUMBERS),
    Rule(_PER_CHANNEL, ("rms",), keeps="weight, eps", loses="a bias", needs=_SHAPE),
    Rule(
        ("layer", "rms"), BATCH_KINDS, keeps=_NUMBERS,
        loses="weight and bias that vary over space; inference without statistics",
        needs="statistics: calibrate",
    ),
    Rule(
        ("layer", "rms"), ("group", "instance"), keeps=_NUMBERS,
        loses="weight and bias that vary over space", needs=_SHAPE,
    ),
    Rule(("layer",), ("rms",), keeps="weight, eps", loses="a bias"),
    Rule(("rms",), ("layer",), keeps="weight, eps"),
)  # fmt: skip


def rule_for(source: str, target: str) -> Rule:
    """The row of two different kinds.

    Example:
        >>> rule_for("batch", "rms").loses
        'a bias'
    """
    return next(rule for rule in TABLE if source in rule.sources and target in rule.targets)
