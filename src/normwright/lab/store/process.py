"""Who holds a run: a process that can be told, later and from elsewhere, to be alive or dead."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SILENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Process:
    """A process of some host.

    Args:
        started: when it started, as "boot/clock tick"; empty where the system does not tell. Pids are
            given again, so a pid alone would take a stranger for the holder.
    """

    host: str
    pid: int
    started: str


@dataclass(frozen=True)
class Claim:
    """A run in the hands of a process; `heartbeat` is in seconds since the epoch, step is out of steps."""

    process: Process
    heartbeat: float
    step: int
    steps: int

    def is_alive(self) -> bool:
        """Whether the holder still works on it, as far as this host can tell."""
        watched = self.process.host == socket.gethostname() and sys.platform != "win32"
        if not watched:
            # On Windows os.kill(pid, 0) would send Ctrl-C, so there too silence is the only sign.
            return time.time() - self.heartbeat < SILENCE_SECONDS
        return _is_running(self.process)


def this_process() -> Process:
    """The calling process."""
    pid = os.getpid()
    return Process(host=socket.gethostname(), pid=pid, started=_started(pid) or "")


def _is_running(process: Process) -> bool:
    if process.started:
        return _started(process.pid) == process.started
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> str | None:
    """The boot and clock tick at which a live process of Linux started; None where there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): after the name in parentheses comes the third field, the state; the start is the 22nd.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":  # killed, and its parent has not looked yet
        return None
    return f"{boot}/{fields[19]}"
