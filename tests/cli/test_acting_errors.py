"""What can be wrong with a network, a checkpoint, data or an output: what is said, and no file changes."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SAVED = "saved/model.safetensors"
ON_DIGITS = "--data digits --dry-run"


class Evil:
    """Pickled code: it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("it-ran",)


# command without its first two arguments -> exit status, and what must be on the standard error.
CASES = {
    f"recalibrate nets.py:wider {SAVED} {ON_DIGITS}": (1, "of another shape ("),
    f"recalibrate nets.py:plain {SAVED} {ON_DIGITS}": (
        1,
        "missing (2): 1.weight, 1.bias unexpected (38): classifier.1.bias",
    ),
    f"recalibrate nets.py:resnet plain.pt {ON_DIGITS}": (
        1,
        "missing (32): resnet.embedder.embedder.convolution",
    ),
    f"recalibrate nets.py:resnet cut.safetensors {ON_DIGITS}": (1, "cut.safetensors is cut off or damaged"),
    f"recalibrate nets.py:resnet cut.pt {ON_DIGITS}": (1, "cut.pt is cut off or damaged"),
    f"recalibrate nets.py:resnet evil.pt {ON_DIGITS}": (
        1,
        "holds pickled code: posix.mkdir, which is never run",
    ),
    f"adapt nets.py:resnet old-evil.pt {ON_DIGITS}": (1, "holds pickled code, which is never run"),
    "convert nets.py:resnet module.pt --to group --dry-run": (
        1,
        "pickled code: torch.nn.modules.linear.Linear",
    ),
    "fold nets.py:resnet nets.py --example 1,1,8,8 --dry-run": (1, "is neither (it begins with b'"),
    f"recalibrate nets.py:resnet saved {ON_DIGITS}": (1, "name the checkpoint in it (model.safetensors)"),
    f"recalibrate nets.py:resnet plan.pt {ON_DIGITS}": (1, "does not exist: did you mean plain.pt?"),
    f"recalibrate nets.py:resent {SAVED} {ON_DIGITS}": (1, "did you mean 'resnet'"),
    f"recalibrate nets.py:number {SAVED} {ON_DIGITS}": (
        1,
        "must return a torch.nn.Module, but returned int: 3",
    ),
    f"recalibrate nets.py:picky {SAVED} {ON_DIGITS}": (
        1,
        "or with (sample_shape, classes), but takes (width,",
    ),
    "convert nets.py:sized plain.pt --to group --dry-run": (1, "which only a data set tells: give --data"),
    f"recalibrate nets.py:broken {SAVED} {ON_DIGITS}": (1, "error: LookupError: no [bold]such[/bold] layer"),
    f"recalibrate nets.py:plain plain.pt {ON_DIGITS}": (1, "normaliser"),
    f"adapt nets.py:plain plain.pt {ON_DIGITS}": (1, "normaliser"),
    "convert nets.py:plain plain.pt --to group --dry-run": (1, "nor"),
    f"recalibrate nets.py:resnet {SAVED} --data batches.py:empty --dry-run": (1, "at least one sample"),
    f"fold nets.py:resnet {SAVED} --data batches.py:empty --dry-run": (1, "at least one batch"),
    f"recalibrate nets.py:resnet {SAVED} --data batches.py:raises --out kept.pt --force": (
        1,
        "error: OSError: the disk with the images is gone",
    ),
    f"adapt nets.py:resnet {SAVED} --data batches.py:raises --out kept.pt --force": (1, "error: OSError"),
    f"convert nets.py:resnet {SAVED} --to group --data batches.py:raises --out kept.pt --force": (
        1,
        "OSError",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data batches.py:nan --out kept.pt --force": (1, "batch 2"),
    f"recalibrate nets.py:resnet {SAVED} --data batches.py:one --out kept.pt --force": (1, "value"),
    f"recalibrate nets.py:resnet {SAVED} --data batches.py:loader --split test --dry-run": (
        1,
        "split came too",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data digit --dry-run": (1, "did you mean 'digits'?"),
    f"recalibrate nets.py:resnet {SAVED} --data digits --split tset --dry-run": (
        1,
        "split must be one of train",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data digits --batch-size 0 --dry-run": (1, "must be at least 1"),
    f"recalibrate nets.py:resnet {SAVED} --data digits": (2, "name the output file by --out"),
    f"recalibrate nets.py:resnet {SAVED} --dry-run": (2, "--data"),
    f"recalibrate nets.py:resnet {SAVED} --data digits --estimator x --dry-run": (
        2,
        "must be total or within, but is 'x'",
    ),
    f"fold nets.py:resnet {SAVED} --dry-run": (2, "either --example N,C,H,W or --data"),
    f"fold nets.py:resnet {SAVED} --dry-run --example 1,1,8,8 --data digits": (
        2,
        "but --example and --data both came",
    ),
    f"fold nets.py:resnet {SAVED} --example 1,x --dry-run": (2, "must be a whole number"),
    f"fold nets.py:resnet {SAVED} --example 1,1,-8,8 --dry-run": (1, "sizes of at least 1, but has 1,1,-8,8"),
    f"fold nets.py:resnet {SAVED} --example 1,1,8,8 --out a.safetensors": (
        1,
        "a folded network has other layers",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data digits --out a.txt": (
        1,
        "must end in .safetensors, .pt or .pth",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data digits --out no/a.pt": (
        1,
        "folder that exists, but no does not",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data digits --out kept.pt": (
        1,
        "kept.pt exists: choose another --out",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data batches.py:loader --out /proc/a.pt": (
        1,
        "--out must be in a folder that can be written, but /proc cannot be",
    ),
    f"convert nets.py:resnet {SAVED} --to grop --dry-run": (1, "did you mean 'group'"),
    f"convert nets.py:resnet {SAVED} --to group --names nonsense --dry-run": (1, "nonsense"),
    # in the command's own options, and not in Python's
    f"convert nets.py:resnet {SAVED} --to rms --dry-run": (
        1,
        "Leave them out with --names, or allow what is a loss with --lossy: ",
    ),
    f"convert nets.py:resnet {SAVED} --to instance --example 2,1,2,2 --dry-run": (
        1,
        "leave it out with --names",
    ),
    f"convert nets.py:resnet {SAVED} --to group --groups 0 --dry-run": (1, "--groups must be at least 1"),
    f"convert nets.py:resnet {SAVED} --to batch --of layer --dry-run": (1, "name these with --of or --names"),
    f"convert nets.py:resnet {SAVED} --to group --data batches.py:nothing --dry-run": (
        1,
        "--data must give at least one batch",
    ),
    f"recalibrate nets.py:resnet {SAVED} {ON_DIGITS} --samples 0": (1, "error: --samples must be at least 1"),
    f"recalibrate nets.py:resnet {SAVED} {ON_DIGITS} --tolerance 0": (1, "error: --tolerance must be a pos"),
    f"adapt nets.py:resnet {SAVED} {ON_DIGITS} --source-weight=-1": (
        1,
        "error: --source-weight must be a num",
    ),
    f"fold nets.py:resnet {SAVED} --example 2,1,8,8 --tolerance 1e-30 --dry-run": (
        1,
        "give a larger --tolerance if",
    ),
    "recalibrate nets.py:normed normed.pt --data batches.py:named --dry-run": (
        1,
        "have the loader give that, or call the network by forward_fn= (in Python alone)",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data digits --mean 0.5 --dry-run": (
        1,
        "--mean and --std must come together, and for images:DIR alone, but --mean came for digits",
    ),
    **{
        f"fold nets.py:resnet {SAVED} --example 2,1,8,8 --dry-run {option}": (
            1,
            f"error: {option.split()[0]} goes with --data, which did not come",
        )
        for option in (
            "--split test",
            "--batch-size 2",
            "--mean 0",
            "--std 1",
            "--image-size 8",
            "--data-dir d",
        )
    },
    # data that do not fit the network
    "recalibrate nets.py:normed normed.pt --data batches.py:colour --dry-run": (
        1,
        "layer '0' (BatchNorm2d) must be given (N, 1, ...), as many channels as it keeps statistics of",
    ),
    "adapt nets.py:normed normed.pt --data batches.py:larger --dry-run": (
        1,
        "'2', a Linear of the network, was given (40, 128) of torch.float32: RuntimeError: mat1 and mat2",
    ),
    "convert nets.py:normed normed.pt --to group --data batches.py:larger --dry-run": (
        1,
        "'2', a Linear of the network, was given (40, 128) of torch.float32: RuntimeError: mat1 and mat2",
    ),
    "fold nets.py:normed normed.pt --example 1,1,16,8 --dry-run": (
        1,
        "'2', a Linear of the network, was given (1, 128) of torch.float32: RuntimeError: mat1 and mat2",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data batches.py:double --dry-run": (
        1,
        "'resnet.embedder.embedder.convolution', a Conv2d of the network, was given (40, 1, 8, 8) of "
        "torch.float64: RuntimeError",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data batches.py:labelled --dry-run": (
        1,
        "the network was given (40, 1, 8, 8) of torch.float32, (40,) of torch.int64: IndexError: Target",
    ),
    "recalibrate nets.py:words words.pt --data batches.py:indices --dry-run": (
        1,
        "'0', a Embedding of the network, was given (8, 3) of torch.int64: IndexError",
    ),
    "recalibrate nets.py:own own.pt --data batches.py:colour --dry-run": (
        1,
        "error: what the network is given must fit it, but '0', a Own of the network, was given "
        "(40, 3, 8, 8) of torch.float32: ValueError: one channel, please",
    ),
}
# All that is seen to be wrong before the work is told at once, in the order in which it is typed.
SEVERAL = {
    f"{verb} nets.py:resent gone.pt {more}": (
        1,
        f"- gone.pt must be a checkpoint, but does not exist - {said}",
    )
    for verb, more, said in (
        ("recalibrate", "--data digits", "name the output file by --out"),
        ("adapt", "--data digits --out a.txt", "--out must end in .safetensors"),
        ("fold", "--example 1,1,8,8 --out no/a.pt2", "--out must be in a folder that exists"),
        ("convert", "--to group --out kept.pt", "kept.pt exists: choose another --out"),
    )
}
CASES |= SEVERAL | {
    f"convert nets.py:resent {SAVED} --to grop --split test --device tpu": (
        1,
        "error: 5 arguments are wrong: - unknown kind of normaliser 'grop': did you mean 'group'?",
    ),
    f"fold nets.py:resnet {SAVED}": (
        1,
        "error: 2 arguments are wrong: - an example of the input is needed: either --example N,C,H,W or "
        "--data - name the output file by --out (as out.pt2)",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data nets.py:resent --out no/a.pt": (
        1,
        "error: 2 arguments are wrong: - nets.py must define 'resent', but does not",
    ),
    f"recalibrate nets.py:resent {SAVED} --data digits": (1, "error: 2 arguments are wrong: - nets.py must"),
    f"recalibrate nets.py:resnet {SAVED} --data digits --out a.pt --tolerance -1 --samples 0": (
        1,
        "error: 2 arguments are wrong: - --samples must be at least 1, but is 0: leave it out to read all "
        "- --tolerance must be a positive number",
    ),
    f"recalibrate nets.py:resnet {SAVED} --data digits --out a.pt --samples 0 --batch-size 0 --split tset": (
        1,
        "error: 3 arguments are wrong: - --samples must be at least 1, but is 0: leave it out to read all "
        "- the split must be one of train, validation, test, all, but is 'tset' "
        "- the batch size must be at least 1, but is 0",
    ),
    f"adapt nets.py:resnet {SAVED} --data images:none --image-size 0": (
        1,
        "error: 2 arguments are wrong: - image_size must be at least 1 and a whole number, but is 0",
    ),
    f"adapt nets.py:resnet {SAVED} --data digits --source-weight=-1": (
        1,
        "error: 2 arguments are wrong: - --source-weight must be a number of samples",
    ),
    f"fold nets.py:resnet {SAVED} --tolerance=-1 --dry-run": (
        1,
        "error: 2 arguments are wrong: - an example of the input is needed: either --example N,C,H,W or "
        "--data - --tolerance must be a number, 0 or more",
    ),
    f"convert nets.py:resnet {SAVED} --to grop --groups 0 --dry-run": (
        1,
        "error: 2 arguments are wrong: - unknown kind of normaliser 'grop': did you mean 'group'?",
    ),
}
# The user's own code raised: Python shows where.
TRACEBACK = [case for case in CASES if any(name in case for name in (":broken", ":raises", ":own "))]
NO_TRACEBACK = [case for case in CASES if case not in TRACEBACK]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def outcomes(resnet_cli):
    """Each case's status, output and errors, all from one process."""
    folder = resnet_cli.folder
    whole = (folder / SAVED).read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save(load_file(folder / SAVED), folder / "cut.pt")
    whole = (folder / "cut.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"weight": Evil()}, folder / "evil.pt")
    (folder / "old-evil.pt").write_bytes(pickle.dumps({"weight": Evil()}))
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    (folder / "kept.pt").write_bytes(b"old")
    before = contents(folder)
    script = str(Path(__file__).with_name("many_commands.py"))
    done = resnet_cli.run(json.dumps([case.split() for case in CASES]), program=(sys.executable, script))
    assert done.status == 0, done.errors
    assert contents(folder) == before
    assert not (folder / "it-ran").exists()
    return dict(zip(CASES, json.loads(done.output), strict=True))


def on_one_line(errors: str) -> str:
    """Usage errors come in a box, wrapped."""
    return " ".join(errors.replace("│", " ").split())


@pytest.mark.parametrize("case", CASES)
def test_error_says_what_is_wrong(outcomes, case):
    wanted, words = CASES[case]
    status, output, errors = outcomes[case]
    assert status == wanted, errors
    assert words in on_one_line(errors)
    assert "written" not in output


@pytest.mark.parametrize("case", SEVERAL)
def test_what_is_typed_first_is_told_first(outcomes, case):
    told = on_one_line(outcomes[case][2])
    assert told.startswith(
        "error: 3 arguments are wrong: - nets.py must define 'resent', but does not; did you"
    )


@pytest.mark.parametrize("case", NO_TRACEBACK)
def test_error_is_told_without_a_traceback(outcomes, case):
    assert "Traceback" not in outcomes[case][2]


@pytest.mark.parametrize("case", TRACEBACK)
def test_exception_of_the_users_own_code_is_shown_as_python_shows_it(outcomes, case):
    assert "Traceback" in outcomes[case][2]
    assert "raise " in outcomes[case][2]


def test_full_disk_shows_the_report_and_leaves_the_old_file(resnet_cli):
    (resnet_cli.folder / "full.pt").write_bytes(b"old")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "from normwright.cli import main; main()"
    )
    how = ("--data", "batches.py:loader", "--out", "full.pt", "--force")
    outcome = resnet_cli.run(
        "recalibrate", "nets.py:resnet", SAVED, *how, program=(sys.executable, "-c", code)
    )
    assert outcome.status == 1
    assert "error: full.pt must be in a folder that exists and has room" in outcome.errors
    assert "6 of 6 normalisers re-estimated" in outcome.output
    assert "written" not in outcome.output
    assert (resnet_cli.folder / "full.pt").read_bytes() == b"old"
    assert not list(resnet_cli.folder.glob(".full*"))
