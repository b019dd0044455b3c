"""The real command, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COMMAND = (sys.executable, "-m", "normwright")
SMALL = ("--epochs", "1", "--seeds", "1", "--depth", "1", "--width", "8", "--records", "3", "--jobs", "1")
PATIENCE = 120.0


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    status: int
    output: str
    errors: str


class CommandLine:
    """The command in one folder, where the user's own files lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1"}

    def run(self, *arguments: str, program: tuple[str, ...] = COMMAND) -> Outcome:
        """Runs the command to its end."""
        done = subprocess.run([*program, *arguments], **self._how, timeout=PATIENCE)
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **how: Any) -> subprocess.Popen[str]:
        """Starts the command in a group of processes of its own, as a terminal does."""
        return subprocess.Popen([*COMMAND, *arguments], **(self._how | how), start_new_session=True)

    def small(self, *arguments: str) -> Outcome:
        """Runs the smallest comparison that these arguments allow."""
        return self.run("compare", *SMALL, *arguments)

    @property
    def _how(self) -> dict[str, Any]:
        pipe = subprocess.PIPE
        return {
            "cwd": self.folder,
            "env": self.environment,
            "stdin": subprocess.DEVNULL,
            "stdout": pipe,
            "stderr": pipe,
            "text": True,
        }


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """The command in an empty folder."""
    return CommandLine(tmp_path)


@pytest.fixture(scope="module")
def shared_cli(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command in a folder that the tests of a module share."""
    return CommandLine(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Path, subprocess.Popen[str]], None]:
    """Waits until a file is there; fails where the process ends before, or after two minutes."""

    def wait(path: Path, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                output, errors = process.communicate()
                pytest.fail(f"{path.name} never came: {output}\n{errors}")
            time.sleep(0.005)

    return wait
