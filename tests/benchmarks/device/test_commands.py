"""The commands run from end to end on the CPU, and the way to the GPU leaves the CPU's alone."""

import argparse
import json

import pytest
import torch

from benchmarks import gpu, networks, operators
from benchmarks.device import command, gpu_tests
from benchmarks.device import networks as device_networks
from benchmarks.device.deadline import Deadline
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


def test_tests_that_outlast_the_deadline_are_stopped(tmp_path):
    slow = tmp_path / "test_slow.py"
    slow.write_text("import time\ndef test_slow(): time.sleep(10**6)\n")
    options = argparse.Namespace(tests=[str(slow)], rehearse=True, out=tmp_path, device="cpu", test_share=1)
    past = Deadline(0.0, clock=lambda: 1.0)
    (outcome,) = gpu_tests.section_of_tests(options).run(past, None)
    assert "stopped, for want of time" in outcome.summary[0]
    assert outcome.records["code"] is None


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


def test_pytest_takes_several_processes_where_it_can(monkeypatch):
    options = type("Options", (), {"tests": ["tests", "no/such/tests"], "rehearse": False})
    monkeypatch.setattr(gpu_tests.importlib.util, "find_spec", lambda name: object())
    assert gpu_tests.command(options)[-3:] == ["-n", str(gpu_tests.WORKERS), "tests"]
    monkeypatch.setattr(gpu_tests.importlib.util, "find_spec", lambda name: None)
    assert "-n" not in gpu_tests.command(options)


def test_the_tests_are_told_the_device_and_their_share():
    options = argparse.Namespace(device="cuda", test_share=4)
    found = gpu_tests.environment(options)
    assert (found["NORMWRIGHT_TEST_DEVICE"], found["NORMWRIGHT_TEST_SHARE"]) == ("cuda", "4")
    assert "PATH" in found


def test_a_row_pickles():
    import pickle

    row = DeviceMeasured(operators.shrunk(next(iter(operators.SETS["headline"]()))), 1, 1, {"copy": 1.0})
    assert pickle.loads(pickle.dumps(row)) == row
