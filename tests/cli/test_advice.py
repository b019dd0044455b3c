"""batch-size and lr: what they print and write, what they refuse, and their options."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import typing
from pathlib import Path

import pytest

import normwright as nw
from normwright.cli import batch_size, lr
from normwright.cli.advice_options import COMMAND_ONLY
from normwright.lab.advice.subject import OFFERED

OWN = """
import time
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

here = Path(__file__).parent
X, Y = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2

def net():
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

def sized(shape, classes):
    return nn.Sequential(nn.Linear(*shape, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))

def narrow():
    return nn.Linear(5, 2)

def few():
    return nn.Linear(8, 1)

class Hungry(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 2)

    def forward(self, x):
        if len(x) >= 16:
            torch.empty(2**50)
        return self.linear(x)

class Gated(Hungry):
    def forward(self, x):
        if len(x) >= 8:
            (here / "waiting").touch()
            while (here / "gate").exists():
                time.sleep(0.005)
        return self.linear(x)

def hungry():
    return Hungry()

def gated():
    return Gated()

def loader():
    print("making a loader")
    return DataLoader(TensorDataset(X, Y), batch_size=16)

def one():
    yield X, Y

def bare():
    yield X

def empty():
    return DataLoader(TensorDataset(X[:0], Y[:0]), batch_size=16)

def raises():
    yield X, Y
    raise OSError("the disk with the images is gone")

def vector(outputs, labels):
    return outputs.sum(1)
"""

SIZES = "batch-size own.py:net --threads 1 --seconds 0.01 --data"
RATES = "lr own.py:net --threads 1 --steps 20 --seeds 1 --batch-size 16 --data"

COMMANDS = {
    "sizes": f"{SIZES} own.py:loader --sizes 1,8,16 --out sizes.html",
    "json": f"{SIZES} own.py:loader --sizes 8,16 --json",
    "hungry": f"{SIZES.replace('net', 'hungry')} own.py:loader",
    "name": "batch-size mlp --data digits --depth 1 --width 4 --threads 1 --seconds 0.01 --sizes 8 "
    "--norm layer",
    "sized": f"{SIZES.replace('net', 'sized')} own.py:one --sizes 8",
    "one": f"{SIZES} own.py:one --sizes 64",
    "rates": f"{RATES} own.py:loader --out rates.html",
    "rates json": f"{RATES} own.py:loader --json",
    "adamw": f"{RATES} own.py:loader --optimiser adamw --weight-decay 0.1 --low 1e-6 --high 1",
    "exists": f"{SIZES} own.py:loader --sizes 8 --out there.html",
    "force": f"{SIZES} own.py:loader --sizes 8 --out there.html --force",
    "ending": f"{SIZES} own.py:loader --out sizes.pdf",
    "folder": f"{RATES} own.py:loader --out nowhere/rates.html",
    "no labels": f"{SIZES} own.py:bare",
    "empty": f"{SIZES} own.py:empty",
    "raises": f"{SIZES} own.py:raises",
    "narrow": f"{SIZES.replace('net', 'narrow')} own.py:loader",
    "few": f"{SIZES.replace('net', 'few')} own.py:loader",
    "vector": f"{SIZES} own.py:loader --loss own.py:vector",
    "too large": f"{SIZES} own.py:loader --sizes 128,256",
    "too large a step": f"{RATES.replace('16', '128')} own.py:loader",
    "network": "batch-size lenets --data digits",
    "data": "lr mlp --data digit --batch-size 8",
    "norm": "lr mlp --data digits --norm bach --batch-size 8",
    "threads": f"{SIZES} own.py:loader --threads 0",
    "own": f"{SIZES} own.py:loader --depth 3",
    "own norm": f"{SIZES} own.py:one --sizes 8 --norm layer --initialisation xavier",
    "help sizes": "batch-size --help",
    "help rates": "lr --help",
}

# The exit status, and what must be on the standard error.
REFUSED = {
    "exists": "error: there.html exists: choose another --out, or replace it by --force",
    "ending": "error: --out must end in .html, but is sizes.pdf",
    "folder": "error: --out must be in a folder that exists, but nowhere does not: make it",
    "no labels": "error: a training step needs labels, so a batch must be (x, labels) or a mapping",
    "empty": "error: the data must hold at least one batch, but none came",
    "raises": "error: OSError: the disk with the images is gone",
    "narrow": "error: the network must take a batch of (2, 8) and (2,), but raised RuntimeError",
    "few": "error: the network must have an output for every class, but has 1 output, and a label is 1",
    "vector": "own.py:vector must return a scalar tensor, the loss, but returned a tensor of shape (2,)",
    "too large": "error: the data must hold at least as many samples as the smallest batch size (128)",
    "too large a step": "error: the data must hold at least one mini-batch of 128 samples, but hold 64",
    "network": "error: unknown network 'lenets': did you mean 'lenet'",
    "data": "error: unknown data set 'digit': did you mean 'digits'",
    "norm": "error: unknown normaliser 'bach': did you mean 'batch'",
    "own": "error: own.py:net builds its network itself, but depth came too: leave it out",
    "threads": "error: --threads must be at least 1, but is 0",
}


@pytest.fixture(scope="module")
def advice_cli(shared_cli):
    (shared_cli.folder / "own.py").write_text(OWN)
    (shared_cli.folder / "there.html").write_text("old")
    return shared_cli


@pytest.fixture(scope="module")
def outcomes(advice_cli):
    """Each command's status, output and errors, all from one process."""
    script = str(Path(__file__).with_name("many_commands.py"))
    commands = json.dumps([command.split() for command in COMMANDS.values()])
    done = advice_cli.run(commands, program=(sys.executable, script))
    assert done.status == 0, done.errors
    return dict(zip(COMMANDS, json.loads(done.output), strict=True))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in REFUSED])
def test_what_can_be_done_is_done(name, outcomes):
    status, _, errors = outcomes[name]
    assert status == 0, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_said_and_nothing_is_printed(name, outcomes):
    status, output, errors = outcomes[name]
    assert (status, output) == (1, "making a loader\n" if output else "")
    assert REFUSED[name] in errors.splitlines()[-1]
    assert ("Traceback" in errors) is (name == "raises")


def test_a_table_a_page_and_progress(outcomes, advice_cli):
    _, output, errors = outcomes["sizes"]
    lines = output.splitlines()
    assert lines[0] == "making a loader"
    assert lines[1].startswith("Take batch size ")
    assert "batch norm '1' would take a moment of one element" in output
    assert lines[-1] == "written: sizes.html"
    assert {"batch size 1", "batch size 8", "batch size 16"} <= set(errors.splitlines())
    assert (advice_cli.folder / "sizes.html").read_text().startswith("<!doctype html>")


def test_json_is_alone_on_the_standard_output(outcomes):
    _, output, errors = outcomes["json"]
    found = json.loads(output)
    assert found["recommended"] in [trial["batch_size"] for trial in found["trials"]] == [8, 16]
    assert "making a loader" in errors
    rates = json.loads(outcomes["rates json"][1])
    assert rates["batch_size"] == 16
    assert len(rates["ranges"][0]["curves"][0]["rates"]) <= 20


def test_used_up_memory_is_reported(outcomes):
    assert "No larger size was tried: batch size 16 ran out of memory." in outcomes["hungry"][1]
    assert "batch size 16: ran out of memory" in outcomes["hungry"][2]


def test_the_normaliser_of_a_name_and_the_rates_asked_for(outcomes):
    assert "has no batch norm that takes moments of the batch" in outcomes["name"][1]
    assert "  100 %: " in outcomes["adamw"][2]


def test_force_replaces_the_page(outcomes, advice_cli):
    assert outcomes["force"][0] == 0
    assert (advice_cli.folder / "there.html").read_text() != "old"


@pytest.mark.parametrize("name", ["help sizes", "help rates"])
def test_help_fits_80_columns(name, outcomes):
    assert max(map(len, outcomes[name][1].splitlines())) <= 80
    assert "Examples" in outcomes[name][1]


@pytest.mark.parametrize(
    ("command", "function"), [(batch_size.batch_size, nw.find_batch_size), (lr.lr, nw.lr_range_test)]
)
def test_every_argument_is_an_option(command, function):
    hints = typing.get_type_hints(command, include_extras=True)
    options = {name for name, hint in hints.items() if hasattr(hint, "__metadata__")}
    not_options = {"forward_fn", "on_stage", "on_progress", "options"}
    assert options - set(COMMAND_ONLY) == {*inspect.signature(function).parameters, *OFFERED} - not_options


def test_shown_defaults_are_those_of_the_functions():
    for command, function in ((batch_size.batch_size, nw.find_batch_size), (lr.lr, nw.lr_range_test)):
        hints = typing.get_type_hints(command, include_extras=True)
        for name, parameter in inspect.signature(function).parameters.items():
            shown = getattr(hints.get(name, object), "__metadata__", [None])[0]
            text = getattr(shown, "help", None) or ""
            default = parameter.default
            if isinstance(default, int | float) and not isinstance(default, bool):
                assert float(text.rpartition("[dim](")[2].removesuffix(")[/dim]")) == default, name


@pytest.mark.parametrize("command", ["batch-size own.py:gated", "lr own.py:gated --batch-size 8"])
def test_stopped_it_writes_nothing(command, advice_cli, wait_for):
    folder = advice_cli.folder
    (folder / "gate").touch()
    (folder / "waiting").unlink(missing_ok=True)
    process = advice_cli.start(*command.split(), "--data", "own.py:one", "--out", "stopped.html")
    wait_for(folder / "waiting", process)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (130, "")
    assert errors.splitlines()[-1] == "stopped: nothing was written"
    assert "Traceback" not in errors
    assert not (folder / "stopped.html").exists()
