"""The commands run from end to end on the CPU, and the way to the GPU leaves the CPU's alone."""

import argparse
import json

import pytest
import torch

from benchmarks import gpu, networks, operators
from benchmarks.device import command, family, gpu_tests
from benchmarks.device import networks as device_networks
from benchmarks.device.deadline import Deadline, deadline_in
from benchmarks.device.measure import DeviceMeasured
from benchmarks.device.training_step import DeviceSetup, DeviceSteps
from benchmarks.training_step import Setup
from benchmarks.variants import VARIANTS


def test_a_rehearsal_measures_and_saves(tmp_path, capfd):
    only = ["--set", "headline", "--only", "rms_norm 8192×4096*"]
    operators.main(["--device", "cuda", "--rehearse", *only, "--out", str(tmp_path)])
    assert "rms_norm" in capfd.readouterr().out
    saved = json.loads((tmp_path / "operators.json").read_text())
    assert len(saved["sections"]["headline"]["rows"]) == 2
    assert saved["facts"]["device"].startswith("cpu (a rehearsal")
    assert "| rms_norm | 4×4096 |" in (tmp_path / "operators.md").read_text()


def test_a_rehearsal_of_the_family(tmp_path, capfd):
    operators.main(["--device", "cuda", "--rehearse", "--set", "family", "--out", str(tmp_path)])
    assert "| ghost batch norm, 8 | 16×8×8×8 | channels-last |" in capfd.readouterr().out
    saved = json.loads((tmp_path / "operators.json").read_text())["sections"]["family"]
    assert saved["trouble"] == []
    found = {row["member"]["name"] for row in saved["rows"]}
    assert found == set(family.MEMBERS)
    assert all(set(row["seconds"]) == {"copy", "member", "batch norm"} for row in saved["rows"])


def test_one_command_runs_tests_and_benchmarks(tmp_path, capfd):
    passing = tmp_path / "test_passing.py"
    passing.write_text("def test_passes(): assert True\ndef test_fails(): assert False\n")
    share = ["--test-share", "1"]
    chosen = ["--set", "tests", "launches", "--tests", str(passing), "no/such/tests", *share]
    gpu.main(["--rehearse", *chosen, "--out", str(tmp_path / "out")])
    printed = capfd.readouterr().out
    assert "1 failed, 1 passed" in printed
    assert "no/such/tests does not exist" in printed
    assert "test_fails" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("gpu.json", "gpu.md", "log.txt", "tests.txt")
    ]


def options_of(tmp_path, *tests, **changed):
    settings = {"rehearse": True, "out": tmp_path, "device": "cpu", "test_share": 1, "tests": tests}
    return argparse.Namespace(**{**settings, **changed})


MADE_UP = """
import pathlib, pytest, time

def test_first(): pass
def test_second(): assert False
def test_third(): pytest.importorskip("no_such_module")
def test_slow():
    pathlib.Path(__file__).with_name("over").touch()
    time.sleep(10**6)
def test_last(): pass
"""


def run_tests(tmp_path, text, deadline, **changed):
    """What comes of a file of tests, and the outcome of each."""
    path = tmp_path / "test_made_up.py"
    path.write_text(text)
    section = gpu_tests.sections_of_tests(options_of(tmp_path, str(path), **changed))["tests"]
    (outcome,) = section.run(deadline, None)
    return outcome, {one["test"].rpartition("::")[2]: one["outcome"] for one in outcome.records["tests"]}


def test_tests_that_outlast_the_deadline_are_stopped_and_named(tmp_path):
    over = Deadline(0.5, clock=lambda: float((tmp_path / "over").exists()))
    outcome, found = run_tests(tmp_path, MADE_UP, over)
    assert found == {
        "test_first": "passed",
        "test_second": "failed",
        "test_third": "skipped",
        "test_slow": "no turn",
        "test_last": "no turn",
    }
    counted, *named = outcome.summary
    assert "1 passed, 1 failed, 1 skipped, 2 no turn; pytest stopped, for want of time" in counted
    assert [line.partition(": ")[0] for line in named] == ["failed", "no turn", "no turn", "skipped"]
    assert "could not import 'no_such_module'" in named[-1]
    assert "test_made_up.py | 1 | 1 | 1 | 2 |" in outcome.markdown
    assert outcome.records["code"] is None


GROUPED = """
import pytest

@pytest.mark.parametrize("place", range(6))
@pytest.mark.xdist_group("together")
def test_together(place): assert place

def test_alone(): pass
"""


def test_several_processes_note_each_test_once(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_tests, "WORKERS", 2)
    outcome, found = run_tests(tmp_path, GROUPED, deadline_in(300.0), rehearse=False)
    together = {f"test_together[{place}]": "passed" if place else "failed" for place in range(6)}
    assert found == {**together, "test_alone": "passed"}
    assert outcome.records["code"] == 1


def test_a_file_that_cannot_be_imported_keeps_no_other_from_its_turn(tmp_path):
    (tmp_path / "test_broken.py").write_text("import no_such_module\n")
    (tmp_path / "test_whole.py").write_text("def test_whole(): pass\n")
    options = options_of(tmp_path, str(tmp_path / "test_broken.py"), str(tmp_path / "test_whole.py"))
    (outcome,) = gpu_tests.sections_of_tests(options)["tests"].run(deadline_in(300.0), None)
    assert sorted(one["outcome"] for one in outcome.records["tests"]) == ["failed", "passed"]
    assert "test_broken.py" in outcome.summary[1]


def test_what_is_run_on_the_device_exists():
    for suite in gpu_tests.suites(options_of(None, *gpu_tests.TESTS)):
        assert suite.present == list(suite.paths)


def test_without_a_gpu_the_command_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="PyTorch sees no GPU"):
        gpu.main(["--out", str(tmp_path)])


@pytest.mark.parametrize("module", [operators, networks])
def test_the_device_is_told_from_the_rest(module, monkeypatch):
    found = []
    ours = module.device_operators if module is operators else module.device_networks
    monkeypatch.setattr(ours, "main", found.append)
    module.main(["--set", "headline", "--device", "cuda"])
    assert found == [["--device", "cuda", "--set", "headline"]]
    with pytest.raises(SystemExit):
        module.main(["--device", "cpu", "--help"])
    with pytest.raises(SystemExit):
        module.main(["--help"])
    assert len(found) == 1


def test_the_cpu_is_the_default():
    assert command.device_of(["--quick"]) == ("cpu", ["--quick"])
    assert command.device_of([]) == ("cpu", [])


STEPS = DeviceSteps(
    DeviceSetup(Setup("resnet50", 256), "autocast"),
    dict.fromkeys(VARIANTS, 1.0),
    {"eager": 1.3, "accelerated": 1.05, "without": 1.0},
    dict.fromkeys(VARIANTS, 0.1),
    dict.fromkeys(VARIANTS, 10),
    dict.fromkeys(VARIANTS, (True, 0.0)),
    "",
)


def changed(**fields):
    return DeviceSteps(**{**vars(STEPS), **fields})


def test_a_network_says_what_falls_short():
    assert device_networks.shortcomings(STEPS) == []
    faults = [
        (changed(to_without={**STEPS.to_without, "accelerated": 1.11}), "above 1.10"),
        (changed(seconds={**STEPS.seconds, "accelerated": 1.2}), "1.20 of eager's time"),
        (changed(peaks={**STEPS.peaks, "accelerated": 15}), "1.500 of eager's peak memory"),
        (changed(ordinary={"without": (False, 0.0)}), "finite False"),
    ]
    for fault, words in faults:
        assert [words in line for line in device_networks.shortcomings(fault)] == [True]


def test_a_network_is_stepped_in_its_variants():
    from benchmarks.device.training_step import measure_device_steps

    small = Setup("transformer", batch=1, size=16, threads=torch.get_num_threads())
    for precision in ("autocast", "bfloat16", "float32"):
        found = measure_device_steps(DeviceSetup(small, precision, device="cpu", repeats=1))
        assert set(found.seconds) == set(found.host_seconds) == set(VARIANTS)
        assert found.to_without["without"] == 1.0
    table = device_networks.networks_table([found])
    assert "accelerated/without" in table.splitlines()[0]


def test_pytest_takes_several_processes_where_it_can(monkeypatch, tmp_path):
    options = options_of(tmp_path, "tests", "no/such/tests", rehearse=False)
    suite = gpu_tests.suites(options)[1]
    monkeypatch.setattr(gpu_tests.importlib.util, "find_spec", lambda name: object())
    assert gpu_tests.command(suite, options)[-5:] == [
        *("-n", str(gpu_tests.WORKERS), "--dist", "loadgroup", "tests")
    ]
    monkeypatch.setattr(gpu_tests.importlib.util, "find_spec", lambda name: None)
    assert "-n" not in gpu_tests.command(suite, options)


def test_the_tests_are_told_the_device_and_their_share(tmp_path):
    options = options_of(tmp_path, device="cuda", test_share=4)
    verbs, operators = (gpu_tests.environment(suite, options, "") for suite in gpu_tests.suites(options))
    assert (operators["NORMWRIGHT_TEST_DEVICE"], operators["NORMWRIGHT_TEST_SHARE"]) == ("cuda", "4")
    assert (verbs["NORMWRIGHT_TEST_DEVICE"], verbs["NORMWRIGHT_TEST_SHARE"]) == ("cuda", "1")
    assert "PATH" in verbs


def test_a_row_pickles():
    import pickle

    row = DeviceMeasured(operators.shrunk(next(iter(operators.SETS["headline"]()))), 1, 1, {"copy": 1.0})
    assert pickle.loads(pickle.dumps(row)) == row
