"""What a monitor is asked for, however it comes to its network."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from normwright.doctor.diagnose import asked_for
from normwright.doctor.finding import Finding
from normwright.doctor.monitor.tensorboard import Writer
from normwright.errors import OptionError


@dataclass(frozen=True)
class Options:
    """The options of `Monitor`, checked before there is a network: a trainer begins late.

    Args:
        every, steps, rules, writer, on_finding: see `Monitor`.
    Raises:
        OptionError: one is out of range, or a rule is unknown.
    """

    every: int = 500
    steps: int = 4
    rules: Collection[str] | None = None
    writer: Writer | None = None
    on_finding: Callable[[Finding], None] | None = None

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("steps", self.steps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError(f"{name} must be a whole number of at least 1, but is {value!r}")
        if self.steps > self.every:
            raise OptionError(
                f"steps must be at most every, but {self.steps} of every {self.every} were asked for"
            )
        if self.rules is not None:
            # an iterator is read once, and the monitor comes later
            object.__setattr__(self, "rules", tuple(rule.name for rule in asked_for(self.rules)))
        lacking = [name for name in ("add_scalar", "add_text") if not hasattr(self.writer, name)]
        if self.writer is not None and lacking:
            raise OptionError(
                "writer must be a torch.utils.tensorboard.SummaryWriter, or have its add_scalar and "
                f"add_text, but is a {type(self.writer).__name__} without {' and '.join(lacking)}"
            )
        if self.on_finding is not None and not callable(self.on_finding):
            raise OptionError(f"on_finding must be a function of a finding, but is {self.on_finding!r}")
