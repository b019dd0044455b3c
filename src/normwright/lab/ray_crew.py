"""The workers of one parent on the machines of a Ray cluster: hired, watched and stopped.

A worker is a thread here and an actor there. The thread does what every process that trains does, `lab.work`:
it claims a run from the store, has the actor train it, and keeps the result. So claims, heartbeats, going on
and errors are those of one machine; the SQLite file and the checkpoints are written by this process alone and
need no disk that machines share; an actor knows the recipe and its data, and may be killed at any moment.
(The other way was to let the actors do `lab.work`, and claim their runs by messages from one that holds the
store: a second protocol beside that of the file, with races of its own.)

What an actor needs comes from here: the data, which this process reads once, and the sources of the user's
functions (`lab.shipped`). So no other machine must have the data set.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from normwright.errors import RunError, StoreError
from normwright.lab.cluster import Cluster
from normwright.lab.crew import LOG_CHARACTERS, Departure
from normwright.lab.recipe import DataRecipe, Recipe
from normwright.lab.remote import Lost, RemoteTrainer
from normwright.lab.shipped import Shipment
from normwright.lab.store import Store
from normwright.lab.training import load_once
from normwright.lab.work import OnStep, Trained, work


class _Dismissed(BaseException):
    """The crew was stopped while a worker waited for a machine."""


class RayCrew:
    """The workers on one experiment; leaving the `with` stops them. See `crew.Crew`.

    Args:
        cluster: where they train.
        folder: of the experiment.
        recipes: the runs to work on, at least one; all take the same of a machine.
        directory: where data are looked for, here; None for the usual places.
    Raises:
        DataError, UserCodeError: a data set or a source cannot be read here.
    """

    def __init__(
        self, cluster: Cluster, folder: Path, recipes: Iterable[Recipe], *, directory: Path | None
    ) -> None:
        self.cluster, self.folder = cluster, folder
        self.recipes = {recipe.hash: recipe for recipe in recipes}
        self.shipment = Shipment.of(self.recipes.values())
        self.data: dict[DataRecipe, Any] = {}
        for recipe in self.recipes.values():
            if recipe.data not in self.data:
                self.data[recipe.data] = cluster.ray.put(load_once(recipe.data, directory))
        self.stopping = threading.Event()
        self._members: list[_Member] = []

    @property
    def size(self) -> int:
        """How many workers have not been seen to end."""
        return len(self._members)

    @property
    def waits(self) -> bool:
        """Whether there are workers, and none of them is on a machine yet."""
        return bool(self._members) and not any(member.trainer.has_place for member in self._members)

    @property
    def pids(self) -> set[int]:
        """The pid that their claims bear: this process's."""
        return {os.getpid()}

    def hire(self) -> None:
        """Starts one worker; it waits until the cluster has room for it."""
        member = _Member(self)
        self._members.append(member)
        member.start()

    def departed(self) -> list[Departure]:
        """The workers that ended since the last call."""
        gone = [member for member in self._members if not member.is_alive()]
        self._members = [member for member in self._members if member not in gone]
        return [member.departure for member in gone]

    def stop(self) -> None:
        """Asks all workers to give back their runs and leave, and kills the actors that do not."""
        self.stopping.set()
        try:
            self._join()
        finally:  # also on a second Ctrl-C: a thread that calls Ray when it has been left starts it anew
            self._join()
            self._members = []

    def _join(self) -> None:
        for member in self._members:
            member.join()

    def __enter__(self) -> RayCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Member(threading.Thread):
    """One worker. Its `departure` is set when it ends."""

    departure: Departure

    def __init__(self, crew: RayCrew) -> None:
        # A daemon, so that no machine that hangs keeps this process from ending.
        super().__init__(daemon=True)
        self._crew = crew
        self._claimed: str | None = None
        first = next(iter(crew.recipes.values()))
        self.trainer = RemoteTrainer(crew.cluster, first.training, crew.shipment, self._check)

    def run(self) -> None:
        """Works until nothing is left to claim, the crew is stopped, or something fails."""
        failed = store = died = None
        log = ""
        try:
            self._work()
        except _Dismissed:
            pass
        except RunError as error:
            failed = str(error)
        except StoreError as error:
            store = str(error)
        except Lost as error:
            died, log = error.how, error.log
        except BaseException:  # nobody looks at a thread's exception
            died, log = "ended with an exception", traceback.format_exc()
        self.departure = Departure(self._claimed, failed, store, died, log[-LOG_CHARACTERS:])

    def _work(self) -> None:
        crew, trainer = self._crew, self.trainer

        def train_one(recipe: Recipe, on_step: OnStep) -> Trained:
            return trainer.train(recipe, crew.data[recipe.data], on_step)

        try:
            trainer.ready()  # first, so that no run is claimed that would wait with it
            with Store.open(crew.folder) as store:
                work(
                    store,
                    list(crew.recipes),
                    train_one,
                    on_claim=self._note,
                    should_stop=crew.stopping.is_set,
                )
        finally:
            trainer.dismiss()

    def _note(self, recipe: Recipe) -> None:
        self._claimed = recipe.hash

    def _check(self) -> None:
        if self._crew.stopping.is_set():
            raise _Dismissed
