"""Workers that wait for room in a cluster: the user is told, who else sees nothing happen."""

from __future__ import annotations

import time
from collections.abc import Callable

from normwright.lab.cluster import in_words, needs_of
from normwright.lab.ray_crew import RayCrew

# An idle machine takes less to start a process that imports PyTorch.
WAIT_SECONDS = 20.0


class Waiting:
    """Tells the user, once, that none of a crew's workers has begun: the machines may be taken.

    Args:
        on_notice: called with a sentence.
    """

    def __init__(self, crew: RayCrew, on_notice: Callable[[str], None]) -> None:
        self._crew, self._on_notice = crew, on_notice
        self._since: float | None = None
        self._is_told = False

    def look(self) -> None:
        """Asks the crew; called again and again."""
        if not self._crew.waits:
            self._since, self._is_told = None, False
            return
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= WAIT_SECONDS and not self._is_told:
            self._is_told = True
            needs = in_words(needs_of(next(iter(self._crew.recipes.values())).training))
            self._on_notice(
                f"no worker has begun for {WAIT_SECONDS:g} s: each waits until a machine of the Ray cluster "
                f"has {needs} free (`ray status` says what is taken) and has started Python there"
            )
