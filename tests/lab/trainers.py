"""Run functions for the tests of jobs: real ones, imported by real processes, that train nothing.

Each notes `seed pid` in the file `begun` of `directory`, and in `ended` when it returns.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from normwright.lab.recipe import DataRecipe, NetworkRecipe, Recipe, TrainingRecipe
from normwright.lab.run import LayerTrace, RunResult

OnStep = Callable[[int, int], None]
STEPS = 8


@dataclass(frozen=True)
class Trained:
    result: RunResult
    weights: dict[str, torch.Tensor]


def recipes(count: int, first: int = 0) -> list[Recipe]:
    return [
        Recipe(
            network=NetworkRecipe(name="lenet"),
            data=DataRecipe(name="digits"),
            training=TrainingRecipe(norm="batch", batch_size=32, lr=0.1, seed=seed),
        )
        for seed in range(first, first + count)
    ]


def result(seed: int = 0, steps: int = STEPS) -> RunResult:
    random = np.random.default_rng(seed)
    trace = LayerTrace(
        steps=np.array([0, 4]),
        places=("norm1", "norm2"),
        input=random.random((2, 2, 3)),
        output=random.random((2, 2, 3), dtype=np.float32),
        layers=("linear",),
        gradient=random.random((2, 1)),
        update=random.random((2, 1)),
    )
    return RunResult(
        diverged=False,
        loss=random.random(steps),
        evaluation_steps=np.array([4, 8]),
        validation=random.random(2),
        milliseconds=1.5,
        peak_bytes=1000,
        places=2,
        left_out=0,
        trace=trace,
    )


def _note(directory: Path, file: str, recipe: Recipe) -> None:
    handle = os.open(directory / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{recipe.training.seed} {os.getpid()}\n".encode())  # one write: lines do not mix
    os.close(handle)


def noted(directory: Path, file: str) -> list[tuple[int, int]]:
    """(seed, pid) of each run that began or ended, in order."""
    if not (directory / file).exists():
        return []
    return [(int(a), int(b)) for a, b in map(str.split, (directory / file).read_text().splitlines())]


def steps(recipe: Recipe, *, directory: Path, on_step: OnStep) -> Trained:
    """Does its steps."""
    _note(directory, "begun", recipe)
    for step in range(STEPS):
        on_step(step + 1, STEPS)
    _note(directory, "ended", recipe)
    return Trained(result(recipe.training.seed), {"weight": torch.full((2,), float(recipe.training.seed))})


def waits(recipe: Recipe, *, directory: Path, on_step: OnStep) -> Trained:
    """Steps on the spot in its third run and later, until the file `open` is there."""
    while len(noted(directory, "ended")) >= 2 and not (directory / "open").exists():
        if not any(seed == recipe.training.seed for seed, _ in noted(directory, "waiting")):
            _note(directory, "waiting", recipe)
        on_step(1, STEPS)
        time.sleep(0.001)
    return steps(recipe, directory=directory, on_step=on_step)


def meets(recipe: Recipe, *, directory: Path, on_step: OnStep) -> Trained:
    """Waits until three processes have begun a run: with two workers each, both parents have a part."""
    _note(directory, "met", recipe)
    while len({pid for _, pid in noted(directory, "met")}) < 3:
        on_step(1, STEPS)
        time.sleep(0.001)
    return steps(recipe, directory=directory, on_step=on_step)


def deaf(recipe: Recipe, *, directory: Path, on_step: OnStep) -> Trained:
    """Hangs in its first step: takes no step and hears nothing."""
    _note(directory, "waiting", recipe)
    while not (directory / "open").exists():
        time.sleep(0.001)
    return steps(recipe, directory=directory, on_step=on_step)


def raises(recipe: Recipe, *, directory: Path, on_step: OnStep) -> Trained:
    """Raises in the third run; the others wait in their first step until they are stopped."""
    if recipe.training.seed == 2:
        raise ValueError("no such layer")
    return waits(recipe, directory=directory, on_step=on_step)


def leaves(recipe: Recipe, *, directory: Path, on_step: OnStep) -> Trained:
    sys.exit("had enough")


def dies_once(recipe: Recipe, *, directory: Path, on_step: OnStep) -> Trained:
    if recipe.training.seed == 1 and not noted(directory, "died"):
        _note(directory, "died", recipe)
        os.kill(os.getpid(), signal.SIGKILL)
    return steps(recipe, directory=directory, on_step=on_step)


def dies(recipe: Recipe, *, directory: Path, on_step: OnStep) -> Trained:
    if recipe.training.seed == 1:
        _note(directory, "died", recipe)
        os.write(1, b"the last words\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return steps(recipe, directory=directory, on_step=on_step)


def exits(recipe: Recipe, *, directory: Path, on_step: OnStep) -> Trained:
    os._exit(0)


def parent(folder: str, trainer: str, jobs: str, count: str, directory: str) -> None:
    """A whole comparison, as a program: `python trainers.py FOLDER TRAINER JOBS COUNT DIRECTORY`."""
    from normwright.lab.jobs import run_all

    run_all(
        Path(folder),
        recipes(int(count)),
        jobs=int(jobs),
        run=f"trainers:{trainer}",
        directory=Path(directory),
    )


if __name__ == "__main__":
    parent(*sys.argv[1:])
