"""The device's clock gives the host a head start, and says where that was not enough; tasks take turns."""

import pytest
import torch

from benchmarks import contenders
from benchmarks.cases import Case
from benchmarks.device import clock as clocks
from benchmarks.device.clock import EventClock, WallClock, in_turn
from benchmarks.device.measure import inputs_of
from benchmarks.device.rotation import rotating, rotating_copy


class Device:
    """Stands in for torch.cuda: a queue that runs once the head start is over."""

    def __init__(self, *, overtakes=()):
        self.slept, self.started, self.overtakes = [], 0, list(overtakes)

    def synchronize(self):
        pass

    def _sleep(self, cycles):
        self.slept.append(cycles)

    def event(self):
        return self

    def record(self):
        self.started += 1

    def query(self):
        return self.overtakes.pop(0) if self.overtakes else False

    def elapsed_time(self, end):
        return 2.0


@pytest.fixture
def device(monkeypatch):
    def make(**options):
        found = Device(**options)
        monkeypatch.setattr(torch.cuda, "synchronize", found.synchronize)
        monkeypatch.setattr(torch.cuda, "_sleep", found._sleep)
        monkeypatch.setattr(clocks, "_event", found.event)
        return found

    return make


def test_a_task_is_timed_by_the_events_around_it(device):
    found = device()
    clock = EventClock()
    assert clock.seconds("A", lambda: None) == 2e-3
    assert found.started == 2
    assert clock.waited["A"] == 0


def test_the_head_start_grows_with_what_the_host_takes(device, monkeypatch):
    found = device()
    moments = iter([0.0, 0.004, 1.0, 1.004])
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: next(moments))
    clock = EventClock()
    clock.seconds("A", lambda: None)
    clock.seconds("A", lambda: None)
    assert found.slept[1] > found.slept[0] + 0.004 * 2e9


@pytest.mark.parametrize(("overtakes", "waited"), [([True, False], 0), ([True, True], 1)])
def test_a_host_that_is_overtaken_is_given_another_chance(device, overtakes, waited):
    device(overtakes=overtakes)
    clock = EventClock()
    clock.seconds("A", lambda: None)
    assert clock.waited["A"] == waited


def test_tasks_take_turns():
    calls = []
    tasks = {name: lambda name=name: calls.append(name) for name in "AB"}
    timings = in_turn(tasks, WallClock(), seconds=0.0, least=4)
    assert "".join(calls) == "AB" * 7
    assert {len(timing.seconds) for timing in timings.values()} == {4}


@pytest.mark.parametrize("mode", ["forward", "step", "inference"])
def test_a_task_goes_through_every_set_and_leaves_nothing(mode):
    case = Case("batch_norm", (4, 3, 2, 2), mode=mode)
    sets = [inputs_of(case, torch.device("cpu"), seed) for seed in range(3)]
    seen = []

    def contender(inputs):
        seen.append(inputs)
        return contenders.eager(case)(inputs)

    assert rotating(contender, case, sets)() is None
    assert [id(inputs) for inputs in seen] == [id(inputs) for inputs in sets]
    assert all(inputs.x.grad is None for inputs in sets)
    assert rotating_copy(sets)() is None
