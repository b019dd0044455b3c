"""Training on a machine of a Ray cluster: the actor that trains there, and the run function that calls it.

Over Ray a worker process (`lab.worker`) does here what it does without: it claims a run, keeps its result,
and leaves when it is told to or its parent is gone. Only the training is elsewhere. So claims, heartbeats,
going on and errors are those of one machine, the SQLite file needs no disk that machines share, and a worker
that Ray does not let go is killed as any that does not leave; Ray ends the actor of a process that is gone.
(The other way was threads of the parent that call Ray. It takes one process for all runs, but Ctrl-C then
ends the command when Ray lets it.)
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from normwright import __version__
from normwright.errors import RunError
from normwright.lab.cluster import needs_of
from normwright.lab.data import Data
from normwright.lab.recipe import DataRecipe, Recipe
from normwright.lab.shipped import Shipment
from normwright.lab.training import load_once, train
from normwright.lab.work import REPORT_SECONDS, OnStep, Raised, Trained

# How long the actor may take to clear up: less than the `crew.GRACE_SECONDS` that the worker has.
CLEAR_SECONDS = 4.0

# So that the actor answers while it trains.
_METHODS = 3


class Lost(BaseException):
    """The actor is gone. Not an Exception: the worker dies of it, and its run is tried once more."""


class Trainer:
    """The actor: trains one run after another."""

    def __init__(self, shipment: Shipment) -> None:
        self._shipment = shipment
        self._folder = tempfile.TemporaryDirectory(prefix="normwright-", ignore_cleanup_errors=True)
        shipment.unpack(Path(self._folder.name))
        self._steps = (0, 0)

    def train(self, recipe: Recipe, data: Data, software: dict[str, str]) -> Trained | Raised:
        """The trained run, or what was raised in it.

        Args:
            software: the versions that results depend on, where the others are compared.
        """
        self._steps = (0, 0)
        try:
            _check_software(software)
            led = self._shipment.at(Path(self._folder.name), recipe)
            return train(led, data, on_step=self._on_step)
        except (Exception, SystemExit) as error:
            return Raised.of(error)

    def steps(self) -> tuple[int, int]:
        """Training steps done, and in all."""
        return self._steps

    def clear(self) -> None:
        """Removes the user's files, before the actor is killed."""
        self._folder.cleanup()

    def _on_step(self, step: int, steps: int) -> None:
        self._steps = (step, steps)


class OverRay:
    """The run function of a worker process: trains on the cluster that the environment's RAY_ADDRESS names.

    One actor trains all runs of the process, which name the same functions of the user's.
    """

    def __init__(self) -> None:
        self._actor: Any = None
        self._data: tuple[DataRecipe, Any] | None = None

    def __call__(self, recipe: Recipe, *, directory: Path | None, on_step: OnStep) -> Trained:
        """The trained run; `on_step` is called about five times a second with the steps last heard of.

        Raises:
            Raised: what was raised in the run.
            Lost: the actor died.
        """
        ray = _connected()
        on_step(0, 0)  # which leaves the run if it is to stop
        try:
            data = self._reference(ray, recipe.data, directory)
            if self._actor is None:
                self._actor = _made(ray, recipe)
            trained = self._answer(ray, self._actor.train.remote(recipe, data, _software()), on_step)
        except ray.exceptions.RayError as error:
            raise Lost(f"the actor of Ray is gone: {error}") from error
        except BaseException:  # stopped, or the run is another process's now: the actor is not to go on
            self.dismiss()
            raise
        if isinstance(trained, Raised):
            raise trained
        result: Trained = trained
        return result

    def dismiss(self) -> None:
        """Ends the actor, which loses nothing: whatever is kept is here."""
        actor, self._actor = self._actor, None
        if actor is not None:
            ray = importlib.import_module("ray")
            ray.wait([actor.clear.remote()], timeout=CLEAR_SECONDS)
            ray.kill(actor)

    def _reference(self, ray: Any, recipe: DataRecipe, directory: Path | None) -> Any:
        """Ray's reference to the data, which are read here and sent once for many runs."""
        if self._data is None or self._data[0] != recipe:
            self._data = recipe, ray.put(load_once(recipe, directory))
        return self._data[1]

    def _answer(self, ray: Any, task: Any, on_step: OnStep) -> Any:
        steps, asked = (0, 0), None
        while not ray.wait([task], timeout=REPORT_SECONDS)[0]:
            on_step(*steps)
            if asked is None:
                asked = self._actor.steps.remote()
            elif ray.wait([asked], timeout=0)[0]:
                steps, asked = ray.get(asked), None
        return ray.get(task)


train_over_ray = OverRay()


def _connected() -> Any:
    """Ray, connected by this process."""
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        return ray
    handler = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself
    stopped = False
    try:
        ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    except SystemExit:  # as Ray answers a SIGTERM meanwhile
        stopped = True
    finally:
        signal.signal(signal.SIGTERM, handler)
    if stopped:
        signal.raise_signal(signal.SIGTERM)
    atexit.register(_leave)  # after Ray's own, so that it comes before
    return ray


def _leave() -> None:
    """Ends this process without Ray, whose own taking leave imports much and waits for the cluster."""
    train_over_ray.dismiss()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # which is read where the journal does not say how the process ended


def _made(ray: Any, recipe: Recipe) -> Any:
    needs = needs_of(recipe.training)
    actor = ray.remote(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_concurrency=_METHODS)(Trainer)
    return actor.remote(Shipment.of([recipe]))


def _software() -> dict[str, str]:
    """Other versions give other numbers."""
    return {"normwright": __version__, "PyTorch": torch.__version__}


def _check_software(wanted: dict[str, str]) -> None:
    if wanted != _software():
        raise RunError(
            f"every machine must have {_in_words(wanted)}, as the one that asks, but this one has "
            f"{_in_words(_software())}: install the same here"
        )


def _in_words(software: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in software.items())
