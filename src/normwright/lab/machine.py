"""The machine that an experiment runs on: in words, and how many runs it takes at a time."""

from __future__ import annotations

import os
import platform

import torch


def machine_in_words(device: str) -> str:
    """Device, versions and core count, in one line."""
    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return (
        f"{device} ({kind}, {os.cpu_count()} cores), Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}"
    )


def default_jobs(device: str, runs: int) -> int:
    """Processes that train at once: one per core on the CPU, one on a GPU, no more than there are runs."""
    if torch.device(device).type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, runs))
