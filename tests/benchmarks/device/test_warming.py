"""Compiling ahead runs every job, several at once, and minds no failure."""

from pathlib import Path

from benchmarks.cases import Case
from benchmarks.device.deadline import deadline_in
from benchmarks.device.measure import Job, compile_job
from benchmarks.device.warming import warm


def test_every_job_is_run(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    warm(Path.touch, [*paths, tmp_path / "no" / "such"], deadline=deadline_in(120))
    assert all(path.exists() for path in paths)


def test_nothing_to_compile():
    warm(Path.touch, [], deadline=deadline_in(60))


def test_a_job_is_compiled_by_running_it(capfd):
    case = Case("rms_norm", (8, 16), normalized_shape=(16,))
    assert compile_job(Job((case,), device="cpu")) is None
    assert "Traceback" not in capfd.readouterr().err
