"""What can be wrong with what `normwright doctor` is given: what is said, and no file changes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

NET = "doctor nets.py:net --data batches.py:loader"

# command -> exit status, and what must be on the standard error.
CASES = {
    "doctor": (2, "name a NETWORK"),
    "doctor nets.py:net": (2, "name the data by --data"),
    "doctor nets.py:nett --data batches.py:loader": (1, "did you mean 'net'"),
    "doctor lnet --data digits": (1, "did you mean 'lenet'"),
    "doctor lenet --data batches.py:loader": (1, "lenet needs the shape of a sample"),
    "doctor lenet --data digits --norm bach": (1, "did you mean 'batch'"),
    f"{NET} --norm batch": (1, "norm goes with a built-in network"),
    f"{NET} --rules bias_before_nrm": (1, "did you mean 'bias_before_norm'"),
    f"{NET} --fix-only bias_before_nrm": (1, "did you mean 'bias_before_norm'"),
    f"{NET} --lr 0.1": (1, "--lr goes with --optimiser"),
    f"{NET} --weight-decay 0.1": (1, "--weight-decay goes with --optimiser"),
    f"{NET} --optimiser adam": (1, "did you mean 'adamw'"),
    f"{NET} --optimiser adamw --momentum 0.9": (1, "adamw must come without a momentum"),
    f"{NET} --optimiser nets.py:sgd --lr 1": (1, "nets.py:sgd decides on lr itself"),
    f"{NET} --optimiser nets.py:no_optimiser": (
        1,
        "must return a torch.optim.Optimizer, but returned int: 3",
    ),
    f"{NET} --optimiser sgd --lr nan": (1, "lr must be a finite number, but is nan"),
    f"{NET} --optimiser sgd --lr -1": (1, "Invalid learning rate: -1"),
    f"{NET} --loss crossentropy": (1, "did you mean 'cross_entropy'"),
    f"{NET} --loss nets.py:each": (1, "must be a scalar tensor, but is a tensor (16,): take its mean"),
    f"{NET} --loss nets.py:broken_loss": (1, "error: LookupError: no [bold]such[/bold] loss"),
    f"{NET} --steps 0": (1, "steps must be a whole number of at least 1, but is 0"),
    f"{NET} --accumulation 0": (1, "accumulation must be a whole number of at least 1, but is 0"),
    f"{NET} --fail-on bad": (2, "it must be note, warning or error, but is 'bad'"),
    f"{NET} --out report.pdf": (1, "--out must end in .html, but is report.pdf"),
    f"{NET} --out no/report.html": (1, "--out must be in a folder that exists, but no does not"),
    f"{NET} --sarif a.xml": (1, "--sarif must end in .sarif or .json"),
    f"{NET} --out-checkpoint kept.pt": (1, "kept.pt exists: choose another --out-checkpoint"),
    f"{NET} --checkpoint kept.pt": (1, "of another shape"),
    f"{NET} --batch-size 4": (1, "a batch size came too"),
    "doctor nets.py:net --data batches.py:empty": (1, "must hold at least one sample"),
    "doctor nets.py:narrow --data batches.py:loader": (
        1,
        "from 0 to 3, as the network has 4 outputs, but 9 came",
    ),
    "doctor nets.py:narrow --data batches.py:loader --loss mse": (
        1,
        "as the network has 4 outputs, but 9 came",
    ),
    "doctor nets.py:wrong --data batches.py:loader": (
        1,
        "'3', a Linear of the network, was given (16, 8) of torch.float32: RuntimeError: mat1",
    ),
    "doctor nets.py:net --data batches.py:small": (
        1,
        "'1', a Linear of the network, was given (16, 32) of torch.float32: RuntimeError: mat1",
    ),
}
SHOWN_BY_PYTHON = [case for case in CASES if "broken" in case]


@pytest.fixture(scope="module")
def outcomes(doctor_cli):
    """Each case's status, output and errors, all from one process."""
    folder = doctor_cli.folder
    torch.save({"1.weight": torch.zeros(1)}, folder / "kept.pt")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    script = str(Path(__file__).with_name("many_commands.py"))
    done = doctor_cli.run(json.dumps([case.split() for case in CASES]), program=(sys.executable, script))
    assert done.status == 0, done.errors
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    return dict(zip(CASES, json.loads(done.output), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_is_wrong(outcomes, case):
    wanted, words = CASES[case]
    status, output, errors = outcomes[case]
    assert status == wanted, errors
    assert words in " ".join(errors.replace("│", " ").split())
    assert output == ""


@pytest.mark.parametrize("case", CASES)
def test_only_what_the_users_code_raises_is_shown_with_its_traceback(outcomes, case):
    assert ("Traceback" in outcomes[case][2]) == (case in SHOWN_BY_PYTHON)
