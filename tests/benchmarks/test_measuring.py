"""How things are run: in turn, and in child processes under a setting of the allocator."""

import os
import platform
import subprocess

import pytest

from benchmarks.alternate import alternate, alternate_for, repeated
from benchmarks.children import ALLOCATORS, DEFAULT, REUSED, in_child
from benchmarks.machine import describe


def test_tasks_take_turns():
    calls = []
    tasks = {name: lambda name=name: calls.append(name) for name in "AB"}
    timings = alternate(tasks, repeats=2, warmup=1)
    assert "".join(calls) == "ABABAB"
    assert all(len(timing.seconds) == 2 for timing in timings.values())


def test_repetitions_stay_between_their_bounds():
    tasks = {"A": lambda: None}
    assert len(alternate_for(tasks, seconds=0.0, least=3)["A"].seconds) == 3
    assert len(alternate_for(tasks, seconds=1e9, most=5)["A"].seconds) == 5


def test_repeated_repeats():
    calls = []
    repeated(lambda: calls.append(None), 4)()
    assert len(calls) == 4


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=lambda allocator: allocator.name)
def test_a_child_has_the_setting_and_no_other(allocator, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    found = {name: in_child(allocator, os.getenv, name) for name in ("MALLOC_ARENA_MAX", *REUSED.environment)}
    assert found == {"MALLOC_ARENA_MAX": None} | dict.fromkeys(REUSED.environment) | allocator.environment


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_memory_is_reused_where_it_is_said_to_be():
    default, reused = (in_child(setting, describe) for setting in (DEFAULT, REUSED))
    fact = "page faults of a fresh 50 MB output"
    assert reused[fact] < 10 < default[fact]


def test_what_fails_in_a_child_fails():
    with pytest.raises(subprocess.CalledProcessError):
        in_child(DEFAULT, int, "no number")
