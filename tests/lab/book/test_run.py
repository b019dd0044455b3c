"""Claims that are made up, run to their end: what is kept, what is done once, and what goes on where."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from normwright.errors import OptionError, RunError, StoreError
from normwright.lab.book.alone import alone_in
from normwright.lab.book.claim import all_claims
from normwright.lab.book.record import read_records
from normwright.lab.book.run import run_claims
from normwright.lab.book.trials import Trials
from normwright.lab.store import Store
from normwright.report import claims_book

HERE = str(Path(__file__).parent)

if HERE not in sys.path:
    sys.path.append(HERE)

from made_up import calls, only_claims_of, write_claim  # noqa: E402  # found by the line above

PILOTS, SIDES = 4, 2


@pytest.fixture
def folder(tmp_path):
    """A folder of one claim, the only one there is."""
    write_claim(tmp_path / "claims", 90)
    with only_claims_of(tmp_path / "claims"):
        yield tmp_path


def run(folder, *numbers, **options):
    told = []
    records = run_claims(
        numbers or None, out=folder / "out", jobs=1, on_stage=told.append, on_record=told.append, **options
    )
    return records, told


def checkpoints(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "checkpoints").iterdir()}


def test_a_claim_is_run_to_its_end_and_nothing_is_done_twice(folder):
    (record,), told = run(folder)
    assert record.seeds == len(record.outcomes[0].values) == 5
    assert record.verdict in ("supported", "not supported", "refuted")
    assert record.cost.runs == PILOTS + 5 * SIDES
    assert record.command == "normwright claims run 90"
    assert len(record.lines[0].x) == len(record.lines[0].mean) == 2
    assert told == [
        "preparing 1 claim",
        f"training {PILOTS} runs, 1 at a time (claims 90)",
        f"training {5 * SIDES} runs, 1 at a time (claims 90)",
        "measuring claim 90 (made_up_90)",
        record,
    ]
    assert calls(folder / "claims") == [f"90:{seed}" for seed in range(5)]
    assert [(rate.side, rate.tried) for rate in record.rates] == [
        ("batch norm", (0.3, 1.0)),
        ("no normaliser", (0.3, 1.0)),
    ]
    assert read_records(folder / "out" / "records") == [record]
    before = checkpoints(folder)

    (again,), told = run(folder, 90)
    assert told == ["preparing 1 claim", record]
    assert again == record
    assert len(calls(folder / "claims")) == 5
    assert checkpoints(folder) == before


def test_a_quick_run_leans_whatever_its_seeds_and_leaves_the_full_record(folder):
    (full,), _ = run(folder)
    (quick,), _ = run(folder, quick=True)
    assert (quick.verdict, quick.seeds, quick.quick) == ("no verdict", 4, True)
    (more,), _ = run(folder, quick=True, seeds=6)
    assert (more.verdict, more.outcomes[0].verdict) == ("no verdict", "no verdict")
    assert more.leaning in ("supported", "not supported", "refuted")
    assert more.command == "normwright claims run 90 --quick --seeds 6"
    assert read_records(folder / "out" / "records") == [full]


def test_what_is_stopped_between_trials_goes_on_there(folder):
    stop = 'if seed == 2 and not (HERE / "go").exists(): raise KeyboardInterrupt'
    write_claim(folder / "claims", 90, measure=stop)
    with only_claims_of(folder / "claims"):
        with pytest.raises(KeyboardInterrupt):
            run(folder)
        before = checkpoints(folder)
        assert calls(folder / "claims") == ["90:0", "90:1", "90:2"]
        (folder / "claims" / "go").touch()
        (record,), told = run(folder)
    assert calls(folder / "claims")[3:] == ["90:2", "90:3", "90:4"]
    assert not [line for line in told if str(line).startswith("training")]
    assert checkpoints(folder) == before
    assert record.seeds == 5


def test_another_text_is_measured_anew_with_the_runs_that_are_there(folder):
    run(folder, seeds=1)
    write_claim(folder / "claims", 90, measure="gain = 0.0  # another measure")
    with only_claims_of(folder / "claims"):
        _, told = run(folder, seeds=1)
    assert calls(folder / "claims") == ["90:0", "90:0"]
    assert not [line for line in told if str(line).startswith("training")]


def test_a_text_that_is_edited_while_it_runs_is_not_taken_for_what_ran(folder):
    claim = all_claims()[90]
    before = claim.source
    write_claim(folder / "claims", 90, measure="gain = 0.0")
    assert claim.source == before


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"trial": []}', '{"trial": {"series": [], "values": []}}']
)
def test_a_half_written_trial_is_measured_anew(content, folder):
    run(folder, seeds=2)
    (trial,) = (folder / "out" / "trials").glob("*seed1*")
    trial.write_text(content)
    run(folder, seeds=2)
    assert calls(folder / "claims") == ["90:0", "90:1", "90:1"]
    assert json.loads(trial.read_text())["runs"]


def test_a_trial_is_read_as_it_was_kept(folder):
    run(folder, seeds=1)
    claim = all_claims()[90]
    trials = Trials(folder / "out" / "trials")
    kept = trials.find(claim, 0, quick=False)
    assert trials.find(claim, 0, quick=True) is trials.find(claim, 1, quick=False) is None
    assert [rate.side for rate in kept.rates] == ["batch norm", "no normaliser"]
    odd = dataclasses.replace(
        kept,
        trial=dataclasses.replace(kept.trial, bounds={"gain": "at least"}, notes=("a note",)),
    )
    trials.keep(claim, 3, odd, quick=False)
    assert trials.find(claim, 3, quick=False) == odd


def test_claims_share_runs_and_each_counts_them(folder):
    write_claim(folder / "claims", 91)
    with only_claims_of(folder / "claims"):
        records, told = run(folder, seeds=1)
    assert [record.number for record in records] == [90, 91]
    assert [record.cost.runs for record in records] == [PILOTS + SIDES] * 2
    with Store.open(folder / "out") as store:
        assert len(list(store.folder.glob("checkpoints/*.safetensors"))) == PILOTS + SIDES
    assert f"training {SIDES} runs, 1 at a time (claims 90, 91)" in told


def test_an_exception_in_an_experiment_names_the_claim_and_shows_the_line(folder):
    write_claim(folder / "claims", 90, measure='if seed == 1: raise LookupError("no such layer")')
    with only_claims_of(folder / "claims"), pytest.raises(RunError) as caught:
        run(folder, seeds=2)
    message = str(caught.value)
    assert message.startswith("LookupError: no such layer\nin claim 90 (made_up_90), seed 1\nTraceback")
    assert "made_up_90.py" in message
    assert isinstance(caught.value.__cause__, LookupError)
    assert len(list((folder / "out" / "trials").iterdir())) == 1


def test_a_measure_that_is_missing_is_told(folder):
    write_claim(folder / "claims", 90, measure='return Trial({"gane": 1.0})')
    with only_claims_of(folder / "claims"), pytest.raises(RunError, match="must measure 'gain', but seed 0"):
        run(folder, seeds=1)


@pytest.mark.parametrize(
    "measure",
    ['return Trial({"gain": 1.0, "loss": 1.0})', 'return Trial({"gain": 1.0}, bounds={"loss": "at most"})'],
)
def test_a_measure_that_nothing_predicts_is_told(folder, measure):
    write_claim(folder / "claims", 90, measure=measure)
    with only_claims_of(folder / "claims"), pytest.raises(RunError, match="seed 0 gave 'loss', too"):
        run(folder, seeds=1)


def test_series_of_unequal_length_are_told_with_the_claim(folder):
    write_claim(folder / "claims", 90, measure='Series("short", (1.0, 2.0), (1.0,))')
    with (
        only_claims_of(folder / "claims"),
        pytest.raises(RunError, match=r"'short' .* 2 x and 1 y\nin claim 90"),
    ):
        run(folder, seeds=1)


def test_measuring_leaves_threads_and_random_states_as_they_were(folder):
    write_claim(folder / "claims", 90, measure="import torch; torch.manual_seed(7); torch.rand(3)")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with only_claims_of(folder / "claims"):
        run(folder, seeds=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_two_at_once_in_one_folder_is_refused_and_harms_nothing(folder):
    with alone_in(folder / "out"), pytest.raises(StoreError, match="another runs some in"):
        run(folder)
    assert len(run(folder, seeds=1)[0]) == 1


def test_a_page_is_made_though_the_work_stopped_before_a_spoiled_record_was_written_anew(folder):
    write_claim(folder / "claims", 91, measure='raise LookupError("stopped")')
    spoiled = folder / "out" / "records" / "91-made_up_91.json"
    spoiled.parent.mkdir(parents=True)
    spoiled.write_text("{")
    with only_claims_of(folder / "claims"), pytest.raises(RunError, match="stopped"):
        claims_book.run_claims(None, seeds=1, jobs=1, out=folder / "out")
    page = (folder / "out" / "book.html").read_text()
    assert 'id="claim-90"' in page
    assert 'id="claim-91"' not in page
    assert spoiled.read_text() == "{"


def test_a_page_that_is_a_link_to_nowhere_is_told_before_the_work(folder):
    (folder / "out").mkdir()
    (folder / "out" / "book.html").symlink_to("gone/book.html")
    write_claim(folder / "claims", 91, measure='raise LookupError("begun")')
    with only_claims_of(folder / "claims"), pytest.raises(StoreError, match="is a link into"):
        claims_book.run_claims(None, seeds=1, jobs=1, out=folder / "out")


def test_out_that_is_empty_is_told(folder):
    with pytest.raises(OptionError, match="out must name a folder, but is empty"):
        run_claims(None, out="")


def test_out_that_is_a_file_is_told(folder):
    (folder / "out").write_text("")
    with pytest.raises(StoreError, match="must be a folder, but is a file"):
        run(folder)


@pytest.mark.parametrize("options", [{"seeds": 0}, {"seeds": 2.5}, {"jobs": 0}])
def test_seeds_and_jobs_must_be_whole(options, folder):
    with pytest.raises(OptionError, match="must be at least 1 and a whole number"):
        run_claims(None, out=folder / "out", **options)
    assert not (folder / "out").exists()
