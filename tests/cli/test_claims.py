"""`normwright claims` as a user runs it, on a claim that is made up."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import re
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

MADE_UP = str(Path(__file__).parents[1] / "lab" / "book")

if MADE_UP not in sys.path:
    sys.path.append(MADE_UP)

from made_up import calls, write_claim  # noqa: E402  # found by the lines above

# The command with the claims of the folder `claims`, and no others; or many commands, one after the other.
SCRIPT = f"""
import json, sys
from pathlib import Path
from normwright.lab import claims

sys.path.append({str(Path(__file__).parent)!r})
claims.__path__[:] = [str(Path("claims").absolute())]
if __name__ == "__main__":
    from many_commands import main, run
    if sys.argv[1] != "many":
        main()
    json.dump([run(["claims", *arguments]) for arguments in json.loads(sys.argv[2])], sys.stdout)
"""

# Waits in the measurement of the third seed until the test lets it go on.
GATE = """
    import time
    while (HERE / "gate").exists() and seed == 2:
        (HERE.parent / "waiting").touch()
        time.sleep(0.005)
""".strip()

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
    """`normwright claims` in a folder of its own."""

    def __init__(self, cli):
        self.cli, self.folder = cli, cli.folder
        self.folder.joinpath("tiny.py").write_text(SCRIPT)
        self.program = (sys.executable, "tiny.py")

    def __call__(self, *arguments):
        return self.cli.run("claims", *arguments, program=self.program)

    def many(self, commands):
        """Outcomes of several commands that run in one process, for the time that its imports take."""
        done = self.cli.run("many", json.dumps(list(map(list, commands))), program=self.program)
        assert done.status == 0, done.errors
        return dict(zip(commands, itertools.starmap(Outcome, json.loads(done.output)), strict=True))

    def start(self, *arguments):
        return self.cli.start("claims", *arguments, program=self.program)

    def kept(self):
        """When each checkpoint and trial was written."""
        places = [*self.folder.glob("out/checkpoints/*"), *self.folder.glob("out/trials/*")]
        return {path.name: path.stat().st_mtime_ns for path in places}


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    status: int
    output: str
    errors: str

    @property
    def message(self):
        """The standard error as words, without the frame around them."""
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", self.errors).split())


@pytest.fixture
def claims(cli):
    return Claims(cli)


@pytest.fixture(scope="module")
def shared(shared_cli):
    shared = Claims(shared_cli)
    write_claim(shared.folder / "claims", 90)
    write_claim(shared.folder / "claims", 91)
    write_claim(shared.folder / "claims", 92, measure='if seed == 1: raise LookupError("no [such] layer")')
    return shared


LIST, RUN, AGAIN = (), ("run", "90", *OUT), ("run", "90", *OUT, "--json")
LISTED, LISTED_JSON = ("--out", "out"), ("--out", "out", "--json")
SHOW, SHOW_OTHER = ("show", "90", "--out", "out"), ("show", "91", "--out", "out")
SHOW_JSON = (*SHOW, "--json")
RAISES = ("run", "92", "--jobs", "1", "--seeds", "2", "--out", "raises")
QUICK = ("run", "91", "90", "--quick", "--seeds", "2", "--jobs", "1", "--out", "quick")
QUICK_LISTED = ("--out", "quick")
FILES = ("--out", "page.html", "--markdown", "README.md", "--picture", "overview.png")
BOOK = ("book", "--records", "out/records", *FILES)
BOOK_FORCED = (*BOOK, "--force")
BOOK_OF_FOLDER = ("book", "--records", "out", "--out", "again.html")

USAGE = {
    ("run", "95"): "must be one of 90 to 92, but is 95: `normwright claims` lists them",
    ("run", "90", "0"): "must be one of 90 to 92, but is 0",
    ("show", "7"): "must be one of 90 to 92, but is 7",
    ("run",): "either numbers of claims or --all",
    ("run", "90", "--all"): "either numbers of claims or --all",
    ("run", "--quick", "0", "four", "90", "5th"): "a claim is named by its number, but came 'four', '5th'; "
    "a claim's number must be one of 90 to 92, but is 0",
    ("show", "four"): "a claim is named by its number, but came 'four'",
    ("run", "90", "--seeds", "0"): "should be greater than or equal to 1",
    ("run", "90", "--jobs", "0"): "should be greater than or equal to 1",
    ("--out", "out", "run", "90"): "--out must stand behind the command",
    ("run", "90", "--out", ""): "a folder must be named, but the name is empty",
    ("--out", ""): "a folder must be named, but the name is empty",
    ("book", "--records", "", "--out", "a.html"): "a folder must be named, but the name is empty",
    ("--json", "show", "90"): "--json must stand behind the command",
    ("book", "--records", ".", "--out", "a.html", "--picture", "a.png"): "--picture goes with --markdown",
}
ERRORS = {
    ("--out", "nowhere"): "--out must be the folder of a book, but there is no folder nowhere",
    ("--out", "claims"): (
        "--out must hold records of claims, but claims holds none: `normwright claims run` makes them"
    ),
    ("book", "--records", "nowhere", "--out", "a.html"): (
        "--records must be the folder of a book, but there is no folder nowhere"
    ),
    ("book", "--records", "claims", "--out", "a.html"): (
        "--records must hold records of claims, but claims holds none: `normwright claims run` makes them"
    ),
    ("book", "--records", "out", "--out", "a.pdf"): "--out must end in .html, but is a.pdf",
    ("book", "--records", "out", "--out", "page.html"): (
        "page.html exists: choose another --out, or replace it by --force"
    ),
}


@pytest.fixture(scope="module")
def told(shared):
    """What many commands said, by their arguments."""
    usual = (LIST, RUN, LISTED, LISTED_JSON, SHOW, SHOW_OTHER, SHOW_JSON, AGAIN, RAISES, QUICK, QUICK_LISTED)
    return shared.many((*usual, BOOK, BOOK_FORCED, BOOK_OF_FOLDER, *USAGE, *ERRORS))


def test_list_says_what_is_predicted_and_what_came_out(told):
    assert told[LIST].output.splitlines()[0] == "3 claims. No claim has been run."
    assert "results are in docs/claims of its repository" in " ".join(told[LIST].output.split())
    assert "verdict" not in told[LIST].output
    rows = told[LISTED].output.splitlines()
    assert rows[1].split()[:2] == ["no.", "claim"]
    assert re.search(
        r"^90 .*digits sooner\.  accuracy rises by at least 1 point  "
        r"(supported|not supported|refuted)\s+[−\d.]+ points \(",
        rows[2],
    )
    assert rows[3].rstrip().endswith("at least 1 point")


def test_a_terminal_of_80_columns_shows_blocks(shared, told):
    ours, theirs = pty.openpty()
    process = shared.cli.start(
        "claims", *LISTED, program=shared.program, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = b""
    with contextlib.suppress(OSError):  # the terminal is closed with its last process
        while part := os.read(ours, 4096):
            screen += part
    os.close(ours)
    assert process.wait(120) == 0
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in screen.decode().splitlines()]
    assert max(map(len, lines)) <= 80
    block = next(place for place, line in enumerate(lines) if line.startswith(" 90  Batch norm learns"))
    words = " ".join(" ".join(lines[block:]).split())
    assert re.match(
        r"90 Batch norm learns \[the\] digits sooner\. (supported|not supported|refuted) – accuracy rises by "
        r"at least 1 point: [−\d.]+ points \(",
        words,
    )


def test_list_as_json(told):
    first, second, _ = json.loads(told[LISTED_JSON].output)
    assert (first["number"], first["verdict"]) == (90, first["outcomes"][0]["verdict"])
    assert first["predictions"][0]["at_least"] == 1.0
    assert (second["number"], second["verdict"], second["outcomes"]) == (91, None, None)


def test_show_tells_everything(told):
    words = " ".join(told[SHOW].output.split())
    for said in (
        "Claim 90: Batch norm learns [the] digits sooner.",
        "accuracy rises by at least 1 point (at least 1 point)",
        "A layer of 8 units.",
        "Validation accuracy after one epoch.",
        "Somebody 2015",
        "seed by seed",
        "Learning rates, chosen on validation data",
        "of 0.3, 1",
        "14 runs",
        "Made by normwright claims run 90",
    ):
        assert said in words
    assert any(paragraph in words for paragraph in ("Take it.", "Try it.", "Leave it."))
    assert "Not run yet normwright claims run 91" in " ".join(told[SHOW_OTHER].output.split())
    assert json.loads(told[SHOW_JSON].output)["record"]["seeds"] == 5


def test_run_shows_progress_verdict_table_and_where_the_book_is(shared, told):
    lines = told[RUN].errors.splitlines()
    assert lines[:2] == ["preparing 1 claim", "training 4 runs, 1 at a time (claims 90)"]
    assert "  100 %: 4 of 4 runs done" in lines
    assert lines[-2] == "measuring claim 90 (made_up_90)"
    assert re.match(r"claim 90, (supported|not supported|refuted): [−\d.]+ points \(", lines[-1])
    heads, row, book = told[RUN].output.splitlines()[1:]
    assert heads.split()[:5] == ["no.", "claim", "verdict", "effect,", "with"]
    assert row.rstrip().endswith("s on one core")
    assert book == "book: out/book.html"
    assert "<html" in (shared.folder / "out" / "book.html").read_text()
    assert [path.name for path in (shared.folder / "out" / "records").iterdir()] == ["90-made_up_90.json"]


def test_same_command_does_nothing_twice_and_json_is_all_of_the_output(shared, told):
    (record,) = json.loads(told[AGAIN].output)
    assert (record["number"], record["cost"]["runs"]) == (90, 14)
    assert "training" not in told[AGAIN].errors
    measured = calls(shared.folder / "claims")
    assert measured[:5] == [f"90:{seed}" for seed in range(5)]
    assert measured.count("90:0") == 2  # once more in the quick run


def test_quick_leans_and_gives_no_verdict(told):
    assert re.findall(r"claim (\d+), leaning: ", told[QUICK].errors) == ["90", "91"]
    assert "2 claims have no verdict yet, leaning: " in told[QUICK].output
    for outcome in (told[QUICK], told[QUICK_LISTED]):
        assert outcome.output.count("verdict") == outcome.output.count("no verdict") == 1


def test_the_page_is_made_again_from_records_alone(shared, told):
    assert told[BOOK].output == told[BOOK_FORCED].output == "written: page.html\nwritten: README.md\n"
    book = (shared.folder / "out" / "book.html").read_text()
    assert (shared.folder / "page.html").read_text() == (shared.folder / "again.html").read_text() == book
    table = (shared.folder / "README.md").read_text()
    assert "| 90 | Batch norm learns \\[the\\] digits sooner. |" in table
    assert "(overview.png)" in table
    assert "(page.html)" in table


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_usage_says_what_is_right(arguments, told):
    assert told[arguments].status == 2
    assert USAGE[arguments] in told[arguments].message


@pytest.mark.parametrize("arguments", ERRORS, ids=" ".join)
def test_folders_and_files_that_do_not_do_are_told(arguments, told):
    assert (told[arguments].status, told[arguments].errors) == (1, f"error: {ERRORS[arguments]}\n")


def test_wrong_usage_leaves_nothing_behind(shared, told):
    assert not (shared.folder / "normwright-claims").exists()


def test_an_exception_in_an_experiment_is_shown_as_python_shows_it(shared, told):
    assert told[RAISES].status == 1
    assert "error: LookupError: no [such] layer\nin claim 92 (made_up_92), seed 1\n" in told[RAISES].errors
    assert 'made_up_92.py", line 19, in experiment' in told[RAISES].errors
    assert told[RAISES].errors.splitlines()[-1].endswith("run the same command again to go on.")
    assert len(list((shared.folder / "raises" / "trials").iterdir())) == 1


def test_half_written_files_are_told_before_the_work_and_left_alone(shared, told, claims):
    """But for the record of what is run, which is written anew."""
    for name in ("claims", "out"):
        shutil.copytree(shared.folder / name, claims.folder / name)
    shutil.copytree(shared.folder / "out", claims.folder / "store")
    (record,) = (claims.folder / "out" / "records").iterdir()
    store = claims.folder / "store" / "experiment.sqlite"
    halves = {path: path.read_bytes()[: path.stat().st_size // 2] for path in (record, store)}
    for path, half in halves.items():
        path.write_bytes(half)
    of_store = ("run", "90", "--jobs", "1", "--out", "store")
    other, smaller = ("run", "91", *OUT), ("run", "90", "--quick", *OUT)
    said = claims.many((other, smaller, LISTED, BOOK, of_store))
    for arguments in (other, smaller, LISTED, BOOK):
        assert said[arguments].status == 1
        assert said[arguments].errors.startswith(
            f"error: out/records/{record.name} must be the record of a claim"
        )
        assert "remove the file and run the claim again" in said[arguments].errors
    assert said[of_store].status == 1
    assert "error: store/experiment.sqlite: it is half-written" in said[of_store].errors
    assert {path: path.read_bytes() for path in halves} == halves

    measured = calls(claims.folder / "claims")
    again = claims(*RUN, "--jobs", "2")
    assert again.status == 0, again.errors
    assert calls(claims.folder / "claims") == measured  # from the trials that are kept
    assert json.loads(record.read_text())["number"] == 90
    assert 'id="claim-90"' in (claims.folder / "out" / "book.html").read_text()


def test_several_jobs_give_the_same_trials(shared, told, claims):
    shutil.copytree(shared.folder / "claims", claims.folder / "claims")
    outcome = claims("run", "90", "--jobs", "2", "--out", "out")
    assert outcome.status == 0, outcome.errors
    ours, theirs = (
        [json.loads(path.read_text())["trial"] for path in sorted(folder.glob("out/trials/90-*-full-*"))]
        for folder in (claims.folder, shared.folder)
    )
    assert len(ours) == 5
    assert ours == theirs


def test_a_claim_that_cannot_be_imported_is_named(claims):
    write_claim(claims.folder / "claims", 90)
    (claims.folder / "claims" / "broken.py").write_text("1 / 0\n")
    outcome = claims()
    assert outcome.status == 1
    assert outcome.errors == (
        "error: ZeroDivisionError: division by zero\nwhile importing the claim normwright.lab.claims.broken: "
        "put its file right\n"
    )


@pytest.fixture(scope="module")
def story(shared_cli, tmp_path_factory, wait_for):
    """Ctrl-C in the third run; Ctrl-C in the third measurement, with another beside it; then to the end."""
    claims = Claims(type(shared_cli)(tmp_path_factory.mktemp("story")))
    folder = claims.folder
    (folder / "gated.py").write_text(GATED_NETWORK)
    own = {'"mlp",_"digits",_norm=norm,_depth=1,_width=8': '"gated.py:network", "digits", norm=norm'}
    write_claim(folder / "claims", 89, **own)
    write_claim(folder / "claims", 90, measure=GATE, **own)
    every = ("run", "--all", *OUT)
    kept, ends, second = [], [], None
    for gate in (folder / "gate", folder / "claims" / "gate"):
        gate.touch()
        (folder / "waiting").unlink(missing_ok=True)
        process = claims.start(*every)
        wait_for(folder / "waiting", process)
        if gate.parent.name == "claims":
            second = claims(*every)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        ends.append((process.returncode, errors))
        kept.append(claims.kept())
        gate.unlink()
    page = (folder / "out" / "book.html").read_text()
    ended = claims(*every)
    return kept, ends, second, page, ended, claims


def test_ctrl_c_ends_with_130_and_says_what_is_kept(story):
    _, ends, _, _, _, _ = story
    lasts = [errors.splitlines()[-1] for _, errors in ends]
    assert [status for status, _ in ends] == [130, 130]
    kept = "all that is finished is kept in out; run the same command again to go on"
    assert lasts == [f"stopped: {kept}", f"stopped: 1 judged claim and {kept}"]
    assert not [errors for _, errors in ends if "Traceback" in errors]


def test_a_book_that_was_stopped_has_the_page_of_what_was_judged(story):
    page = story[3]
    assert 'id="claim-89"' in page
    assert 'id="claim-90"' not in page


def test_what_was_stopped_goes_on_and_does_nothing_twice(story):
    (first, second), _, _, _, ended, claims = story
    assert ended.status == 0, ended.errors
    assert "training" not in ended.errors
    third = claims.kept()
    assert (len(first), len(second), len(third)) == (2, 14 + 5 + 2, 14 + 5 + 5)
    assert first.items() <= second.items() <= third.items()
    # the third seed of the second claim was begun twice, and every other one once
    assert sorted(calls(claims.folder / "claims")) == sorted(
        [*(f"{claim}:{seed}" for claim in (89, 90) for seed in range(5)), "90:2"]
    )


def test_a_second_one_in_the_same_folder_is_told(story):
    second = story[2]
    assert second.status == 1
    assert second.errors.splitlines()[-1] == (
        "error: one process at a time must run claims in a folder, but another runs some in out: wait until "
        "it ends, or choose another --out"
    )


def test_help_has_examples_fits_80_columns_and_imports_little(cli):
    heavy = ("plotly", "normwright.lab.book.bench", "scipy")
    script = (
        "import atexit, sys\n"
        f"atexit.register(lambda: sys.stderr.write(repr([m for m in {heavy!r} if m in sys.modules])))\n"
        "sys.argv[1:] = ['claims', 'run', '--help']\n"
        "from normwright.cli import main\n"
        "main()\n"
    )
    outcome = cli.run(program=(sys.executable, "-c", script))
    assert outcome.status == 0
    assert outcome.output.count("\n   normwright claims run") == 3
    assert max(map(len, outcome.output.splitlines())) <= 80
    assert outcome.errors == "[]"
