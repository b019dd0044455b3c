"""What a page must say of the device and the software that it was measured with."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess

import torch

import normwright
from benchmarks.device.rivals import RIVALS, presence


def describe(device: str) -> dict[str, object]:
    """Date, device, driver, versions, the state of our backends, and which rivals are installed.

    Looks at the device, and so belongs in a child process of a parent that is to hold no memory there.
    """
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        **_device(torch.device(device)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "backends": "; ".join(_backends()),
        "rivals": "; ".join(f"{here.name}: {here.words}" for here in map(presence, RIVALS)),
    }


def _device(device: torch.device) -> dict[str, object]:
    if device.type != "cuda":
        return {"device": f"{device} (a rehearsal: no figure of it says anything of a GPU)"}
    about = torch.cuda.get_device_properties(device)
    return {
        "device": about.name,
        "multiprocessors": about.multi_processor_count,
        "memory, GB": round(about.total_memory / 1e9, 1),
        "second cache, MB": round(getattr(about, "L2_cache_size", 0) / 2**20, 1),
        "driver": _driver(),
        "cuda": torch.version.cuda or f"HIP {torch.version.hip}",
        "cudnn": torch.backends.cudnn.version(),
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _backends() -> list[str]:
    return [
        f"{backend.name} {'loaded' if backend.loaded else f'not loaded ({backend.reason})'}"
        for backend in normwright.backends()
    ]
