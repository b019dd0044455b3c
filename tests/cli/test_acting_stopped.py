"""Stopped half-way, a command leaves the old output whole and nothing beside it."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import torch

from normwright.lab.user_code import resolve

ARGUMENTS = ("recalibrate", "nets.py:normed", "normed.pt", "--data", "batches.py:gated")

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}


@pytest.fixture
def normed_cli(resnet_cli):
    """The command beside the checkpoint of a network whose file takes no seconds to import."""
    network = resolve(f"{resnet_cli.folder / 'nets.py'}:normed")()
    torch.save(network.state_dict(), resnet_cli.folder / "normed.pt")
    return resnet_cli


@pytest.mark.parametrize("number", STATUS)
def test_stopped_command_leaves_the_old_output(normed_cli, wait_for, number):
    folder = normed_cli.folder
    (folder / "gate").touch()
    (folder / "waiting").unlink(missing_ok=True)
    (folder / "out.pt").write_bytes(b"old")
    before = {path.name for path in folder.iterdir()} | {"waiting"}
    process = normed_cli.start(*ARGUMENTS, "--out", "out.pt", "--force")
    wait_for(folder / "waiting", process)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == STATUS[number]
    assert output == ""
    if number != signal.SIGKILL:
        assert errors.splitlines()[-1] == "stopped: nothing was written"
        assert "Traceback" not in errors
    assert (folder / "out.pt").read_bytes() == b"old"
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == before - {"__pycache__"}


def test_nobody_reads_the_progress(normed_cli):
    (normed_cli.folder / "gate").unlink(missing_ok=True)
    ours, theirs = os.pipe()
    os.close(ours)
    process = normed_cli.start(*ARGUMENTS, "--out", "unread.pt", stderr=theirs)
    os.close(theirs)
    output, _ = process.communicate(timeout=120)
    assert (process.returncode, output) == (1, "")
    assert not (normed_cli.folder / "unread.pt").exists()


# The command, stopped where it has written its draft and waits for the disk.
HANGING = """
import os, time
from pathlib import Path
from normwright.cli import main

def fsync(handle):
    Path("writing").touch()
    time.sleep(600)

os.fsync = fsync
main()
"""


def writing_over(output, arguments, normed_cli, wait_for):
    """A command that hangs while it writes its draft beside an output that is there."""
    for name in ("gate", "writing"):
        (output.parent / name).unlink(missing_ok=True)
    output.write_bytes(b"old")
    process = normed_cli.start(*arguments, program=(sys.executable, "-c", HANGING))
    wait_for(output.parent / "writing", process)
    return process


def test_killed_while_it_writes_the_next_run_takes_the_draft_away(normed_cli, wait_for):
    folder = normed_cli.folder
    arguments = (*ARGUMENTS, "--out", "killed.pt", "--force")
    process = writing_over(folder / "killed.pt", arguments, normed_cli, wait_for)
    process.kill()
    process.communicate(timeout=120)
    assert (folder / "killed.pt").read_bytes() == b"old"
    assert len(list(folder.glob(".killed*"))) == 1
    assert normed_cli.run(*arguments).status == 0
    assert (folder / "killed.pt").read_bytes() != b"old"
    assert not list(folder.glob(".killed*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_writes_it_leaves_no_draft(normed_cli, wait_for, number):
    folder = normed_cli.folder
    arguments = (*ARGUMENTS, "--out", "stopped.pt", "--force")
    process = writing_over(folder / "stopped.pt", arguments, normed_cli, wait_for)
    assert len(list(folder.glob(".stopped*"))) == 1
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == STATUS[number]
    assert errors.splitlines()[-1] == "stopped: nothing was written"
    assert (folder / "stopped.pt").read_bytes() == b"old"
    assert not list(folder.glob(".stopped*"))
