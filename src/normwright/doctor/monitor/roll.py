"""Whether all processes that a network's parameters are spread over watch it, as they must to read norms."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import torch
from torch import nn

from normwright.errors import OptionError
from normwright.functional.sharded import is_sharded

# Of the rolls that are open here: those of one network have one number where all processes open the same.
_numbers: set[int] = set()


class Roll:
    """Counts the processes that watch, past any collective: one that does not watch would not answer.

    Args:
        network: whose parameters may be spread (FSDP, tensor parallelism); of any other nothing is asked.
    """

    def __init__(self, network: nn.Module) -> None:
        meshes: Any = (p.device_mesh for p in network.parameters() if is_sharded(p))  # type: ignore[attr-defined]
        mesh = next(meshes, None)
        self._ranks: list[int] = [] if mesh is None else sorted(mesh.mesh.flatten().tolist())
        if self._ranks:
            self._store: Any = torch.distributed.distributed_c10d._get_default_store()
            self._number = next(number for number in itertools.count() if number not in _numbers)
            _numbers.add(self._number)
            self._key = f"normwright monitor {self._number} of {self._ranks}"
            self._store.add(self._key, 1)

    def check(self) -> None:
        """Raises OptionError where some do not watch."""
        came = self._store.add(self._key, 0) if self._ranks else 0
        if came < len(self._ranks):
            raise OptionError(
                "a network whose parameters are spread over processes must be watched in each of them, since "
                f"the norm of a gradient is that of all its parts, but {came} of {len(self._ranks)} watch: "
                "make the Monitor in every process, and pass on_finding= and writer= where it is to be told"
            )

    def close(self) -> None:
        """Leaves it, so that the others do not wait, and that a second try counts from none."""
        if self._ranks:
            self._ranks = []
            _numbers.discard(self._number)
            with contextlib.suppress(RuntimeError):  # where the processes have parted, none asks
                self._store.add(self._key, -1)
