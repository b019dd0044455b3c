"""Does all runs of an experiment: in this process, in several, or on several machines."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from normwright.errors import OptionError, RunError, StoreError
from normwright.lab.crew import Crew, Departure
from normwright.lab.recipe import Recipe
from normwright.lab.store import Store
from normwright.lab.work import REPORT_SECONDS, OnStep, RunFunction, Trained, run_error, run_function, work

_logger = logging.getLogger("normwright")

RUN_RECIPE = "normwright.lab.training:run_recipe"
RUN_OVER_RAY = "normwright.lab.remote:train_over_ray"

OnProgress = Callable[[int, int, list[tuple[str, int, int]]], None]
"""Called with (runs done, runs in all, [(description, step, steps) of each run under way])."""


def run_all(
    folder: Path,
    recipes: Iterable[Recipe],
    *,
    jobs: int = 1,
    run: str | RunFunction = RUN_RECIPE,
    directory: Path | None = None,
    ray: str | None = None,
    on_progress: OnProgress = lambda done, total, running: None,
    on_notice: Callable[[str], None] = _logger.warning,
) -> None:
    """Returns when every recipe has its result in the experiment in `folder`.

    Finished runs are not done again. Another process that works on the same folder shares the work:
    what it holds is waited for, and taken over if it dies.

    Args:
        folder: of the experiment; made where there is none.
        recipes: the runs, in the order in which they are begun.
        jobs: how many processes train; 1 trains in this one.
        run: trains one run; as `package.module:function`, or, where jobs is 1, the function itself.
        directory: where data are looked for; None for the usual places.
        ray: address of the Ray cluster that trains, in place of `run`, with a process here for each job.
        on_progress: called about five times a second.
        on_notice: called with a sentence for the user when a worker died and its run is tried again.
    Raises:
        RunError: an exception in a run, or a run in which a worker died twice; the other workers are stopped.
        StoreError: the experiment cannot be read or written.
        OptionError: jobs is below 1, or above 1 with a function that has no name.
    """
    if jobs < 1:
        raise OptionError(f"jobs must be at least 1, but is {jobs}")
    by_name = {recipe.hash: recipe for recipe in recipes}
    with Store.open(folder) as store:
        store.add(by_name.values())
        if ray is not None:
            crew = Crew(folder, list(by_name), run=RUN_OVER_RAY, directory=directory, ray=ray)
            _run_with(crew, store, by_name, jobs, on_progress, on_notice)
        elif jobs == 1:
            _run_here(store, by_name, run, directory, on_progress)
        elif isinstance(run, str):
            crew = Crew(folder, list(by_name), run=run, directory=directory)
            _run_with(crew, store, by_name, jobs, on_progress, on_notice)
        else:
            raise OptionError(
                f"with jobs {jobs}, run must be the name of a function, package.module:function, that other "
                f"processes can import, but is {run!r}; name it, or set jobs to 1"
            )


def _run_here(
    store: Store,
    recipes: dict[str, Recipe],
    run: str | RunFunction,
    directory: Path | None,
    on_progress: OnProgress,
) -> None:
    function = run_function(run) if isinstance(run, str) else run

    def train_one(recipe: Recipe, on_step: OnStep) -> Trained:
        return function(recipe, directory=directory, on_step=on_step)

    def report(recipe: Recipe, step: int, steps: int) -> None:
        _report(store, recipes, on_progress, own=(recipe.hash, step, steps))

    while True:
        work(store, list(recipes), train_one, on_progress=report)
        _report(store, recipes, on_progress)
        if len(store.finished(list(recipes))) == len(recipes):
            return
        time.sleep(REPORT_SECONDS)  # another process holds the rest


def _run_with(
    crew: Crew,
    store: Store,
    recipes: dict[str, Recipe],
    jobs: int,
    on_progress: OnProgress,
    on_notice: Callable[[str], None],
) -> None:
    deaths: Counter[str | None] = Counter()
    try:
        with crew:
            while len(store.finished(list(recipes))) < len(recipes):
                for departure in crew.departed():
                    _judge(departure, recipes, deaths, on_notice)
                _hire(crew, store, list(recipes), jobs)
                _report(store, recipes, on_progress)
                time.sleep(REPORT_SECONDS)
            for departure in crew.departed():  # of a worker whose run another has finished meanwhile
                _tell(departure, recipes, on_notice)
    finally:
        # A courtesy to whoever reads the store: the claims of the dead are taken over in any case.
        with suppress(StoreError):
            store.release_dead(list(recipes))
    _report(store, recipes, on_progress)


def _hire(crew: Crew, store: Store, runs: list[str], jobs: int) -> None:
    """Has as many workers as there is work for: `jobs`, or the unfinished runs that no one else holds."""
    states = store.status(runs)
    claims = store.claims(runs)
    ours = crew.pids
    elsewhere = {run for run, claim in claims.items() if claim.process.pid not in ours}
    open_runs = sum(state != "finished" and run not in elsewhere for run, state, _, _ in states)
    for _ in range(min(jobs, open_runs) - len(ours)):
        crew.hire()


def _judge(
    departure: Departure,
    recipes: dict[str, Recipe],
    deaths: Counter[str | None],
    on_notice: Callable[[str], None],
) -> None:
    """Goes on after a worker that left or died once; raises what ends everything."""
    if departure.failed is not None:
        raise RunError(departure.failed)
    if departure.store is not None:
        raise StoreError(departure.store)
    if departure.died is not None:
        deaths[departure.run] += 1
        if deaths[departure.run] > 1:
            raise _second_death(departure, recipes)
        _tell(departure, recipes, on_notice)


def _tell(departure: Departure, recipes: dict[str, Recipe], on_notice: Callable[[str], None]) -> None:
    if departure.died is not None:
        place = (
            "before any run" if departure.run is None else f"in the run {recipes[departure.run].describe()}"
        )
        on_notice(f"a worker {departure.died} {place}; what it left unfinished is tried once more")


def _second_death(departure: Departure, recipes: dict[str, Recipe]) -> RunError:
    what = f"a worker {departure.died}, for the second time,"
    details = departure.log.strip()
    if departure.died is not None and departure.died.endswith("SIGKILL"):
        details += (
            "\nThe system sends SIGKILL when memory runs out: try fewer jobs, or a smaller batch or network."
        )
    if departure.run is not None:
        return run_error(what, recipes[departure.run], details)
    return RunError(f"{what} before any run\n{details}\nFinished runs are kept.")


def _report(
    store: Store,
    recipes: dict[str, Recipe],
    on_progress: OnProgress,
    *,
    own: tuple[str, int, int] | None = None,
) -> None:
    """Calls `on_progress`; `own` is the run of this process, fresher than its last heartbeat."""
    states = store.status(list(recipes))
    fresh = {} if own is None else {own[0]: own[1:]}
    running = [
        (recipes[run].describe(), *fresh.get(run, (step, steps)))
        for run, state, step, steps in states
        if state == "running"
    ]
    on_progress(sum(state == "finished" for _, state, _, _ in states), len(states), running)
