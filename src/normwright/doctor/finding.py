"""What a rule found, and how severe it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from normwright.errors import OptionError

Severity = Literal["error", "warning", "note"]
#: The gravest first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One defect in one place.

    Args:
        rule: that found it.
        severity: one of `SEVERITIES`.
        layer: qualified name of the module, parameter or call, or "" for the network as a whole.
        message: one sentence with the figure.
        value: the figure, or None where the defect is one of structure.
        threshold: what it is held against, or None.
        because: why that threshold, or "".
        advice: what to do, in one sentence.
        where: file and line of the code, "path.py:12", or "".
        mechanical: where its rule has a treatment, that can mend this one.
    """

    rule: str
    severity: Severity
    layer: str
    message: str
    value: float | None = None
    threshold: float | None = None
    because: str = ""
    advice: str = ""
    where: str = ""
    mechanical: bool = field(default=True, repr=False)
    treatment: Callable[[Finding], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def treatable(self) -> bool:
        """Whether `fix` can make the change."""
        return self.treatment is not None

    def fix(self) -> Any:
        """Makes the change on a copy of the network and its optimiser, and examines it again.

        Returns:
            A `Treatment`: the copies, and the evidence before and after.
        Raises:
            OptionError: the fix is not mechanical.
        """
        if self.treatment is None:
            raise OptionError(f"{self.rule} must be fixed by hand. {self.advice}")
        return self.treatment(self)

    def record(self) -> dict[str, Any]:
        """The finding as plain values, as for JSON."""
        values = {part.name: getattr(self, part.name) for part in dataclasses.fields(self)}
        del values["treatment"], values["mechanical"]
        return {**values, "treatable": self.treatable}
