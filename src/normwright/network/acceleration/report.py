"""What `accelerate` did to a network, as plain records."""

from __future__ import annotations

from dataclasses import dataclass

from normwright.network.table import aligned


@dataclass(frozen=True)
class NormaliserRecord:
    """One normaliser.

    Args:
        name: qualified, as `named_modules` has it first; "" for the network itself.
        kind: its class's name before.
        became: its class now, or what its own forward calls now, or None where it was left alone.
        fused: what is computed with it, once for each different place: "relu", "residual",
            "residual + relu". Empty where nothing is.
        reason: why it was left alone, or why nothing, or in some place nothing, is fused.
    """

    name: str
    kind: str
    became: str | None
    fused: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class BlockRecord:
    """A module whose own forward calls normalisers, or what ends in one.

    Args:
        name: qualified; "" for the network itself.
        kind: its class's name.
        fused: how many calls of normalisers have something fused in its forward.
        reason: why it could not be traced, or "". Its normalisers are drop-ins all the same.
    """

    name: str
    kind: str
    fused: int
    reason: str


@dataclass(frozen=True)
class Report:
    """Every normaliser of a network, and every block that was traced or could not be.

    Example:
        >>> record = NormaliserRecord("1", "BatchNorm2d", "normwright.nn.BatchNorm2d", ("relu",), "")
        >>> print(Report((record,), ()))
        1 of 1 normalisers became drop-ins, 1 with something fused.
        1  BatchNorm2d  relu
    """

    normalisers: tuple[NormaliserRecord, ...]
    blocks: tuple[BlockRecord, ...]

    def __str__(self) -> str:
        became = [record for record in self.normalisers if record.became is not None]
        with_something = sum(bool(record.fused) for record in became)
        lines = [
            f"{len(became)} of {len(self.normalisers)} normalisers became drop-ins, "
            f"{with_something} with something fused."
        ]
        lines += aligned(
            tuple(
                (record.name or "(network)", record.kind, ", ".join(record.fused), _because(record))
                for record in self.normalisers
            )
        )
        untraced = [block for block in self.blocks if block.reason]
        if untraced:
            lines += ["Not traced, and accelerated module by module:"]
            lines += aligned(
                tuple((block.name or "(network)", block.kind, block.reason) for block in untraced)
            )
        return "\n".join(lines)


def _because(record: NormaliserRecord) -> str:
    if not record.reason:
        return ""
    if record.became is None:
        return f"left alone: {record.reason}"
    return f"nothing more: {record.reason}" if record.fused else f"nothing fused: {record.reason}"
