"""Candidates of launch settings: the table's own, and what lies one or two moves away from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any


@dataclass(frozen=True)
class Move:
    """Fields that are multiplied, and fields that are set."""

    times: Mapping[str, float] = field(default_factory=dict)
    put: Mapping[str, object] = field(default_factory=dict)

    @property
    def fields(self) -> frozenset[str]:
        """What it changes."""
        return frozenset(self.times) | frozenset(self.put)

    def of(self, settings: Any) -> Any | None:
        """The settings after the move; None where a field would not be a whole number, or nothing changes."""
        changes: dict[str, object] = dict(self.put)
        for name, factor in self.times.items():
            value = getattr(settings, name) * factor
            if value != int(value):
                return None
            changes[name] = int(value)
        moved = dataclasses.replace(settings, **changes)
        return None if moved == settings else moved


def _scaled(*fields: str) -> tuple[Move, Move]:
    return tuple(Move(dict.fromkeys(fields, factor)) for factor in (0.5, 2))  # type: ignore[return-value]


def _put(name: str, *values: object) -> tuple[Move, ...]:
    return tuple(Move(put={name: value}) for value in values)


# By the name of the settings' class.
MOVES: dict[str, tuple[Move, ...]] = {
    "Tile": (*_scaled("rows"), *_scaled("warps"), *_scaled("programs")),
    "ChannelsTile": (
        *(*_scaled("rows"), *_scaled("warps"), *_scaled("ranges"), *_scaled("channels", "block")),
        *(*_scaled("block"), *_put("stages", 1, 2, 4)),
    ),
    "GroupTile": (*_scaled("groups"), *_scaled("warps")),
    "GroupPieces": (
        *(*_scaled("block"), *_scaled("steps"), *_scaled("warps"), *_scaled("wide")),
        *_put("whole", False, True),
    ),
    "GroupColumns": (
        *(*_scaled("rows"), *_scaled("steps"), *_scaled("warps"), *_scaled("width")),
        *_put("whole", False, True),
    ),
}


def candidates(settings: Any) -> list[Any]:
    """The settings, then all that one move makes of them, then all that two make of different fields.

    Example:
        >>> @dataclass(frozen=True)
        ... class GroupTile:
        ...     groups: int
        ...     warps: int
        >>> [(tile.groups, tile.warps) for tile in candidates(GroupTile(1, 4))]
        [(1, 4), (2, 4), (1, 2), (1, 8), (2, 2), (2, 8)]
    """
    return list(dict.fromkeys([settings, *_moved(settings)]))


def _moved(settings: Any) -> Iterator[Any]:
    moves = MOVES.get(type(settings).__name__, ())
    for move in moves:
        if (moved := move.of(settings)) is not None:
            yield moved
    for first, second in combinations(moves, 2):
        if first.fields & second.fields:
            continue
        once = first.of(settings)
        twice = None if once is None else second.of(once)
        if twice is not None:
            yield twice
