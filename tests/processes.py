"""Starts the processes of a distributed test, real ones, and joins them (`process_group`)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

WORLD = 2

# Nor is it an error here what Dynamo says of Python 3.13.0 itself; pyproject.toml has the same.
STRICT = ("-W", "error", "-W", "ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")


def run_ranks(script: Path, folder: Path, *arguments: str, world: int = WORLD) -> list[Any]:
    """Runs `python script RANK FOLDER …` for every rank; returns what each saved in FOLDER/RANK.pt."""
    # gloo asks for the host's name, which not every machine can resolve
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    # what is installed beside a GPU was not chosen for this project, nor are its warnings ours
    strict = STRICT if os.environ.get("NORMWRIGHT_TEST_DEVICE", "cpu") == "cpu" else ()
    command = [sys.executable, *strict, script]
    processes = [
        subprocess.Popen([*command, str(rank), folder, *arguments], env=environment) for rank in range(world)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0] * world
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


@contextlib.contextmanager
def process_group(rank: int, folder: Path, backend: str = "gloo", world: int = WORLD) -> Iterator[None]:
    """In one of the processes: all of them, joined. The process ends with it."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        backend,
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=120),
        device_id=torch.device("cuda", 0) if backend == "nccl" else None,
    )
    yield
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    # The interpreter is not taken down: a thread of gloo's that lets go of its last tensor meanwhile asks for
    # the interpreter's lock, and the process aborts (pytorch/pytorch#179291). What is wanted has been saved.
    sys.stdout.flush()
    os._exit(0)
