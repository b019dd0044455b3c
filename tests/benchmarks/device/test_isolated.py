"""Jobs outlive each other; a deadline is kept; sections that there is no time for are dropped, and named."""

import json
import os
import time

import pytest

from benchmarks.device.deadline import Deadline, deadline_in
from benchmarks.device.isolated import NotRun, Raised, run_jobs
from benchmarks.device.report import LONGEST_SUMMARY, Outcome, Report
from benchmarks.device.sections import Section, run_sections
from benchmarks.saving import save


def jobs(function, values, **options):
    return list(run_jobs(function, values, deadline=deadline_in(60), **options))


def test_a_job_that_raises_stops_no_other(capfd):
    assert jobs(int, ["1", "one", "3"]) == [
        (0, 1),
        (1, Raised("ValueError: invalid literal for int() with base 10: 'one'")),
        (2, 3),
    ]
    assert "Traceback" in capfd.readouterr().err


def test_a_job_that_takes_its_process_with_it_stops_no_other():
    assert jobs(os._exit, [7, 8]) == [
        (0, Raised("the process ended with code 7")),
        (1, Raised("the process ended with code 8")),
    ]


class Clock:
    """A clock that the test moves, and that moves by a step whenever it is read."""

    def __init__(self):
        self.now, self.step = 0.0, 0.0

    def __call__(self):
        self.now += self.step
        return self.now


def test_a_job_that_never_ends_is_stopped():
    clock = Clock()
    found = run_jobs(time.sleep, [0, 10**6, 0], deadline=Deadline(1e9, clock), longest=8.0)
    assert next(found) == (0, None)
    clock.step = 1.0
    assert next(found) == (1, Raised("it took too long and was stopped"))
    clock.step = 0.0
    assert list(found) == [(2, None)]


def test_no_job_goes_on_after_the_deadline():
    clock = Clock()
    found = run_jobs(time.sleep, [0, 10**6, 0], deadline=Deadline(9.0, clock))
    assert next(found) == (0, None)
    clock.now = 10.0
    assert list(found) == [(1, NotRun()), (2, NotRun())]


def test_what_is_written_to_a_log(tmp_path):
    with (tmp_path / "log").open("w") as log:
        jobs(int, ["one"], log=log)
    assert "invalid literal" in (tmp_path / "log").read_text()


def section(name, clock, *, takes, least=10.0, most=1000.0):
    def run(deadline, log):
        yield Outcome(name, "half", 1)
        clock.now += min(takes, deadline.left)
        yield Outcome(name, "whole", 2, [f"{deadline.left:.0f} s were left"])

    return Section(name, least, most, run)


def test_sections_that_there_is_no_time_for_are_dropped():
    clock, report, kept = Clock(), Report("Title", {}), []
    sections = [
        section("first", clock, takes=95),
        section("second", clock, takes=1),
        section("third", clock, takes=1, least=1),
    ]
    deadline = Deadline(100.0, clock)
    run_sections(sections, report, deadline, keep=lambda: kept.append(sorted(report.outcomes)))
    assert list(report.outcomes) == ["first", "third"]
    assert report.dropped == ["second: needs 10 s, 5 s were left"]
    assert "second: needs 10 s" in report.page()
    assert "second: needs 10 s" in report.summary()
    assert kept == [["first"], ["first"], ["first"], ["first", "third"], ["first", "third"]]


def test_a_section_takes_no_more_than_its_share():
    clock, report = Clock(), Report("Title", {})
    sections = [section("first", clock, takes=500, most=30), section("second", clock, takes=1)]
    run_sections(sections, report, Deadline(100.0, clock), keep=lambda: None)
    assert clock.now == 31
    assert list(report.outcomes) == ["first", "second"]


def test_a_section_that_raises_is_told_and_stops_no_other():
    def run(deadline, log):
        yield Outcome("broken", "half", 1)
        raise KeyError("ours")

    clock, report = Clock(), Report("Title", {})
    sections = [Section("broken", 0, 9, run), section("second", clock, takes=1)]
    run_sections(sections, report, Deadline(100.0, clock), keep=lambda: None)
    assert report.outcomes["broken"].summary == ("KeyError: 'ours'",)
    assert report.outcomes["second"].markdown == "whole"


def test_what_was_measured_is_saved_before_the_end(tmp_path):
    clock, report = Clock(), Report("Title", {"device": "none"})
    pages = []

    def keep():
        report.save(tmp_path, "gpu")
        pages.append((tmp_path / "gpu.md").read_text())

    run_sections([section("first", clock, takes=1)], report, Deadline(100.0, clock), keep=keep)
    assert [page.split()[-1] for page in pages] == ["half", "whole"]
    saved = json.loads((tmp_path / "gpu.json").read_text())
    assert saved == {"facts": {"device": "none"}, "dropped": [], "sections": {"first": 2}}


@pytest.mark.parametrize(("lines", "more"), [(1, False), (120, True), (1000, True)])
def test_a_summary_has_its_length(lines, more):
    report = Report("Title", {"device": "none"})
    report.outcomes["first"] = Outcome("First", "", 0, ["x" * 150] * lines)
    report.outcomes["second"] = Outcome("Second", "", 0, ["the last word"])
    assert len(report.summary()) <= LONGEST_SUMMARY
    assert ("more in the files" in report.summary()) == more
    assert "the last word" in report.summary()


def test_a_file_that_cannot_be_finished_leaves_the_last_one(tmp_path):
    save(tmp_path, "gpu", "first", {})
    with pytest.raises(TypeError):
        save(tmp_path, "gpu", "second", {"not JSON": object()})
    with pytest.raises(UnicodeEncodeError):
        save(tmp_path, "gpu", "third \ud800", {})
    assert (tmp_path / "gpu.md").read_text() == "second\n"
    assert json.loads((tmp_path / "gpu.json").read_text()) == {}
