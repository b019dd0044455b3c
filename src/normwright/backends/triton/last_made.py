"""What was made last, for the next call with the same: so many at the most, and so many bytes.

What is read again without being asked for, as by a CUDA graph, is held for good.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class LastMade(Generic[Made]):
    """Keeps what was asked for last, and lets go of the rest; the very last is kept whatever its size.

    Args:
        most: how many it keeps.
        size: how many bytes one of them has.
        most_bytes: how many bytes they have between them.
    """

    def __init__(self, most: int, size: Callable[[Made], int], most_bytes: int) -> None:
        self._most, self._size, self._most_bytes = most, size, most_bytes
        self._made: OrderedDict[Hashable, Made] = OrderedDict()
        self._held: dict[Hashable, Made] = {}
        self._lock = threading.Lock()  # autograd asks from threads of its own

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What has the key, made if it is not kept."""
        known = self._find(key)
        if known is not None:
            return known
        made = make()
        with self._lock:
            self._made[key] = made
            self._made.move_to_end(key)
            while len(self._made) > 1 and self._is_full():
                self._made.popitem(last=False)
        return made

    def hold(self, key: Hashable) -> Made | None:
        """What has the key, from now on kept for good, beside what is kept else; None if it is not kept."""
        known = self._find(key)
        if known is not None:
            with self._lock:
                self._held[key] = known
                self._made.pop(key, None)
        return known

    def _find(self, key: Hashable) -> Made | None:
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
            return self._held.get(key)

    def _is_full(self) -> bool:
        return len(self._made) > self._most or sum(map(self._size, self._made.values())) > self._most_bytes
