"""What the caller of a conversion asks of every normaliser."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch.nn import Parameter

from normwright.errors import OptionError
from normwright.functional.arguments import is_whole


@dataclass
class Options:
    """What the caller asks of every normaliser.

    Args:
        to: one of `KINDS`.
        groups: the most groups; None for those of before, else 32.
        ghost_size: samples in a virtual batch; None for those of before, else 32.
        lossy: what `rules.TABLE` says is lost may be.
        calibrated: statistics will be taken from batches.
        training: the mode of what holds it, which a norm that was frozen takes; it has none of its own.
        ties: the new parameter of each that is shared, so that it stays shared.
    """

    to: str
    groups: int | None = None
    ghost_size: int | None = None
    lossy: bool = False
    calibrated: bool = False
    training: bool = False
    ties: dict[tuple[int, tuple[int, ...]], Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, given in (("groups", self.groups), ("ghost_size", self.ghost_size)):
            if given is not None and not (is_whole(given) and given >= 1):
                raise OptionError(f"{name}= must be at least 1, and whole, but is {given}: {_WHAT[name]}")


_WHAT = {
    "groups": "it is the most groups that may be made",
    "ghost_size": "it is how many samples a virtual batch has",
}
