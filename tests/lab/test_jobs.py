"""Runs are done once each, whoever is killed, interrupted or wrong. All processes are real."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from normwright.errors import OptionError, RunError, StoreError
from normwright.lab.jobs import run_all
from normwright.lab.recipe import Recipe
from normwright.lab.store import Store
from normwright.lab.work import work

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds until a test gives up; nothing waits for this long when it passes


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(HERE))
    import trainers

    return trainers


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    (tmp_path / "signs").mkdir()
    return tmp_path / "signs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def start(folder: Path, signs: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts whole parents as programs, and ends those that a failed test leaves."""
    started: list[subprocess.Popen[bytes]] = []

    def start(trainer: str, *, jobs: int, count: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, HERE / "trainers.py", folder, trainer, str(jobs), str(count), signs]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def names(recipes: list[Recipe]) -> list[str]:
    return [recipe.hash for recipe in recipes]


def check_all_finished(folder: Path, recipes: list[Recipe], trainers) -> None:
    """Every run has its own result, its own weights, and no one holds it."""
    with Store.open(folder) as store:
        assert store.finished(names(recipes)) == set(names(recipes))
        for recipe in recipes:
            kept = store.result(recipe.hash)
            assert kept is not None
            assert kept.loss.tolist() == trainers.result(recipe.training.seed).loss.tolist()
            assert store.load_checkpoint(recipe.hash)["weight"].tolist() == [recipe.training.seed] * 2
    rows = sqlite3.connect(folder / "experiment.sqlite")
    assert rows.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert rows.execute("SELECT count(*) FROM result").fetchone() == (len(recipes),)
    assert rows.execute("SELECT count(*) FROM claim").fetchone() == (0,)
    rows.close()


def test_one_process_does_every_run_once_in_order(folder, signs, trainers):
    recipes = trainers.recipes(3)
    progress = []
    run_all(
        folder,
        recipes,
        run="trainers:steps",
        directory=signs,
        on_progress=lambda *seen: progress.append(seen),
    )
    check_all_finished(folder, recipes, trainers)
    assert trainers.noted(signs, "begun") == [(seed, os.getpid()) for seed in range(3)]
    assert (1, 3, [(recipes[1].describe(), 1, trainers.STEPS)]) in progress
    assert progress[-1] == (3, 3, [])


def test_finished_runs_are_not_done_again(folder, signs, trainers):
    run_all(folder, trainers.recipes(2), run="trainers:steps", directory=signs)
    run_all(folder, trainers.recipes(3), run="trainers:steps", directory=signs)
    assert [seed for seed, _ in trainers.noted(signs, "begun")] == [0, 1, 2]


def test_a_function_of_the_script_runs_in_this_process(folder, signs, trainers):
    run_all(folder, trainers.recipes(2), run=trainers.steps, directory=signs)
    check_all_finished(folder, trainers.recipes(2), trainers)


def test_a_function_without_a_name_is_refused_for_other_processes(folder, trainers):
    with pytest.raises(OptionError, match=r"package\.module:function"):
        run_all(folder, trainers.recipes(2), jobs=2, run=trainers.steps)


def test_jobs_must_be_positive(folder, trainers):
    with pytest.raises(OptionError, match="jobs must be at least 1, but is 0"):
        run_all(folder, trainers.recipes(1), jobs=0)


def test_workers_share_the_runs_and_live_on_over_many(folder, signs, trainers):
    recipes = trainers.recipes(12)
    progress = []
    run_all(
        folder,
        recipes,
        jobs=2,
        run="trainers:steps",
        directory=signs,
        on_progress=lambda *seen: progress.append(seen),
    )
    check_all_finished(folder, recipes, trainers)
    begun = trainers.noted(signs, "begun")
    assert sorted(seed for seed, _ in begun) == list(range(12))
    pids = {pid for _, pid in begun}
    assert len(pids) <= 2
    assert os.getpid() not in pids
    assert progress[-1] == (12, 12, [])


def test_workers_find_modules_as_their_parent_does(folder, signs, trainers, tmp_path, monkeypatch):
    for decoy in ("trainers", "random") if sys.version_info >= (3, 11) else ("trainers",):
        (tmp_path / f"{decoy}.py").write_text("raise ImportError('a file that happens to lie here')")
    monkeypatch.chdir(tmp_path)
    run_all(folder, trainers.recipes(1), jobs=2, run="trainers:steps", directory=signs)
    check_all_finished(folder, trainers.recipes(1), trainers)


def test_progress_within_a_run_comes_from_the_workers(folder, signs, trainers):
    seen: set[tuple[int, int]] = set()

    def open_when_all_have_stepped(done: int, total: int, running: list[tuple[str, int, int]]) -> None:
        seen.update((step, steps) for _, step, steps in running)
        if [(step, steps) for _, step, steps in running] == [(1, trainers.STEPS)] * 2:
            (signs / "open").touch()

    run_all(
        folder,
        trainers.recipes(4),
        jobs=2,
        run="trainers:waits",
        directory=signs,
        on_progress=open_when_all_have_stepped,
    )
    assert (1, trainers.STEPS) in seen


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_exception_ends_everything_and_names_its_run(folder, signs, trainers, jobs):
    recipes = trainers.recipes(4)
    with pytest.raises(RunError) as caught:
        run_all(folder, recipes, jobs=jobs, run="trainers:raises", directory=signs)
    message = str(caught.value)
    assert "ValueError: no such layer" in message
    assert "Traceback" in message
    assert 'raise ValueError("no such layer")' in message
    assert f"recipe {recipes[2].hash}, other settings: {recipes[2].settings()}\n" in message
    assert max(map(len, message.splitlines())) < 200
    assert recipes[2].describe() in message
    assert "same command again" in message
    if jobs == 1:
        assert isinstance(caught.value.__cause__, ValueError)
    with Store.open(folder) as store:
        # With two workers, the other may have begun the fourth run, and gave it back.
        assert store.claims(names(recipes)) == {}
        assert recipes[2].hash not in store.finished(names(recipes))
        assert "no such layer" in (store.failure(recipes[2].hash) or "")
    finished = {seed for seed, _ in trainers.noted(signs, "ended")}
    run_all(folder, recipes, jobs=1, run="trainers:steps", directory=signs)
    check_all_finished(folder, recipes, trainers)
    begun = [seed for seed, _ in trainers.noted(signs, "begun")]
    assert all(begun.count(seed) == 1 for seed in finished)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_user_who_exits_is_told_where(folder, signs, trainers, jobs):
    with pytest.raises(RunError, match="SystemExit: had enough in the run lenet on digits"):
        run_all(folder, trainers.recipes(1), jobs=jobs, run="trainers:leaves", directory=signs)


def test_the_run_of_a_killed_worker_is_tried_again(folder, signs, trainers):
    recipes = trainers.recipes(4)
    notices: list[str] = []
    run_all(folder, recipes, jobs=2, run="trainers:dies_once", directory=signs, on_notice=notices.append)
    check_all_finished(folder, recipes, trainers)
    assert len(notices) == 1
    assert "was killed by SIGKILL" in notices[0]
    assert recipes[1].describe() in notices[0]


def test_a_run_that_kills_two_workers_ends_everything(folder, signs, trainers):
    recipes = trainers.recipes(3)
    notices: list[str] = []
    with pytest.raises(RunError) as caught:
        run_all(folder, recipes, jobs=2, run="trainers:dies", directory=signs, on_notice=notices.append)
    message = str(caught.value)
    assert "was killed by SIGKILL, for the second time, in the run" in message
    assert f"recipe {recipes[1].hash}, other settings: " in message
    assert "the last words" in message
    assert "memory" in message
    assert len(notices) == 1
    assert len(trainers.noted(signs, "died")) == 2


def test_a_worker_that_leaves_without_a_word_counts_as_dead(folder, signs, trainers):
    with pytest.raises(RunError, match="ended with exit status 0, for the second time"):
        run_all(
            folder,
            trainers.recipes(1),
            jobs=2,
            run="trainers:exits",
            directory=signs,
            on_notice=lambda text: None,
        )


def test_a_run_function_that_cannot_be_imported_is_told(folder, signs, trainers):
    with pytest.raises(RunError, match=r"(?s)before any run.*No module named 'nowhere'"):
        run_all(
            folder,
            trainers.recipes(1),
            jobs=2,
            run="nowhere:train",
            directory=signs,
            on_notice=lambda text: None,
        )


def test_a_store_error_of_a_worker_is_one_of_the_parent(folder, signs, trainers):
    folder.mkdir()
    (folder / "checkpoints").write_text("in the way")
    with pytest.raises(StoreError, match="checkpoints"):
        run_all(folder, trainers.recipes(2), jobs=2, run="trainers:steps", directory=signs)


def test_killing_the_parent_loses_nothing_and_repeats_nothing(folder, signs, trainers, start):
    recipes = trainers.recipes(6)
    process = start("waits", jobs=2, count=6)
    wait_until(lambda: len(trainers.noted(signs, "waiting")) == 2)
    process.kill()
    process.wait()
    with Store.open(folder) as store:  # the orphans see it and give back their runs
        wait_until(lambda: not store.claims(names(recipes)))
        finished = {recipe.training.seed for recipe in recipes if store.result(recipe.hash)}
    assert len(finished) >= 2
    run_all(folder, recipes, jobs=2, run="trainers:steps", directory=signs)
    check_all_finished(folder, recipes, trainers)
    begun = [seed for seed, _ in trainers.noted(signs, "begun")]
    assert all(begun.count(seed) == 1 for seed in finished)


def test_killing_a_process_in_the_middle_of_a_run_loses_nothing(folder, signs, trainers, start):
    recipes = trainers.recipes(4)
    process = start("waits", jobs=1, count=4)
    wait_until(lambda: len(trainers.noted(signs, "waiting")) == 1)
    process.kill()
    process.wait()
    with Store.open(folder) as store:  # at once, because its holder is known to be dead
        assert [state for _, state, _, _ in store.status(names(recipes))] == ["finished"] * 2 + [
            "pending"
        ] * 2
    run_all(folder, recipes, run="trainers:steps", directory=signs)
    check_all_finished(folder, recipes, trainers)
    assert [seed for seed, _ in trainers.noted(signs, "ended")] == [0, 1, 2, 3]


def test_two_parents_share_the_runs(folder, signs, trainers, start):
    parents = [start("meets", jobs=2, count=40) for _ in range(2)]
    assert [process.wait(PATIENCE) for process in parents] == [0, 0]
    check_all_finished(folder, trainers.recipes(40), trainers)
    assert sorted(seed for seed, _ in trainers.noted(signs, "begun")) == list(range(40))


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_runs_of_another_process_are_waited_for_and_taken_over(folder, signs, trainers, start, jobs):
    recipes = trainers.recipes(3)
    other = start("waits", jobs=1, count=3)
    wait_until(lambda: len(trainers.noted(signs, "waiting")) == 1)
    seen = []

    def kill_the_other(done: int, total: int, running: list[tuple[str, int, int]]) -> None:
        seen.append((done, total, [description for description, _, _ in running]))
        if len(seen) == 2:
            other.kill()
            other.wait()

    run_all(folder, recipes, jobs=jobs, run="trainers:steps", directory=signs, on_progress=kill_the_other)
    assert seen[:2] == [(2, 3, [recipes[2].describe()])] * 2
    check_all_finished(folder, recipes, trainers)
    assert [seed for seed, _ in trainers.noted(signs, "begun")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("trainer", "jobs", "to_all"),
    [("waits", 1, True), ("waits", 2, False), ("waits", 2, True), ("deaf", 2, True)],
)
def test_ctrl_c_gives_back_the_runs_and_leaves_no_process(
    folder, signs, trainers, start, trainer, jobs, to_all
):
    recipes = trainers.recipes(5)
    process = start(trainer, jobs=jobs, count=5)
    wait_until(lambda: len(trainers.noted(signs, "waiting")) == jobs)
    workers = {pid for _, pid in trainers.noted(signs, "waiting")}
    if to_all:  # as a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == -signal.SIGINT  # a KeyboardInterrupt that no one caught
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    rows = sqlite3.connect(folder / "experiment.sqlite")
    assert rows.execute("SELECT count(*) FROM claim").fetchone() == (0,)
    rows.close()
    run_all(folder, recipes, run="trainers:steps", directory=signs)
    check_all_finished(folder, recipes, trainers)
    assert sorted(seed for seed, _ in trainers.noted(signs, "ended")) == list(range(5))


def test_a_run_that_was_given_away_is_left_to_its_new_holder(folder, signs, trainers):
    recipes = trainers.recipes(2)
    with Store.open(folder) as store, Store.open(folder) as other:
        store.add(recipes)

        def lose_the_first(recipe, on_step):
            if recipe == recipes[0]:
                store.release(recipe.hash)
                assert other.claim(names(recipes)) == recipe
                wait_until(lambda: on_step(1, 2))  # until the heartbeat, which comes within half a second
            return trainers.steps(recipe, directory=signs, on_step=on_step)

        work(store, names(recipes), lose_the_first)
        assert list(store.claims(names(recipes))) == [recipes[0].hash]
        assert store.finished(names(recipes)) == {recipes[1].hash}
