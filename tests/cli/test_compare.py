"""`normwright compare` as a user runs it: one comparison, looked at from all sides."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
from pathlib import Path

import pytest

NORMS = ("none", "batch", "layer")
ARGUMENTS = ("--norm", ",".join(NORMS), "--lr", "1", "--batch-size", "64,256", "--out", "found")
RUNS = len(NORMS) * 2


@pytest.fixture(scope="module")
def done(shared_cli):
    """The comparison, trained."""
    outcome = shared_cli.small(*ARGUMENTS)
    assert outcome.status == 0, outcome.errors
    return outcome


@pytest.fixture(scope="module")
def kept(shared_cli, done) -> dict[str, int]:
    """When each run's weights were written."""
    return written(shared_cli.folder)


@pytest.fixture(scope="module")
def again(shared_cli, kept):
    """The same command once more, for a machine."""
    return shared_cli.small(*ARGUMENTS, "--json")


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "found" / "checkpoints").iterdir()}


def test_table_has_every_normaliser_at_every_batch_size(done):
    for size in (64, 256):
        _, table = done.output.split(f"mlp on digits, batch size {size}\n")
        rows = [line.split()[0] for line in table.splitlines()[:12] if line.split()]
        assert [row for row in rows if row in NORMS] == list(NORMS)


def test_verdict_is_told_for_each_batch_size(done):
    words = " ".join(done.output.split())
    # Each is either within chance or has one seed: in neither is there a winner.
    assert words.count("No winner: the best is within chance.") + words.count("One seed: no interval") == 2
    assert words.count("The highest was") == 2
    assert "does best" not in words


def test_report_is_written_where_it_says(shared_cli, done):
    assert "report: found/report.html\n" in done.output
    assert "<html" in (shared_cli.folder / "found" / "report.html").read_text()
    assert (shared_cli.folder / "found" / "table.md").read_text().startswith("# mlp on digits\n")
    records = json.loads((shared_cli.folder / "found" / "comparison.json").read_text())
    assert len(records["learning"]) == RUNS


def test_table_fits_a_terminal_of_80_columns(done):
    assert max(len(line.rstrip()) for line in done.output.splitlines()) <= 80


def test_progress_goes_to_the_standard_error_as_plain_lines(done):
    lines = done.errors.splitlines()
    assert lines[:2] == ["reading digits", f"training {RUNS} runs, 1 at a time"]
    assert f"  100 %: {RUNS} of {RUNS} runs done" in lines
    assert lines[-2:] == ["testing each normaliser at its best learning rate", "writing the report"]
    assert "\x1b" not in done.errors + done.output


def test_json_is_all_of_the_standard_output(again):
    assert again.status == 0
    found = json.loads(again.output)
    assert [(row["norm"], row["batch_size"]) for row in found["rows"]] == [
        (norm, size) for size in (64, 256) for norm in NORMS
    ]
    assert "reading digits" in again.errors


def test_same_command_trains_nothing_a_second_time(shared_cli, kept, again):
    assert f"training {RUNS} runs, {RUNS} of them done already" in again.errors
    assert written(shared_cli.folder) == kept


def test_command_that_is_printed_makes_the_same_comparison(shared_cli, kept, again):
    command = json.loads(again.output)["command"].split()
    assert command[0] == "normwright"
    outcome = shared_cli.run(*command[1:], "--jobs", "1", "--json")
    assert json.loads(outcome.output) == json.loads(again.output)
    assert written(shared_cli.folder) == kept


def test_half_written_store_is_told_and_left_alone(shared_cli, done, cli):
    shutil.copytree(shared_cli.folder / "found", cli.folder / "found")
    store = cli.folder / "found" / "experiment.sqlite"
    half = store.read_bytes()[: store.stat().st_size // 2]
    store.write_bytes(half)
    outcome = cli.small(*ARGUMENTS)
    assert outcome.status == 1
    assert outcome.errors.splitlines()[-1].startswith("error: found/experiment.sqlite: it is half-written")
    assert store.read_bytes() == half


def test_bars_on_a_terminal(shared_cli, done):
    screen = on_a_terminal(shared_cli, "compare", "--jobs", "1", *small_again())
    assert "\x1b[?25l" in screen  # the cursor is hidden while bars move
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")  # and shown again
    assert f"{RUNS}/{RUNS} runs" in screen
    assert "The highest was" in " ".join(screen.split())


def small_again() -> tuple[str, ...]:
    return ("--epochs", "1", "--seeds", "1", "--depth", "1", "--width", "8", "--records", "3", *ARGUMENTS)


def on_a_terminal(cli, *arguments: str) -> str:
    ours, theirs = pty.openpty()
    process = cli.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen = read_all(ours)
    os.close(ours)
    assert process.wait(120) == 0, screen
    return screen


def read_all(terminal: int) -> str:
    screen = b""
    while select.select([terminal], [], [], 120)[0]:
        try:
            screen += os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            return screen.decode()
    raise TimeoutError(screen)


def test_reader_that_leaves_ends_it_quietly(shared_cli, done):
    process = shared_cli.start("compare", "--jobs", "1", *small_again(), stderr=subprocess.STDOUT)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) == 1
