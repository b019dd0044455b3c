"""The loop of every process that trains: claim a run, train it, keep it, until nothing is left to claim."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from normwright.errors import RunError, StoreError
from normwright.lab.recipe import Recipe
from normwright.lab.run import RunResult
from normwright.lab.store import Store
from normwright.lab.tracebacks import user_traceback

OnStep = Callable[[int, int], None]
"""Called with (training steps done, training steps in all)."""

REPORT_SECONDS = 0.2
BEAT_SECONDS = 0.5
# The most between two heartbeats: far below the silence after which another host takes the run.
SLOWEST_BEAT_SECONDS = 60.0
# A heartbeat waits for the disk. This many times its duration passes until the next: 1 % of the time.
BEAT_SHARE = 100.0


class Trained(Protocol):
    """What training one run gives."""

    @property
    def result(self) -> RunResult:
        """What was measured."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The trained network's state."""


class RunFunction(Protocol):
    """Trains one run; data are looked for in `directory` first."""

    def __call__(self, recipe: Recipe, *, directory: Path | None, on_step: OnStep) -> Trained:
        """Trains the run and calls `on_step` after every training step."""


class Raised(Exception):  # noqa: N818  # it tells of an error elsewhere
    """What was raised in a run, here or on another machine.

    Args:
        what: the exception in one line.
        text: it with its traceback.
    """

    def __init__(self, what: str, text: str) -> None:
        super().__init__(what, text)
        self.what, self.text = what, text

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """The same of an exception here; itself, where it tells of one elsewhere already."""
        if isinstance(error, Raised):
            return error
        return cls(f"{type(error).__name__}: {error}", user_traceback(error))


class _Stopped(BaseException):
    """The loop is to end. Not an Exception, so that no user's `except Exception` holds it up."""


class _Lost(BaseException):
    """The run was taken for dead, and another process has it now."""


def work(
    store: Store,
    runs: Sequence[str],
    train_one: Callable[[Recipe, OnStep], Trained],
    *,
    on_claim: Callable[[Recipe], None] = lambda recipe: None,
    on_progress: Callable[[Recipe, int, int], None] = lambda recipe, step, steps: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Claims and trains those of `runs` that are pending, until none is or `should_stop()`.

    Args:
        store: the experiment; holds every run of `runs`.
        train_one: trains one run.
        on_claim: called before a run begins.
        on_progress: called with (recipe, step, steps) about five times a second.
        should_stop: asked after every step; the run at hand is then given back.
    Raises:
        RunError: an exception in a run, which is its cause; the run is given back.
        StoreError: the experiment cannot be read or written.
    """
    while not should_stop():
        recipe = store.claim(runs)
        if recipe is None:
            return
        on_claim(recipe)
        try:
            _finish(store, recipe, train_one, _Watch(store, recipe, on_progress, should_stop))
        except _Lost:
            continue
        except _Stopped:
            return


def run_function(name: str) -> RunFunction:
    """The function that `package.module:function` names."""
    module, _, function = name.partition(":")
    found: RunFunction = getattr(importlib.import_module(module), function)
    return found


def run_error(what: str, recipe: Recipe, details: str) -> RunError:
    """The error that ends everything, with the run that caused it and how to go on."""
    details = "" if details.strip() == what else f"{details.strip()}\n"
    return RunError(
        f"{what} in the run {recipe.describe()}\n"
        f"recipe {recipe.hash}, other settings: {recipe.settings()}\n"
        f"{details}"
        "Finished runs are kept: put this right, then run the same command again to go on."
    )


def _finish(
    store: Store, recipe: Recipe, train_one: Callable[[Recipe, OnStep], Trained], watch: OnStep
) -> None:
    try:
        trained = train_one(recipe, watch)
        # Before the result, so that a finished run always had its weights on the disk.
        store.save_checkpoint(recipe.hash, trained.weights)
        store.finish(recipe, trained.result)
    except (Exception, SystemExit) as error:
        if isinstance(error, StoreError):
            store.release(recipe.hash)
            raise
        raised = Raised.of(error)
        store.fail(recipe.hash, raised.text)
        raise run_error(raised.what, recipe, raised.text) from error
    except BaseException:
        store.release(recipe.hash)
        raise


class _Watch:
    """What happens after every step: stop where asked, report, and show the store a sign of life."""

    def __init__(
        self,
        store: Store,
        recipe: Recipe,
        on_progress: Callable[[Recipe, int, int], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._store = store
        self._recipe = recipe
        self._on_progress = on_progress
        self._should_stop = should_stop
        now = time.monotonic()
        self._next_report = now
        self._next_beat = now + BEAT_SECONDS

    def __call__(self, step: int, steps: int) -> None:
        if self._should_stop():
            raise _Stopped
        now = time.monotonic()
        if now >= self._next_report:
            self._on_progress(self._recipe, step, steps)
            self._next_report = now + REPORT_SECONDS
        if now >= self._next_beat:
            self._beat(step, steps)

    def _beat(self, step: int, steps: int) -> None:
        begin = time.monotonic()
        if not self._store.progress(self._recipe.hash, step, steps):
            raise _Lost
        end = time.monotonic()
        pause = max(BEAT_SECONDS, BEAT_SHARE * (end - begin))
        self._next_beat = end + min(pause, SLOWEST_BEAT_SECONDS)
