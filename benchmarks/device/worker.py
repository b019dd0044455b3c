"""The child process of `benchmarks.device.isolated`: runs a folder's jobs, and leaves a file for each."""

from __future__ import annotations

import pickle
import sys
import traceback
from pathlib import Path

import torch

from benchmarks.device.isolated import Raised


def serve(folder: Path) -> int:
    """Runs the jobs of a folder; stops where the device no longer answers."""
    function, jobs = pickle.loads((folder / "call").read_bytes())
    for number, job in enumerate(jobs):
        try:
            result = function(job)
        except Exception as error:
            traceback.print_exc()
            result = Raised(f"{type(error).__name__}: {error}".splitlines()[0])
        unfinished = folder / "unfinished"
        unfinished.write_bytes(pickle.dumps(result))
        unfinished.rename(folder / str(number))
        if not _tidied():
            return 1
    return 0


def _tidied() -> bool:
    """Whether the device still answers; what the job held is freed."""
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception:
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
