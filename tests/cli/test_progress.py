"""Progress, as lines and as bars."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from normwright.cli.bars import Bars
from normwright.cli.lines import Lines, ReaderGone
from normwright.cli.pace import Pace

RUN = "nets.py:[wide] on digits, norm batch, batch 2, lr 1, seed 0"


def test_time_left_counts_only_what_was_done_here():
    clock = iter([100.0, 105.0, 110.0])
    pace = Pace(lambda: next(clock))
    assert pace.seconds_left(50, 60, []) is None  # workers start
    assert pace.seconds_left(50, 60, [(RUN, 0, 10)]) is None
    assert pace.seconds_left(50, 60, [(RUN, 5, 10)]) == pytest.approx(5.0 / 0.5 * 9.5)
    assert pace.seconds_left(52, 60, []) == pytest.approx(10.0 / 2 * 8)


def test_lines_come_at_every_tenth_and_not_for_what_was_found_done():
    stream = io.StringIO()
    lines = Lines(stream)
    for done in range(20, 101):
        for step in range(10):
            lines.runs(done, 100, [(RUN, step, 10)] if done < 100 else [])
    told = [line.split(":")[0] for line in stream.getvalue().splitlines()]
    assert told == [f"  {percent} %" for percent in range(30, 101, 10)]


def test_all_is_done_when_the_last_run_is():
    stream = io.StringIO()
    lines = Lines(stream)
    for step in range(11):
        lines.runs(5, 6, [(RUN, step, 10)])
    lines.runs(6, 6, [])
    told = [line.split(",")[0] for line in stream.getvalue().splitlines()]
    assert told == ["  90 %: 5 of 6 runs done", "  100 %: 6 of 6 runs done"]


def test_lines_do_not_go_back_when_a_run_is_given_back():
    stream = io.StringIO()
    lines = Lines(stream)
    for done in (0, 5, 4, 5, 6):
        lines.runs(done, 10, [])
    assert [line.split(":")[0] for line in stream.getvalue().splitlines()] == ["  50 %", "  60 %"]


def test_reader_that_left_is_no_exception_of_the_run():
    ours, theirs = os.pipe()
    os.close(ours)
    stream = io.TextIOWrapper(io.FileIO(theirs, "w"), write_through=True)
    with pytest.raises(ReaderGone):
        Lines(stream).stage("reading digits")
    assert not issubclass(ReaderGone, Exception)
    stream.close()


def test_bars_show_each_run_and_leave_the_one_over_all():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    bars = Bars(console)
    bars.stage("training [3] runs")
    bars.runs(0, 3, [(RUN, 0, 0)])
    bars.runs(1, 3, [(RUN, 4, 8)])
    bars.runs(3, 3, [(RUN, 4, 8)])
    bars.close()
    screen = console.file.getvalue()
    assert "training [3] runs" in screen
    assert "norm batch, batch 2, lr 1, seed 0" in screen
    last = screen[screen.rindex("all runs") :]
    assert "3/3 runs" in last
    assert "norm batch" not in last
