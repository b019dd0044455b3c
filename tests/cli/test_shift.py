"""`normwright shift`: what it prints, how it exits, and what it says of what is wrong."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

NETWORK = "--network nets.py:sized --checkpoint plain.pt"
DATA = """
import time
from pathlib import Path
import torch

here = Path(__file__).parent

def raises():
    yield torch.zeros(16, 2)
    raise OSError("the disk is gone")

def gated():
    (here / "shift-waiting").touch()
    while (here / "shift-gate").exists():
        time.sleep(0.005)
    yield torch.zeros(16, 2)
"""

COMMANDS = {
    "shift": "shift a.csv b.csv",
    "again": "shift a.csv b.csv --json",
    "json": "shift a.csv b.csv --json --fail-on-shift",
    "seed": "shift a.csv b.csv --json --seed 1",
    "none": "shift a.csv c.csv --fail-on-shift",
    "raised": "shift a.csv b.csv --alarm 0.99 --fail-on-shift",
    "network": f"shift digits digits --samples 40 {NETWORK}",
    "help": "shift --help",
}
WRONG = {
    "shift a.csv none.csv": (1, "none.csv must be a file"),
    "shift a.csv few.csv": (1, "at least 20 rows to be judged, but has 3"),
    "shift a.csv other.csv": (1, "a.csv lacks 'z' and other.csv lacks 'y'"),
    "shift a.csv digit": (1, "did you mean 'digits'?"),
    "shift a.csv images:nowhere": (1, "must name a folder"),
    "shift a.csv b.csv --level 2": (1, "level must be between 0 and 1"),
    "shift a.csv b.csv --samples 0": (1, "samples must be at least 1"),
    "shift a.csv b.csv --with-labels": (1, "must have labels to compare"),
    "shift a.csv data.py:raises": (1, "error: OSError: the disk is gone"),
    "shift digits digits --network nets.py:sized": (2, "--network and --checkpoint go together"),
    "shift digits digits --network nets.py:number --checkpoint plain.pt": (
        1,
        "must return a torch.nn.Module",
    ),
    "shift digits digits --network nets.py:plain --checkpoint none.pt": (
        1,
        "none.pt must be a checkpoint, but does not exist",
    ),
    "shift a.csv": (2, "Missing argument 'current'"),
}


def write(path: Path, rows: int, shift: float, seed: int, second: str = "y") -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, 2)) + np.array([shift, 0.0])
    path.write_text(f"x,{second}\n" + "\n".join(f"{x:.6g},{y:.6g}" for x, y in values) + "\n")


@pytest.fixture(scope="module")
def outcomes(resnet_cli):
    """Each command's status, output and errors, all from one process."""
    folder = resnet_cli.folder
    write(folder / "a.csv", 60, 0.0, 0)
    write(folder / "b.csv", 50, 2.0, 1)
    write(folder / "c.csv", 50, 0.0, 2)
    write(folder / "few.csv", 3, 0.0, 3)
    write(folder / "other.csv", 80, 0.0, 4, "z")
    (folder / "data.py").write_text(DATA)
    script = str(Path(__file__).with_name("many_commands.py"))
    commands = [*COMMANDS.values(), *WRONG]
    done = resnet_cli.run(json.dumps([c.split() for c in commands]), program=(sys.executable, script))
    assert done.status == 0, done.errors
    return dict(zip([*COMMANDS, *WRONG], json.loads(done.output), strict=True))


def test_the_table(outcomes):
    status, output, errors = outcomes["shift"]
    assert status == 0
    assert output.startswith("Shift: MCC ")
    assert "\nwithout x " in output
    assert output.splitlines()[-1].startswith("Next: find out why x changed")
    assert errors.splitlines()[:3] == ["reading a.csv", "reading b.csv", "classifier 1 of 8"]


def test_json_is_the_report_alone(outcomes):
    status, output, _ = outcomes["json"]
    report = json.loads(output)
    assert status == 3
    assert report["verdict"] == "shift"
    assert report["features"][0]["name"] == "x"
    assert report["network"] is None


def test_the_seed_decides_the_figures(outcomes):
    assert outcomes["again"][1] == outcomes["json"][1]
    assert json.loads(outcomes["seed"][1])["auc"] != json.loads(outcomes["json"][1])["auc"]


def test_only_a_shift_fails(outcomes):
    assert outcomes["none"][0] == 0
    assert outcomes["none"][1].startswith("No shift found")
    assert outcomes["raised"][0] == 0
    assert outcomes["raised"][1].startswith("Small shift")


def test_a_network_built_by_the_data(outcomes):
    status, output, errors = outcomes["network"]
    assert status == 0, errors
    assert "The network has no normaliser." in output
    assert "Accuracy:" in output
    assert "Adapt was not tried to the end: the network must have a normaliser" in " ".join(output.split())


def test_help_has_examples_and_the_exit_status(outcomes):
    output = outcomes["help"][1]
    for words in ("Examples", "--fail-on-shift", "status 3", "may.csv june.csv"):
        assert words in " ".join(output.replace("│", " ").split())


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(outcomes, case):
    wanted, words = WRONG[case]
    status, output, errors = outcomes[case]
    assert (status, output) == (wanted, "")
    assert words in " ".join(errors.replace("│", " ").split())
    assert ("Traceback" in errors) == ("raises" in case)


def test_stopped_by_the_user(resnet_cli, outcomes, wait_for):
    (resnet_cli.folder / "shift-gate").touch()
    process = resnet_cli.start("shift", "a.csv", "data.py:gated")
    wait_for(resnet_cli.folder / "shift-waiting", process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (130, "")
    assert errors.splitlines()[-1] == "stopped: nothing was written"
