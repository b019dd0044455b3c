"""`normwright claims` as a user runs it, on a claim that is made up."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

MADE_UP = str(Path(__file__).parents[1] / "lab" / "book")

if MADE_UP not in sys.path:
    sys.path.append(MADE_UP)

from made_up import calls, write_claim  # noqa: E402  # found by the lines above

# The command with the claims of the folder `claims`, and no others.
SCRIPT = """
import sys
from pathlib import Path
from normwright.lab import claims

claims.__path__[:] = [str(Path("claims").absolute())]
if __name__ == "__main__":
    from normwright.cli import main
    main()
"""

# Waits in the measurement of the third seed until the test lets it go on.
GATE = """
    import time
    while (HERE / "gate").exists() and seed == 2:
        (HERE / "waiting").touch()
        time.sleep(0.005)
"""

# Waits in the forward pass once so many runs are finished.
GATED_NETWORK = """
import time
from pathlib import Path
from torch import nn

here = Path(__file__).parent

class Gated(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))

    def forward(self, x):
        while (here / "gate").exists() and len(list(here.glob("out/checkpoints/*.safetensors"))) >= 2:
            (here / "waiting").touch()
            time.sleep(0.005)
        return self.layers(x)

def network(shape, classes):
    return Gated(classes)
"""
OUT = ("--jobs", "1", "--out", "out")


class Claims:
    """`normwright claims` in the folder of a test."""

    def __init__(self, cli):
        self.cli, self.folder = cli, cli.folder
        self.folder.joinpath("normwright_tiny.py").write_text(SCRIPT)
        self.program = (sys.executable, "normwright_tiny.py")
        write_claim(self.folder / "claims", 90)

    def __call__(self, *arguments):
        return self.cli.run("claims", *arguments, program=self.program)

    def start(self, *arguments):
        return self.cli.start("claims", *arguments, program=self.program)

    def kept(self):
        """When each checkpoint and trial was written."""
        places = [*self.folder.glob("out/checkpoints/*"), *self.folder.glob("out/trials/*")]
        return {path.name: path.stat().st_mtime_ns for path in places}


@pytest.fixture
def claims(cli):
    return Claims(cli)


@pytest.fixture(scope="module")
def shared(shared_cli):
    return Claims(shared_cli)


@pytest.fixture(scope="module")
def done(shared):
    """Two claims, of which one was run."""
    write_claim(shared.folder / "claims", 91)
    outcome = shared("run", "90", *OUT)
    assert outcome.status == 0, outcome.errors
    return outcome


def test_list_says_what_is_predicted_and_what_came_out(shared, done):
    bare = shared()
    assert bare.status == 0, bare.errors
    assert bare.output.splitlines()[0] == "2 claims. No claim has been run."
    assert "verdict" not in bare.output
    rows = shared("--out", "out").output.splitlines()
    assert rows[1].split()[:2] == ["no.", "claim"]
    assert re.search(
        r"^90 .*digits sooner\.  accuracy rises by at least 1 point  "
        r"(supported|not supported|refuted)\s+[−\d.]+ points \(",
        rows[2],
    )
    assert rows[3].rstrip().endswith("at least 1 point")


def test_list_as_json(shared, done):
    first, second = json.loads(shared("--out", "out", "--json").output)
    assert (first["number"], first["verdict"]) == (90, first["outcomes"][0]["verdict"])
    assert first["predictions"][0]["at_least"] == 1.0
    assert (second["number"], second["verdict"], second["outcomes"]) == (91, None, None)


def test_show_tells_everything(shared, done):
    told = " ".join(shared("show", "90", "--out", "out").output.split())
    for said in (
        "Claim 90: Batch norm learns [the] digits sooner.",
        "accuracy rises by at least 1 point (at least 1 points)",
        "A layer of 8 units.",
        "Validation accuracy after one epoch.",
        "Somebody 2015",
        "seed by seed",
        "14 runs",
        "Made by normwright claims run 90",
    ):
        assert said in told
    assert any(words in told for words in ("Take it.", "Try it.", "Leave it."))
    assert "Not run yet normwright claims run 91" in " ".join(
        shared("show", "91", "--out", "out").output.split()
    )
    assert json.loads(shared("show", "90", "--out", "out", "--json").output)["record"]["seeds"] == 5


def test_run_shows_progress_verdict_table_and_where_the_book_is(shared, done):
    lines = done.errors.splitlines()
    assert lines[:2] == ["preparing 1 claim", "training 4 runs, 1 at a time (claims 90)"]
    assert "  100 %: 4 of 4 runs done" in lines
    assert lines[-2] == "measuring claim 90 (made_up_90)"
    assert re.match(r"claim 90, (supported|not supported|refuted): [−\d.]+ points \(", lines[-1])
    heads, row, book = done.output.splitlines()[1:]
    assert heads.split() == [
        "no.",
        "claim",
        "verdict",
        "effect,",
        "with",
        "its",
        "95",
        "%",
        "interval",
        "cost",
    ]
    assert row.rstrip().endswith("s on one core")
    assert book == "book: out/book.html"
    assert "<html" in (shared.folder / "out" / "book.html").read_text()
    assert [path.name for path in (shared.folder / "out" / "records").iterdir()] == ["90-made_up_90.json"]


def test_same_command_does_nothing_twice_and_json_is_all_of_the_output(shared, done):
    before, measured = shared.kept(), calls(shared.folder / "claims")
    again = shared("run", "90", *OUT, "--json")
    assert again.status == 0
    (record,) = json.loads(again.output)
    assert (record["number"], record["cost"]["runs"]) == (90, 14)
    assert "training" not in again.errors
    assert shared.kept() == before
    assert calls(shared.folder / "claims") == measured


def test_several_jobs_give_the_same_trials(shared, done, claims):
    write_claim(claims.folder / "claims", 91)
    outcome = claims("run", "90", "--jobs", "2", "--out", "out")
    assert outcome.status == 0, outcome.errors
    ours, theirs = (
        [json.loads(path.read_text())["trial"] for path in sorted(folder.glob("out/trials/90-*"))]
        for folder in (claims.folder, shared.folder)
    )
    assert ours == theirs


def test_quick_leans_and_gives_no_verdict(claims):
    outcome = claims("run", "--all", "--quick", "--seeds", "2", *OUT)
    assert outcome.status == 0, outcome.errors
    assert "claim 90, leaning: " in outcome.errors
    assert "1 claim has no verdict yet, leaning: " in outcome.output
    assert outcome.output.count("verdict") == outcome.output.count("no verdict")
    assert claims("--out", "out").output.count("verdict") == 1


def test_the_page_is_made_again_from_records_alone(shared, done, claims):
    shutil.copytree(shared.folder / "out" / "records", claims.folder / "records")
    files = ("--out", "page.html", "--markdown", "README.md", "--picture", "overview.png")
    outcome = claims("book", "--records", "records", *files)
    assert outcome.output == "written: page.html\nwritten: README.md\n"
    assert (claims.folder / "page.html").read_text() == (shared.folder / "out" / "book.html").read_text()
    table = (claims.folder / "README.md").read_text()
    assert "| 90 | Batch norm learns \\[the\\] digits sooner. |" in table
    assert "(overview.png)" in table
    assert "(page.html)" in table
    again = claims("book", "--records", "records", *files)
    assert (again.status, again.errors) == (
        1,
        "error: page.html exists: choose another --out, or replace it by --force\n",
    )
    assert claims("book", "--records", "records", *files, "--force").status == 0
    # the book's folder does, too
    assert shared("book", "--records", "out", "--out", "again.html").status == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "92"), "must be one of 90, but is 92"),
        (("run", "90", "0"), "must be one of 90, but is 0"),
        (("show", "7"), "must be one of 90, but is 7"),
        (("run",), "either numbers of claims or --all"),
        (("run", "90", "--all"), "either numbers of claims or --all"),
        (("run", "four"), "'four' is not a valid int"),
        (("run", "90", "--seeds", "0"), "0 is not in the range x>=1"),
        (("--out", "there", "run", "90"), "--out must stand behind the command"),
        (("--json", "show", "90"), "--json must stand behind the command"),
        (
            ("book", "--records", ".", "--out", "a.html", "--picture", "a.png"),
            "--picture goes with --markdown",
        ),
    ],
)
def test_wrong_usage_says_what_is_right_and_does_nothing(arguments, message, claims):
    outcome = claims(*arguments)
    assert outcome.status == 2
    assert message in re.sub(r"[\s│]+", " ", outcome.errors)
    assert not (claims.folder / "normwright-claims").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "nowhere"), "error: --out must be the folder of a book, but there is no folder nowhere\n"),
        (
            ("book", "--records", "nowhere", "--out", "a.html"),
            "error: --records must be the folder of a book, but there is no folder nowhere\n",
        ),
        (
            ("book", "--records", "claims", "--out", "a.html"),
            "error: --records must hold records of claims, but claims holds none: `normwright claims run` "
            "makes them\n",
        ),
        (("book", "--records", "claims", "--out", "a.pdf"), "error: --out must end in .html, but is a.pdf\n"),
    ],
)
def test_folders_and_files_that_do_not_do_are_told(arguments, message, claims):
    outcome = claims(*arguments)
    assert (outcome.status, outcome.errors) == (1, message)


def test_a_half_written_record_is_told_before_the_work(shared, done, claims):
    shutil.copytree(shared.folder / "out", claims.folder / "out")
    (record,) = (claims.folder / "out" / "records").iterdir()
    half = record.read_bytes()[:300]
    record.write_bytes(half)
    for arguments in (("run", "90", *OUT), ("--out", "out"), ("book", "--records", "out", "--out", "a.html")):
        outcome = claims(*arguments)
        assert outcome.status == 1
        assert outcome.errors.startswith(f"error: out/records/{record.name} must be the record of a claim")
        assert "remove the file and run the claim again" in outcome.errors
    assert record.read_bytes() == half
    record.unlink()
    assert claims("run", "90", *OUT).status == 0
    assert calls(claims.folder / "claims") == []  # from the trials that are kept


def test_a_half_written_store_is_told_and_left_alone(shared, done, claims):
    shutil.copytree(shared.folder / "out", claims.folder / "out")
    store = claims.folder / "out" / "experiment.sqlite"
    half = store.read_bytes()[: store.stat().st_size // 2]
    store.write_bytes(half)
    outcome = claims("run", "90", *OUT)
    assert outcome.status == 1
    assert outcome.errors.splitlines()[-1].startswith("error: out/experiment.sqlite: it is half-written")
    assert store.read_bytes() == half


def test_a_claim_that_cannot_be_imported_is_named(claims):
    (claims.folder / "claims" / "broken.py").write_text("1 / 0\n")
    outcome = claims()
    assert outcome.status == 1
    assert outcome.errors.startswith("error: ZeroDivisionError: division by zero\nin the file of the claim ")
    assert "claims.broken" in outcome.errors


def test_an_exception_in_an_experiment_is_shown_as_python_shows_it(claims):
    write_claim(claims.folder / "claims", 90, measure='if seed == 1: raise LookupError("no [such] layer")')
    outcome = claims("run", "90", *OUT)
    assert outcome.status == 1
    assert "error: LookupError: no [such] layer\nin claim 90 (made_up_90), seed 1\n" in outcome.errors
    assert 'made_up_90.py", line 19, in experiment' in outcome.errors
    assert outcome.errors.splitlines()[-1].endswith("run the same command again to go on.")
    assert len(list((claims.folder / "out" / "trials").iterdir())) == 1


# ---- stopped, and two at once


def stopped(claims, wait_for, number):
    """The command, stopped by a signal where it waits; its status and standard error."""
    (claims.folder / "waiting").unlink(missing_ok=True)
    process = claims.start("run", "90", *OUT)
    wait_for(claims.folder / "waiting", process)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.fixture
def gated(claims):
    """A claim whose network waits in its third run, and whose third measurement waits, too."""
    (claims.folder / "gated.py").write_text(GATED_NETWORK)
    gate = GATE.replace('HERE / "waiting"', 'HERE.parent / "waiting"')
    write_claim(
        claims.folder / "claims",
        90,
        measure=gate.strip().replace("\n    ", "\n    "),
        **{'"mlp",_"digits",_norm=norm,_depth=1,_width=8': '"gated.py:network", "digits", norm=norm'},
    )
    return claims


def test_stopped_in_training_and_in_measuring_it_goes_on_and_does_nothing_twice(gated, wait_for):
    (gated.folder / "gate").touch()
    status, errors = stopped(gated, wait_for, signal.SIGINT)
    assert status == 130
    assert errors.splitlines()[-1] == (
        "stopped: all that is finished is kept in out; run the same command again to go on"
    )
    assert "Traceback" not in errors
    first = gated.kept()
    assert len(first) == 2

    (gated.folder / "gate").rename(gated.folder / "claims" / "gate")
    status, errors = stopped(gated, wait_for, signal.SIGINT)
    assert status == 130
    assert errors.splitlines()[-1].startswith("stopped: all that is finished is kept in out")
    assert "Traceback" not in errors
    second = gated.kept()
    assert len(second) == 14 + 2
    assert first.items() <= second.items()
    assert stopped(gated, wait_for, signal.SIGKILL)[0] == -signal.SIGKILL

    (gated.folder / "claims" / "gate").unlink()
    ended = gated("run", "90", *OUT)
    assert ended.status == 0, ended.errors
    assert "training" not in ended.errors
    third = gated.kept()
    assert len(third) == 14 + 5
    assert second.items() <= third.items()
    # the third seed was begun three times, and every other one once
    assert sorted(calls(gated.folder / "claims")) == ["90:0", "90:1", "90:2", "90:2", "90:2", "90:3", "90:4"]


def test_stopped_after_a_verdict_the_page_is_there(claims, wait_for):
    write_claim(claims.folder / "claims", 89)
    gate = GATE.replace('HERE / "waiting"', 'HERE.parent / "waiting"')
    write_claim(claims.folder / "claims", 90, measure=gate.strip())
    (claims.folder / "claims" / "gate").touch()
    process = claims.start("run", "--all", *OUT)
    wait_for(claims.folder / "waiting", process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith(
        "stopped: 1 judged claim and all that is finished is kept in out"
    )
    page = (claims.folder / "out" / "book.html").read_text()
    assert 'id="claim-89"' in page
    assert 'id="claim-90"' not in page


def test_a_second_one_in_the_same_folder_is_told_and_the_first_goes_on(gated, wait_for):
    (gated.folder / "claims" / "gate").touch()
    process = gated.start("run", "90", *OUT)
    wait_for(gated.folder / "waiting", process)
    second = gated("run", "90", *OUT)
    assert second.status == 1
    assert "error: one process at a time must run claims in a folder, but another runs some in out" in (
        second.errors
    )
    (gated.folder / "claims" / "gate").unlink()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_help_has_examples_and_fits_80_columns(cli):
    heavy = ("plotly", "normwright.lab.book.bench", "scipy")
    for arguments in (("claims", "--help"), ("claims", "run", "--help"), ("claims", "book", "--help")):
        script = (
            "import atexit, sys\n"
            f"atexit.register(lambda: sys.stderr.write(repr([m for m in {heavy!r} if m in sys.modules])))\n"
            f"sys.argv[1:] = {list(arguments)!r}\n"
            "from normwright.cli import main\n"
            "main()\n"
        )
        outcome = cli.run(program=(sys.executable, "-c", script))
        assert outcome.status == 0
        assert "\n   normwright claims" in outcome.output
        assert max(map(len, outcome.output.splitlines())) <= 80
        assert outcome.errors == "[]"
