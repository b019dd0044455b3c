"""Runs a function in a fresh process, where the memory allocator's settings can still be chosen.

glibc reads its environment when a process starts, so that one process cannot measure both settings.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Allocator:
    """A setting of the memory allocator, by the environment that makes it."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)


DEFAULT = Allocator("default allocator")
# Blocks of any size come from the heap, which grows by 1 GiB at a time and is never given back.
REUSED = Allocator(
    "memory reused",
    {
        "MALLOC_MMAP_THRESHOLD_": str(2**40),
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**30),
    },
)
ALLOCATORS = (DEFAULT, REUSED)


def in_child(allocator: Allocator, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """function(*args, **kwargs), computed in a child process under the allocator's setting.

    The function, its arguments and its result must pickle; so the function stands in an importable module,
    not in the one that was run with `python -m`. What it prints is seen; if it fails, so does this.
    """
    with tempfile.TemporaryDirectory() as folder:
        reply = Path(folder) / "reply"
        command = [sys.executable, "-m", "benchmarks.children", str(reply)]
        call = pickle.dumps((function, args, kwargs))
        subprocess.run(command, input=call, check=True, env=_environment(allocator))
        result: R = pickle.loads(reply.read_bytes())
    return result


def memory_is_reused() -> bool:
    """Whether this process runs under the setting `REUSED`."""
    return REUSED.environment.items() <= os.environ.items()


def _environment(allocator: Allocator) -> dict[str, str]:
    """This process's environment with the allocator's variables, and no others of their kind."""
    others = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**inherited, **allocator.environment}


def _main() -> None:
    function, args, kwargs = pickle.loads(sys.stdin.buffer.read())
    Path(sys.argv[1]).write_bytes(pickle.dumps(function(*args, **kwargs)))


if __name__ == "__main__":
    _main()
