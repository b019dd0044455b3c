"""Stopped at any moment, by Ctrl-C, by kill -9 or by an exception, a comparison goes on from there."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

# Trains until a run is to begin that the test holds up; the file `waiting` says that it is there.
GATED = """
import time
from pathlib import Path
from torch import nn

here = Path(__file__).parent

class Gated(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))

    def forward(self, x):
        gate, finished = here / "gate", list(here.glob("out/checkpoints/*.safetensors"))
        while gate.exists() and len(finished) >= int(gate.read_text()):
            (here / "waiting").touch()
            time.sleep(0.005)
        return self.layers(x)

def network(shape, classes):
    print("building a gated network")
    return Gated(classes)
"""

BREAKS = """
from pathlib import Path
from torch import nn

class Breaks(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))

    def forward(self, x):
        if list(Path("out/checkpoints").glob("*.safetensors")):
            raise ZeroDivisionError("the second run divides by [zero]")
        return self.layers(x)

def network(shape, classes):
    return Breaks(classes)
"""

SIZE = ("--epochs", "1", "--seeds", "2", "--records", "3", "--jobs", "1", "--norm", "none,batch", "--lr", "1")
ARGUMENTS = ("compare", "gated.py:network", *SIZE, "--out", "out")
RUNS = 4


def results(folder: Path) -> int:
    with sqlite3.connect(folder / "out" / "experiment.sqlite") as connection:
        (count,) = connection.execute("SELECT count(*) FROM result").fetchone()
    connection.close()
    return count


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "checkpoints").iterdir()}


def stop_after(cli, wait_for, runs: int, number: int):
    """The command, stopped by a signal in the run after so many; its status and standard error."""
    (cli.folder / "gated.py").write_text(GATED)
    (cli.folder / "gate").write_text(str(runs))
    (cli.folder / "waiting").unlink(missing_ok=True)
    process = cli.start(*ARGUMENTS)
    wait_for(cli.folder / "waiting", process)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.fixture(scope="module")
def story(shared_cli, wait_for):
    """Ctrl-C in the second run, kill -9 in the third, then to the end."""
    interrupted = stop_after(shared_cli, wait_for, 1, signal.SIGINT)
    after_first = written(shared_cli.folder)
    killed = stop_after(shared_cli, wait_for, 2, signal.SIGKILL)
    after_second = written(shared_cli.folder)
    (shared_cli.folder / "gate").unlink()
    ended = shared_cli.run(*ARGUMENTS, "--json")
    return interrupted, after_first, killed, after_second, ended


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(story):
    status, errors = story[0]
    assert status == 130
    assert errors.splitlines()[-1] == (
        "stopped: finished runs are kept in out; run the same command again to go on"
    )
    assert "Traceback" not in errors


def test_killed_comparison_goes_on_with_what_was_finished(story):
    status, errors = story[2]
    assert status == -signal.SIGKILL
    assert f"training {RUNS} runs, 1 of them done already" in errors
    assert f"training {RUNS} runs, 2 of them done already" in story[4].errors


def test_finished_runs_are_not_trained_again(shared_cli, story):
    _, after_first, _, after_second, _ = story
    assert (len(after_first), len(after_second)) == (1, 2)
    end = written(shared_cli.folder)
    assert after_first.items() <= after_second.items() <= end.items()


def test_every_run_is_counted_once(shared_cli, story):
    ended = story[4]
    assert ended.status == 0, ended.errors
    assert results(shared_cli.folder) == len(written(shared_cli.folder)) == RUNS
    assert json.loads(ended.output)["runs"] == RUNS


def test_what_the_users_code_prints_stays_out_of_the_json(story):
    ended = story[4]
    assert "building a gated network" in ended.errors
    assert ended.output.startswith("{")


def test_exception_in_a_run_shows_traceback_and_recipe_and_keeps_the_rest(cli):
    (cli.folder / "breaks.py").write_text(BREAKS)
    outcome = cli.run("compare", "breaks.py:network", *SIZE, "--out", "out")
    assert outcome.status == 1
    assert "error: ZeroDivisionError: the second run divides by [zero] in the run" in outcome.errors
    assert "breaks.py:network on digits, norm batch, batch 256, lr 1, seed 0\nrecipe " in outcome.errors
    assert 'breaks.py", line 12, in forward' in outcome.errors
    assert "Finished runs are kept" in outcome.errors
    assert results(cli.folder) == 1
