"""The command as a whole: its help, its version, and the backends."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import typer

import normwright
from normwright.cli.app import app

# Imports of the heavy parts, which `--help` does without.
HEAVY = ("normwright.lab.compare", "plotly", "sklearn", "scipy", "safetensors")


def imported_by(cli, *arguments: str):
    """A command's outcome, with the heavy modules that it imported as its last line of errors."""
    script = (
        "import atexit, sys\n"
        f"atexit.register(lambda: sys.stderr.write(repr([m for m in {HEAVY!r} if m in sys.modules])))\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "from normwright.cli import main\n"
        "main()\n"
    )
    return cli.run(program=(sys.executable, "-c", script))


def test_help_lists_the_commands(cli):
    outcome = imported_by(cli, "--help")
    assert outcome.status == 0
    assert "compare" in outcome.output
    assert "backends" in outcome.output
    assert outcome.errors == "[]"


def test_help_of_compare_has_examples_and_fits_80_columns(cli):
    outcome = imported_by(cli, "compare", "--help")
    assert outcome.status == 0
    assert outcome.output.count("\n   normwright compare") >= 3
    assert "nets.py:wide --data data.py:rings" in outcome.output
    assert "\\" not in outcome.output  # what is copied runs as it is
    assert "\u00a0" not in outcome.output
    assert max(map(len, outcome.output.splitlines())) <= 80
    assert outcome.errors == "[]"


COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("command", COMMANDS)
def test_help_leaves_its_line_breaks_to_the_terminal(command):
    assert not re.search(r"\S\n\S", COMMANDS[command].help)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_copied_from_the_examples_is_one_line(command):
    for line in (COMMANDS[command].epilog or "").splitlines():
        assert len(line) <= 78 or "[" in line, line  # of 80 columns, two are the margin
        assert not line.startswith("    "), line


def test_version(cli):
    outcome = cli.run("--version", program=(sys.executable, "-m", "normwright.cli"))
    assert (outcome.status, outcome.output) == (0, f"normwright {normwright.__version__}\n")


def test_backends_says_why_one_is_not_loaded(cli):
    outcome = cli.run("backends")
    assert outcome.status == 0
    words = " ".join(outcome.output.split())
    for backend in normwright.backends():
        assert f"{backend.name} {backend.devices} {'yes' if backend.loaded else 'no'}" in words


def test_backends_as_json(cli):
    outcome = cli.run("backends", "--json")
    assert [backend["name"] for backend in json.loads(outcome.output)] == [
        backend.name for backend in normwright.backends()
    ]


def test_closed_pipe_is_no_error_to_tell(cli):
    ours, theirs = os.pipe()
    os.close(ours)
    process = cli.start("backends", stdout=theirs)
    os.close(theirs)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (1, "")


def test_output_that_cannot_show_a_character_shows_another(cli):
    cli.environment["PYTHONIOENCODING"] = "ascii"
    outcome = cli.run("compare", "--help")
    assert (outcome.status, outcome.errors) == (0, "")
    assert "NAME,?" in outcome.output


NO_COMMANDS = {
    "freeze": "No such command 'freeze'. It keeps the weights",
    "unfreeze": "network = normwright.unfreeze(network)",
    "accelerate": "network = normwright.accelerate(network)",
    "acelerate": "No such command 'acelerate'. Did you mean 'accelerate'? It keeps",
    "recalibrat": "No such command 'recalibrat'. Did you mean 'recalibrate'?",
    "xyz": "No such command 'xyz'.",
}


def test_what_is_no_command_is_told_with_what_to_do(cli):
    asked = json.dumps([[name, "nets.py:net", "a.pt"] for name in NO_COMMANDS])
    outcome = cli.run(asked, program=(sys.executable, str(Path(__file__).with_name("many_commands.py"))))
    for said, (status, output, errors) in zip(NO_COMMANDS.values(), json.loads(outcome.output), strict=True):
        assert (status, output) == (2, "")
        assert said in " ".join(errors.replace("│", " ").split())


def test_ctrl_c_while_the_commands_are_imported_is_a_line(cli, tmp_path):
    (tmp_path / "typer.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from normwright.cli import main; main()"
    outcome = cli.run(program=(sys.executable, "-c", script))
    assert outcome.status == 130
    assert outcome.errors == "\nstopped: nothing was written\n"
