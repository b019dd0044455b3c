"""A step is timed in its three variants, its memory is weighed, and the page says what falls short."""

from dataclasses import replace

from benchmarks.children import DEFAULT, in_child
from benchmarks.networks import Row, _page
from benchmarks.training_step import Setup, StepTimes, measure_peak, measure_steps
from benchmarks.variants import VARIANTS

SMALL = Setup("transformer", batch=1, size=16, threads=1)


def test_a_step_is_timed_and_ordinary():
    times = in_child(DEFAULT, measure_steps, SMALL, repeats=1)
    assert set(times.seconds) == set(VARIANTS)
    assert times.ordinary == dict.fromkeys(VARIANTS, (True, 0.0))
    assert "2 of 2 normalisers" in times.note


def test_a_peak_holds_at_least_the_gradients():
    megabytes = in_child(DEFAULT, measure_peak, SMALL, "without", steps=1) / 1e6
    weights = 4 * (4 * 768**2 + 2 * 768 * 3072) / 1e6
    assert weights < megabytes < 10 * weights


TIMES = StepTimes(dict.fromkeys(VARIANTS, 1.0), 1.5, 1.1, 0.8, "", dict.fromkeys(VARIANTS, (True, 0.0)))
PEAKS = {"eager": 2, "accelerated": 2, "without": 1}
ROW = Row(Setup("resnet50"), "default allocator", TIMES, PEAKS)


def test_the_page_says_what_falls_short():
    assert "Nothing falls short" in _page({}, [ROW])
    faults = [
        (replace(ROW, allocator="memory reused"), "above 1.08"),
        (replace(ROW, times=replace(TIMES, accelerated_to_eager=1.2)), "1.20 of eager's time"),
        (replace(ROW, peaks={**PEAKS, "accelerated": 3}), "1.500 of eager's peak memory"),
        (replace(ROW, times=replace(TIMES, ordinary={"without": (False, 0.0)})), "finite False"),
    ]
    for fault, words in faults:
        assert words in _page({}, [ROW, fault])
