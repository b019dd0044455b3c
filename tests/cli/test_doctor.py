"""What `normwright doctor` prints, writes and leaves alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from normwright.doctor import all_rules
from normwright.lab.user_code import resolve

SGD = "--optimiser sgd --lr 0.1 --weight-decay 1e-4"
RULES = "bias_before_norm,stale_statistics"
STATIC = "--rules weight_decay_on_norm,bias_before_norm"
ON_LOADER = f"doctor nets.py:net --data batches.py:loader {SGD}"

COMMANDS = {
    "table": f"{ON_LOADER} {STATIC}",
    "json": f"{ON_LOADER} {STATIC} --json",
    "noisy json": f"{ON_LOADER} {STATIC} --json --forward nets.py:forward",
    "fails": f"{ON_LOADER} {STATIC} --fail-on note",
    "passes": f"{ON_LOADER} {STATIC} --fail-on error",
    "files": f"{ON_LOADER} --out report.html --sarif doctor.sarif",
    "again": f"{ON_LOADER} --out report.html --sarif doctor.sarif",
    "fix": f"{ON_LOADER} {STATIC} --fix",
    "fix json": f"{ON_LOADER} {STATIC} --fix --json",
    "checkpoint": f"{ON_LOADER} --checkpoint own.pt --fix-only stale_statistics --out-checkpoint mended.pt",
    "structure": f"{ON_LOADER} --checkpoint own.pt --fix --out-checkpoint other.pt --rules {RULES}",
    "no optimiser": "doctor nets.py:net --data batches.py:loader --rules weight_decay_on_norm",
    "own": "doctor nets.py:net --data batches.py:loader --optimiser nets.py:sgd --loss nets.py:loss",
    "mse": f"doctor nets.py:net --data batches.py:loader --loss mse {SGD} --accumulation 2",
    "built in": "doctor mlp --norm layer --data digits --batch-size 32 --steps 2 --optimiser adamw",
    "named": f"doctor nets.py:resnet --data batches.py:named {SGD}",
    "logits": f"doctor nets.py:resnet --data batches.py:loader {SGD}",
    "unlabelled": f"doctor nets.py:net --data batches.py:unlabelled {SGD} --json",
    "one batch": f"doctor nets.py:net --data batches.py:one {SGD}",
    "list": "doctor --list",
    "list json": "doctor --list --json",
    "list markdown": "doctor --list --markdown",
    "help": "doctor --help",
}
LINKED = {"report.html": "kept.html", "doctor.sarif": "kept.sarif"}
WRITTEN = {*LINKED, *LINKED.values(), "mended.pt", "other.pt"}


@pytest.fixture(scope="module")
def folder(doctor_cli):
    """The user's own files, with a checkpoint of a network whose running mean is far off."""
    here = doctor_cli.folder
    network = resolve(f"{here / 'nets.py'}:net")()
    with torch.no_grad():
        network[2].running_mean.fill_(3.0)
        network[2].num_batches_tracked.fill_(1000)
    torch.save(network.state_dict(), here / "own.pt")
    for name, target in LINKED.items():
        (here / name).symlink_to(target)
    return here


@pytest.fixture(scope="module")
def done(doctor_cli, folder):
    """Each command's status, output and errors, all from one process."""
    before = contents(folder)
    script = str(Path(__file__).with_name("many_commands.py"))
    asked = json.dumps([command.split() for command in COMMANDS.values()])
    outcome = doctor_cli.run(asked, program=(sys.executable, script))
    assert outcome.status == 0, outcome.errors
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == WRITTEN
    return dict(zip(COMMANDS, json.loads(outcome.output), strict=True))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_exit_status(done, name):
    status, _, errors = done[name]
    assert status == {"fails": 3}.get(name, 0), errors
    assert "Traceback" not in errors


def test_table_names_layers_figures_and_what_to_do(done):
    _, output, errors = done["table"]
    lines = output.splitlines()
    assert lines[0] == "nets.py:net: 0 errors, 0 warnings, 2 notes; 0 of 2 rules passed."
    assert [line.split()[:3] for line in lines[2:4]] == [
        ["note", "bias_before_norm", "1"],
        ["note", "weight_decay_on_norm", "2"],
    ]
    assert "0.0001" in lines[3]
    assert any(line.startswith("weight_decay_on_norm: ") and "Threshold 0: " in line for line in lines)
    assert [line for line in errors.splitlines() if line.startswith("examining")] == [
        "examining nets.py:net by 2 rules"
    ]
    assert errors.splitlines()[0] == "reading up to 8 batches"
    # what is done is told part by part, and nothing is done that no rule asks for
    assert errors.splitlines()[2:] == [
        "  running a copy in training and inference mode",
        "  tracing the graph",
    ]
    assert [line for line in done["own"][2].splitlines() if line.startswith("  ")][2:] == [
        "  training a copy, and looking on",
        "  updating the layers below each layer",
    ]


def test_json_is_all_that_is_printed(done):
    for name in ("json", "noisy json"):
        _, output, errors = done[name]
        record = json.loads(output)
        assert {finding["rule"] for finding in record["findings"]} == {
            "weight_decay_on_norm",
            "bias_before_norm",
        }
        assert record["evidence"]["optimiser"] == "SGD"
        assert record["evidence"]["sizes"] == [16, 16, 8]
    assert "a line that the user's code prints" in errors


def test_fail_on_says_how_many(done):
    assert "failed: 2 of severity note or above (--fail-on)" in done["fails"][2]
    assert "failed" not in done["passes"][2]


def test_files_are_written_and_written_again(done, folder):
    assert done["files"][1].splitlines()[-2:] == ["written: doctor.sarif", "written: report.html"]
    assert done["again"][0] == 0
    assert all((folder / name).is_symlink() for name in LINKED)
    page = (folder / "report.html").read_text()
    assert "normwright doctor nets.py:net --data batches.py:loader" in page
    results = json.loads((folder / "doctor.sarif").read_text())["runs"][0]["results"]
    assert {result["ruleId"] for result in results} >= {"weight_decay_on_norm", "bias_before_norm"}
    line = (folder / "nets.py").read_text().splitlines().index("def net():") + 1
    for result in results:
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"] == "nets.py"
        assert location["physicalLocation"]["region"]["startLine"] == line


def test_fix_shows_before_and_after(done):
    output = done["fix"][1]
    assert "Mended on a copy: 2 of the 2 findings that --fix is for." in output
    assert output.count("nothing found") == 2
    record = json.loads(done["fix json"][1])["mending"]
    assert [each["after"] for each in record["mended"]] == [None, None]
    assert record["same_weights"] is False


def test_mended_weights_load_into_the_users_network(done, folder):
    assert "written: mended.pt" in done["checkpoint"][1]
    network = resolve(f"{folder / 'nets.py'}:net")()
    mended, own = torch.load(folder / "mended.pt"), torch.load(folder / "own.pt")
    network.load_state_dict(mended)
    # only the statistics were estimated anew
    changed = {name for name in own if not torch.equal(own[name], mended[name])}
    assert "2.running_mean" in changed
    assert changed <= {"2.running_mean", "2.running_var", "2.num_batches_tracked"}


def test_other_weights_are_written_and_it_is_told_what_they_fit(done, folder):
    _, output, errors = done["structure"]
    assert "2 of the 2 findings" in output
    assert "written: other.pt" in output
    assert (
        "note: other.pt holds other weights than the function builds (no 1.bias): change the code" in errors
    )
    assert "--fix-only stale_statistics" in errors
    network = resolve(f"{folder / 'nets.py'}:net")()
    network[1].bias = None
    network.load_state_dict(torch.load(folder / "other.pt"))


def test_without_an_optimiser_its_rules_are_skipped(done):
    assert "skipped weight_decay_on_norm: no optimiser came" in done["no optimiser"][1]


def test_own_optimiser_and_loss_are_used(done):
    assert "decay by 0.001" in done["own"][1]


def test_a_network_of_transformers_is_served_with_and_without_labels_among_its_inputs(done):
    for name in ("named", "logits"):
        output = done[name][1]
        assert output.startswith("nets.py:resnet: ")
        assert "no loss came" not in output
        assert "no labels" not in output


def test_without_labels_it_is_said_and_the_rest_goes_on(done):
    record = json.loads(done["unlabelled"][1])
    assert record["evidence"]["layer_gradients"] == {"missing": "the batches hold no labels"}
    assert {finding["rule"] for finding in record["findings"]} >= {"bias_before_norm"}


def test_the_list_tells_every_rule(done):
    for name in ("list", "list json", "list markdown"):
        for rule in all_rules():
            assert rule in done[name][1]
    assert json.loads(done["list json"][1])[0].keys() >= {"what", "why", "advice", "references", "severity"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_it_leaves_the_old_report(doctor_cli, folder, wait_for, number):
    (folder / "gate").touch()
    (folder / "waiting").unlink(missing_ok=True)
    (folder / "old.html").write_text("old")
    asked = "doctor nets.py:net --data batches.py:gated --out old.html --sarif no.sarif"
    process = doctor_cli.start(*asked.split())
    wait_for(folder / "waiting", process)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert output == ""
    if number == signal.SIGINT:
        assert errors.splitlines()[-1] == "stopped: nothing was written"
        assert "Traceback" not in errors
    assert (folder / "old.html").read_text() == "old"
    assert not (folder / "no.sarif").exists()
