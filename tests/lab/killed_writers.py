"""Forks writers that finish runs as fast as they can, and kills each at a random moment.

    python killed_writers.py FOLDER KILLS      prints the kills and the runs that were finished

Forked, so that PyTorch is imported once; a program of its own, because a test runner has threads.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from normwright.lab.store import Store

sys.path.insert(0, str(Path(__file__).parent))
from trainers import recipes, result

LENGTH = 20_000  # of a result: 160 kB, many pages, so that a kill in the middle of a write is likely


def write(folder: Path, first: int, pipe: int) -> None:
    with Store.open(folder) as store:
        for one in recipes(1_000, first):
            store.add([one])
            store.finish(one, result(one.training.seed, LENGTH))
            os.write(pipe, b".")


def kill_one(folder: Path, first: int, chance: random.Random) -> int:
    """Returns how many runs the writer said it had finished."""
    readable, writable = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(readable)
        write(folder, first, writable)
        os._exit(1)
    os.close(writable)
    said = len(os.read(readable, 1)) + sum(len(os.read(readable, 1)) for _ in range(chance.randrange(3)))
    end = time.perf_counter() + chance.random() * 0.01  # about the time of one write
    while time.perf_counter() < end:
        pass
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    while more := os.read(readable, 4096):
        said += len(more)
    os.close(readable)
    return said


def check(folder: Path, first: int, said: int) -> int:
    """Returns how many runs there are, one more than said at most: it may have died before it said so."""
    with Store.open(folder) as store:
        runs = {one.hash: one for one in recipes(said + 1, first)}
        finished = store.finished(list(runs))
        if not said <= len(finished) <= said + 1:
            raise AssertionError(f"{said} runs were finished, {len(finished)} are there")
        for run in finished:
            kept = store.result(run)
            expected = result(runs[run].training.seed, LENGTH)
            if kept is None or not np.array_equal(kept.loss, expected.loss):
                raise AssertionError(f"the result of {run} is not whole")
    return len(finished)


def main(folder: str, kills: str) -> None:
    chance = random.Random(0)
    finished = 0
    for kill in range(int(kills)):
        said = kill_one(Path(folder), kill * 1_000, chance)
        finished += check(Path(folder), kill * 1_000, said)
    sys.stdout.write(f"{kills} {finished}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
