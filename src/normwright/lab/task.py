"""What a worker process is told. Apart from `lab.worker`, which only ever runs as a program of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Task:
    """What a worker is told.

    Args:
        folder: of the experiment.
        runs: hashes of the recipes to work on.
        run: the run function, as `package.module:function`.
        directory: where data are looked for; None for the usual places.
        parent: pid of the process that started the worker; without it, the worker leaves.
        path: the parent's `sys.path`, so that a user's modules are found here as there.
    """

    folder: str
    runs: tuple[str, ...]
    run: str
    directory: str | None
    parent: int
    path: tuple[str, ...]

    def to_json(self) -> str:
        """The task as JSON."""
        return json.dumps(asdict(self))
