"""Training on a machine of a Ray cluster: the actor that trains there, and the hold on it here."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from normwright import __version__
from normwright.errors import RunError
from normwright.lab.cluster import Cluster, needs_of
from normwright.lab.crew import GRACE_SECONDS
from normwright.lab.recipe import DataRecipe, Recipe, TrainingRecipe
from normwright.lab.shipped import Shipment
from normwright.lab.training import train
from normwright.lab.work import REPORT_SECONDS, OnStep, Raised, Trained

# Ray runs the methods of a group in a thread of their own: the actor answers while it trains.
_WATCH = "watch"


class Lost(BaseException):
    """The actor is gone. Not an Exception: its run is given back, and is not at fault.

    Args:
        how: as in "died".
        log: what Ray says of it.
    """

    def __init__(self, how: str, log: str) -> None:
        super().__init__(how, log)
        self.how, self.log = how, log


class _Stopped(BaseException):
    """The training is to end. Not an Exception, so that no user's `except Exception` holds it up."""


class Trainer:
    """The actor: trains one run after another."""

    def __init__(self, shipment: Shipment) -> None:
        self._shipment = shipment
        self._folder = tempfile.TemporaryDirectory(prefix="normwright-")
        shipment.unpack(Path(self._folder.name))
        self._data: dict[DataRecipe, Any] = {}
        self._progress = (0, 0)
        self._stopping = False

    def introduce(self) -> tuple[str, dict[str, str]]:
        """Where it is, in words, and the versions that results depend on."""
        import ray

        return f"on {ray.util.get_node_ip_address()} (pid {os.getpid()})", _software()

    def train(self, recipe: Recipe, data: list[Any]) -> Trained | Raised | None:
        """The trained run, or what was raised in it; None where it was stopped.

        Args:
            data: the reference to the recipe's data, in a list, so that they are fetched once for many runs.
        """
        import ray

        self._progress = (0, 0)
        try:
            if recipe.data not in self._data:
                self._data = {recipe.data: ray.get(data[0])}
            led = self._shipment.at(Path(self._folder.name), recipe)
            return train(led, self._data[recipe.data], on_step=self._on_step)
        except (Exception, SystemExit) as error:
            return Raised(f"{type(error).__name__}: {error}", traceback.format_exc())
        except _Stopped:
            return None

    def progress(self) -> tuple[int, int]:
        """Training steps done, and in all."""
        return self._progress

    def stop(self) -> None:
        """Has the training end after its step, and removes the user's files."""
        self._stopping = True
        self._folder.cleanup()

    def _on_step(self, step: int, steps: int) -> None:
        self._progress = (step, steps)
        if self._stopping:
            raise _Stopped


class RemoteTrainer:
    """An actor as this process holds it; it is made when it is first needed.

    Args:
        cluster: where Ray finds a machine for it.
        recipe: says what it takes of its machine.
        shipment: the user's files.
        check: called while it is waited for; raises where waiting is to end.

    Attributes:
        has_place: whether it is on a machine, and has said so.
    """

    def __init__(
        self, cluster: Cluster, recipe: TrainingRecipe, shipment: Shipment, check: Callable[[], None]
    ) -> None:
        self._cluster, self._shipment, self._check = cluster, shipment, check
        self._needs = needs_of(recipe)
        self._actor: Any = None
        self._task: Any = None
        self._place = "of Ray"
        self.has_place = False

    def ready(self) -> Any:
        """The actor, once Ray has found a machine with room for it.

        Raises:
            RunError: other versions are installed there.
            Lost: it died, or no machine is left that could have room for it.
        """
        if self._actor is not None:
            return self._actor
        needs, ray = self._needs, self._cluster.ray
        options = {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0), "max_restarts": 0}
        made = ray.remote(**options, concurrency_groups={_WATCH: 1})(Trainer)
        self._actor = made.remote(self._shipment)
        self._task = self._actor.introduce.remote()
        while not self._is_done(self._task):
            self._check()
            if not self._cluster.room(needs):
                raise Lost("found no machine in the cluster", "Every machine with room for a run is gone.")
        self._place, software = self._answer()
        self.has_place = True
        if software != _software():
            raise RunError(
                f"every machine must have {_in_words(_software())}, as this one, but a worker {self._place} "
                f"has {_in_words(software)}: install the same there"
            )
        return self._actor

    def train(self, recipe: Recipe, data: Any, on_step: OnStep) -> Trained:
        """The trained run.

        Args:
            data: the reference to the recipe's data.
            on_step: called about five times a second with the steps that were last heard of.
        Raises:
            Raised: what was raised in the run.
            Lost: the actor died.
        """
        actor = self.ready()
        self._task = actor.train.remote(recipe, [data])
        progress, asked = (0, 0), None
        try:
            while not self._is_done(self._task):
                on_step(*progress)
                if asked is None:
                    asked = actor.progress.options(concurrency_group=_WATCH).remote()
                elif self._is_done(asked, 0):
                    progress, asked = self._get(asked), None
            trained = self._answer()
        except BaseException:  # stopped, or the run is another process's now: the actor is not to go on
            self.dismiss()
            raise
        if isinstance(trained, Raised):
            raise trained
        result: Trained = trained
        return result

    def dismiss(self) -> None:
        """Has the actor end its step and leave, and kills one that does not."""
        actor, task, self._actor, self._task = self._actor, self._task, None, None
        if actor is None:
            return
        if self.has_place:  # else there is nothing to end, and nobody who would answer
            last = [actor.stop.options(concurrency_group=_WATCH).remote()]
            last += [] if task is None else [task]
            self._cluster.ray.wait(last, num_returns=len(last), timeout=GRACE_SECONDS)
        self.has_place = False
        self._cluster.ray.kill(actor)

    def _answer(self) -> Any:
        task, self._task = self._task, None
        return self._get(task)

    def _is_done(self, task: Any, seconds: float = REPORT_SECONDS) -> bool:
        return bool(self._cluster.ray.wait([task], timeout=seconds)[0])

    def _get(self, task: Any) -> Any:
        ray = self._cluster.ray
        try:
            return ray.get(task)
        except ray.exceptions.RayError as error:
            raise Lost(f"{self._place} died", str(error)) from error


def _software() -> dict[str, str]:
    """Other versions give other numbers."""
    return {"normwright": __version__, "PyTorch": torch.__version__}


def _in_words(software: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in software.items())
