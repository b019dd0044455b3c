"""What a user may get wrong, and what the command says to it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from normwright.lab.data import load
from normwright.lab.recipe import DataRecipe

# One more than a multiple of it are the samples of the training split.
LEAVES_ONE = next(
    size for size in range(10, 2000) if len(load(DataRecipe(name="digits")).train_y) % size == 1
)

OWN = """
import torch
from torch import nn

def wide(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))

def number():
    return 3

def misfit(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(63, classes))

def broken(shape, classes):
    raise LookupError("no [bold]such[/bold] layer")

def no_such_class():
    x, y = torch.randn(40, 4), torch.arange(40) % 2
    return x, y, x, y + 1

def below_zero():
    x, y = torch.randn(40, 4), torch.arange(40) % 2
    return x, y - 1, x, y
"""

# arguments -> exit status, and what must be on the standard error.
CASES = {
    "--norm bach": (1, "error: unknown normaliser 'bach': did you mean 'batch'? (offered: none, batch,"),
    "lenets": (1, "error: unknown network 'lenets': did you mean 'lenet'"),
    "--data digit": (1, "error: unknown data set 'digit': did you mean 'digits'? (offered: digits,"),
    "--activation rely": (1, "error: unknown activation 'rely': did you mean 'relu'"),
    "--out=": (2, "a folder must be named, but the name is empty"),
    "--batch-size 0": (1, "error: batch_size must be at least 1 and a whole number, but is 0"),
    "--batch-size=-2": (1, "error: batch_size must be at least 1 and a whole number, but is -2"),
    "--epochs 0": (1, "error: epochs must be at least 1 and a whole number, but is 0"),
    "--seeds 0": (1, "error: seeds must be at least 1 and a whole number, but is 0"),
    "--jobs 0": (1, "error: jobs must be at least 1 and a whole number, or None, but is 0"),
    "--width=-1": (1, "error: width must be at least 1 and a whole number, but is -1"),
    "--lr 0": (1, "error: lr must be above zero, but is 0.0"),
    "--lr 1,1": (1, "error: the learning rates must differ, but 1.0 came 2 times"),
    "--batch-size 2000": (1, "error: batch size must be at most the 1,293 samples of the training split"),
    f"--norm batch --batch-size {LEAVES_ONE}": (
        1,
        "error: batch norm needs at least two samples in every batch",
    ),
    "nets.py:tall": (1, "error: nets.py must define 'tall', but does not"),
    "net.py:wide": (1, "error: net.py must be a file, but does not exist; did you mean 'nets.py'?"),
    "nets.py:number": (1, "error: nets.py:number must return a torch.nn.Module, but returned"),
    "--data nets.py:number": (1, "error: nets.py:number must return (x_train, y_train, x_test, y_test)"),
    "--data nets.py:no_such_class": (1, "labels"),
    "--data nets.py:below_zero": (1, "labels"),
    "nets.py:misfit": (
        1,
        "error: what the network is given must fit it, but '1', a Linear of the network,",
    ),
    "a_binary_file.py:net": (1, "/a_binary_file.py must be Python source, but holds a NUL byte"),
    "nets.py:broken": (1, "LookupError: no [bold]such[/bold] layer"),
    "--lr 0.1,x": (2, "'x' (element 2 of '0.1,x') must be a number, but is not"),
    "--batch-size 2,1.5": (2, "'1.5' (element 2 of '2,1.5') must be a whole number, but is not"),
    "--norm none,,batch": (2, "element 2 of 'none,,batch' must be a word, but is empty"),
    "--seeds three": (2, "Invalid value for '--seeds': it must be a whole number, but is 'three'"),
    "--dropout 0,5": (2, "Invalid value for '--dropout': it must be a number, but is '0,5'"),
    "--nrom none": (2, "--norm"),
}


@pytest.fixture(scope="module")
def outcomes(shared_cli):
    """Each case's status, output and errors, all from one process."""
    (shared_cli.folder / "nets.py").write_text(OWN)
    (shared_cli.folder / "a_binary_file.py").write_bytes(b"net = 1\0")
    commands = [["compare", "--out", "none-here", *case.split()] for case in CASES]
    script = str(Path(__file__).with_name("many_commands.py"))
    done = shared_cli.run(json.dumps(commands), program=(sys.executable, script))
    assert done.status == 0, done.errors
    return dict(zip(CASES, json.loads(done.output), strict=True))


def on_one_line(errors: str) -> str:
    """Usage errors come in a box, wrapped."""
    return " ".join(errors.replace("│", " ").split())


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_is_wrong(outcomes, case):
    wanted, words = CASES[case]
    status, output, errors = outcomes[case]
    assert status == wanted, errors
    assert words in on_one_line(errors)
    assert output == ""


@pytest.mark.parametrize("case", [case for case in CASES if case != "nets.py:broken"])
def test_error_is_told_without_a_traceback(outcomes, case):
    assert "Traceback" not in outcomes[case][2]


def test_error_is_the_last_line_and_plain(outcomes):
    _, _, errors = outcomes["--norm bach"]
    assert errors.splitlines()[-1].startswith("error: ")
    assert "\x1b" not in errors


def test_exception_of_the_users_own_is_shown_as_python_shows_it(outcomes):
    _, _, errors = outcomes["nets.py:broken"]
    shown = errors[errors.index("Traceback (most recent call last):") :].splitlines()
    assert shown[1].endswith('nets.py", line 15, in broken')  # where normwright called it from says nothing
    assert shown[2:] == [
        '    raise LookupError("no [bold]such[/bold] layer")',
        "LookupError: no [bold]such[/bold] layer",
        "Nothing was trained.",
    ]
    assert "error: LookupError: no [bold]such[/bold] layer in nets.py:broken on digits" in errors


def test_nothing_is_trained(outcomes, shared_cli):
    assert list(shared_cli.folder.glob("*/checkpoints")) == []


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_missing_extra_names_the_command_that_installs_it(cli, package):
    blocked = f"import sys; sys.modules[{package!r}] = None; from normwright.cli import main; main()"
    outcome = cli.run("backends", program=(sys.executable, "-c", blocked))
    assert outcome.status == 1
    assert outcome.errors == (
        f"error: this command needs the package {package!r}, which is not installed: "
        "pip install 'normwright[lab]'\n"
    )
