"""recalibrate, adapt, fold and convert on a Transformers ResNet: what they print and write, and its use."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import normwright as nw
from normwright.lab.batches import open_batches
from normwright.lab.recipe import DataRecipe
from normwright.lab.user_code import resolve

CHECKPOINT = "saved/model.safetensors"
SAVED = f"nets.py:resnet {CHECKPOINT}"
X = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
FIRST = "resnet.embedder.embedder.normalization"

COMMANDS = {
    "recalibrate": f"recalibrate {SAVED} --data digits --out recalibrate.safetensors",
    "adapt": f"adapt {SAVED} --data digits --out adapt.safetensors",
    "fold": f"fold {SAVED} --example 2,1,8,8 --out folded.pt2",
    "onnx": f"fold {SAVED} --data batches.py:stream --out folded.onnx",
    "calibrated": f"convert {SAVED} --to group --data batches.py:loader --out group.safetensors",
    "frozen": f"convert {SAVED} --to frozen --out frozen.pt",
    "layer": f"convert {SAVED} --to layer --example 2,1,8,8 --out layer.pt",
    "one": f"convert {SAVED} --to group --groups 2 --names {FIRST} --out one.pt",
    "within": f"recalibrate {SAVED} --data batches.py:loader --estimator within --samples 20 --out within.pt",
    "key": "recalibrate nets.py:resnet two.pt --key other --data batches.py:loader --out key.pt",
    "images": f"adapt {SAVED} --data images:photos --image-size 8 --mean 0.5 --std 0.25 --batch-size 3 "
    "--split test --source-weight 3 --out images.pt",
    "lossy": f"convert {SAVED} --to rms --lossy --example 2,1,8,8 --out rms.pt",
    "json": f"recalibrate {SAVED} --data batches.py:loader --dry-run --json",
    "dry": f"adapt {SAVED} --data batches.py:loader --dry-run --out dry.pt",
    "refused": "recalibrate nets.py:resnet own.pt --data batches.py:stream --out own.pt",
    "replaced": "recalibrate nets.py:resnet own.pt --data batches.py:stream --out own.pt --force",
    **{f"help {verb}": f"{verb} --help" for verb in ("recalibrate", "adapt", "fold", "convert")},
}
USED = ("recalibrate", "adapt", "fold", "calibrated", "frozen", "layer", "one")

# Runs the lines that each command printed, in a process that did nothing else.
USE = r"""
import json, sys
import normwright, safetensors.torch, torch
from nets import resnet

answers, x = {}, torch.load("x.pt")
for name, lines in json.loads(sys.argv[1]).items():
    names = globals() | {"network": resnet()}
    exec("\n".join(lines), names)
    network = names["network"]
    answers[name] = (network if name == "fold" else network.eval())(x)["logits"].detach()
torch.save(answers, "answers.pt")
"""


@pytest.fixture(autouse=True)
def _as_many_threads_as_the_command_has():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def outcomes(resnet_cli):
    """Each command's status, output and errors, all from one process."""
    before = load_file(resnet_cli.folder / CHECKPOINT)
    nested = {"state_dict": {f"module.{name}": value for name, value in before.items()}, "epoch": 3}
    torch.save(nested, resnet_cli.folder / "own.pt")
    other = {name: value + 1 if "running_mean" in name else value for name, value in before.items()}
    torch.save({"one": before, "other": other}, resnet_cli.folder / "two.pt")
    write_photos(resnet_cli.folder / "photos")
    script = str(Path(__file__).with_name("many_commands.py"))
    commands = json.dumps([command.split() for command in COMMANDS.values()])
    done = resnet_cli.run(commands, program=(sys.executable, script))
    assert done.status == 0, done.errors
    return dict(zip(COMMANDS, json.loads(done.output), strict=True))


@pytest.fixture(scope="module")
def answers(resnet_cli, outcomes):
    """What the network gives for X elsewhere, made by the lines that each command printed."""
    lines = {
        name: [line.strip() for line in outcomes[name][1].splitlines() if line.startswith("    ")]
        for name in USED
    }
    assert all(lines.values()), outcomes
    torch.save(X, resnet_cli.folder / "x.pt")
    done = resnet_cli.run(json.dumps(lines), program=(sys.executable, "-c", USE))
    assert done.status == 0, done.errors
    return torch.load(resnet_cli.folder / "answers.pt")


@pytest.fixture
def resnet(resnet_cli):
    """The network with the checkpoint's weights, in inference mode."""
    network = resolve(f"{resnet_cli.folder / 'nets.py'}:resnet")().eval()
    network.load_state_dict(load_file(resnet_cli.folder / CHECKPOINT))
    return network


def write_photos(folder):
    """Grey images of 16 × 16 in two classes."""
    image = pytest.importorskip("PIL.Image")
    for index in range(20):
        path = folder / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = image.new("L", (16, 16))
        picture.putdata([(pixel * (index + 1)) % 256 for pixel in range(256)])
        picture.save(path)


def batches(cli, function):
    return open_batches(DataRecipe(name=f"{cli.folder / 'batches.py'}:{function}"))


def assert_as_exact(logits, network):
    """Against float64, at most 4 times the network's own error, or 4 ulps: what `nw.fold` lets pass."""
    unfolded = network(X).logits.double()
    exact = network.double()(X.double()).logits
    ulp = torch.finfo(torch.float32).eps * exact.abs().max()
    allowed = 4 * torch.maximum((unfolded - exact).abs().max(), ulp)
    assert (logits.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize(("verb", "split"), [("recalibrate", "train"), ("adapt", "test")])
def test_statistics_alone_change_and_are_those_of_the_verb(
    resnet_cli, resnet, outcomes, answers, verb, split
):
    written, before = (load_file(resnet_cli.folder / name) for name in (f"{verb}.safetensors", CHECKPOINT))
    assert written.keys() == before.keys()
    for name, value in written.items():
        assert torch.equal(value, before[name]) == ("running" not in name), name
    handle = getattr(nw, verb)(resnet, open_batches(DataRecipe(name="digits"), split=split))
    for name, value in resnet.state_dict().items():
        assert torch.equal(value, written[name]), name
    status, output, errors = outcomes[verb]
    assert status == 0
    assert output.startswith(str(handle.table()))
    assert f"written: {verb}.safetensors" in output
    assert "  100 %: " in errors
    assert torch.equal(answers[verb], resnet(X).logits)


def assert_written(cli, name, network):
    written = torch.load(cli.folder / f"{name}.pt", weights_only=True)
    for key, value in network.state_dict().items():
        assert torch.equal(value, written[key]), key


def test_options_of_recalibrate_arrive(resnet_cli, resnet, outcomes):
    nw.recalibrate(resnet, batches(resnet_cli, "loader"), estimator="within", samples=20)
    assert outcomes["within"][0] == 0, outcomes["within"]
    assert_written(resnet_cli, "within", resnet)


def test_options_of_the_data_and_of_adapt_arrive(resnet_cli, resnet, outcomes):
    photos = DataRecipe(name=f"images:{resnet_cli.folder / 'photos'}", image_size=8)
    nw.adapt(
        resnet,
        open_batches(photos, split="test", batch_size=3, mean=(0.5,), std=(0.25,)),
        source_weight=3,
    )
    assert outcomes["images"][0] == 0, outcomes["images"]
    assert_written(resnet_cli, "images", resnet)


def test_state_dict_of_the_key_is_taken(outcomes):
    assert outcomes["key"][0] == 0, outcomes["key"]
    shifts = [
        next(line for line in outcomes[name][1].splitlines() if FIRST in line) for name in ("key", "within")
    ]
    assert shifts[0] != shifts[1]
    assert "note: Of two.pt, only the state dict was read, not one." in outcomes["key"][1]


def test_loss_is_allowed_if_that_is_asked_for(resnet_cli, outcomes):
    assert outcomes["lossy"][0] == 0, outcomes["lossy"]
    assert not [name for name in torch.load(resnet_cli.folder / "rms.pt") if "running" in name]


def test_safetensors_say_by_what_they_were_made(resnet_cli, outcomes):
    for verb in ("recalibrate", "adapt"):
        with safe_open(resnet_cli.folder / f"{verb}.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt", "normwright": nw.__version__, "verb": verb}


def test_folded_program_runs_elsewhere(resnet_cli, resnet, outcomes, answers):
    assert "6 of 6 normalisers folded" in outcomes["fold"][1]
    program = torch.export.load(resnet_cli.folder / "folded.pt2")
    assert not [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    assert_as_exact(answers["fold"], resnet)


def test_folded_onnx_has_no_batch_normalization(resnet_cli, resnet, outcomes):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    assert outcomes["onnx"][0] == 0, outcomes["onnx"]
    path = resnet_cli.folder / "folded.onnx"
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
    (logits,) = onnxruntime.InferenceSession(path).run(["logits"], {"pixel_values": X.numpy()})
    assert_as_exact(torch.from_numpy(logits), resnet)


@pytest.mark.parametrize("name", ["calibrated", "frozen", "layer", "one"])
def test_converted_network_is_made_again_elsewhere(resnet_cli, resnet, outcomes, answers, name):
    converted = {
        "calibrated": lambda: nw.convert(resnet, "group", calibrate=batches(resnet_cli, "loader")),
        "frozen": lambda: nw.convert(resnet, "frozen"),
        "layer": lambda: nw.convert(resnet, "layer", example=torch.zeros(2, 1, 8, 8)),
        "one": lambda: nw.convert(resnet, "group", groups=2, names=[FIRST]),
    }[name]()
    assert sum(isinstance(module, nn.GroupNorm) for module in converted.modules()) == {
        "calibrated": 6,
        "one": 1,
    }.get(name, 0)
    assert torch.equal(answers[name], converted(X).logits)
    assert ("note: What is set aside" in outcomes[name][1]) == (name != "frozen")


def test_json_is_the_report_and_all_else_goes_to_the_errors(outcomes):
    status, output, errors = outcomes["json"]
    report = json.loads(output)
    assert status == 0
    assert (report["samples"], report["batches"], len(report["layers"])) == (40, 3, 6)
    assert report["layers"][0]["name"] == FIRST
    assert "making a loader" in errors
    assert errors.splitlines()[-1] == "dry run: nothing was written"


def test_dry_run_does_all_but_write(resnet_cli, outcomes):
    status, output, _ = outcomes["dry"]
    assert status == 0
    assert "6 of 6 normalisers moved" in output
    assert output.splitlines()[-1] == "dry run: nothing was written"
    assert not (resnet_cli.folder / "dry.pt").exists()


def test_checkpoint_is_replaced_if_that_is_asked_for(resnet_cli, outcomes):
    assert outcomes["refused"] == [
        1,
        "",
        "error: own.pt exists: choose another --out, or replace it by --force\n",
    ]
    status, output, _ = outcomes["replaced"]
    assert status == 0
    assert "note: Of own.pt, only the state dict was read, not epoch." in output
    assert "note: The checkpoint's names begin with 'module.', which was left off." in output
    after = torch.load(resnet_cli.folder / "own.pt", weights_only=True)
    assert after.keys() == load_file(resnet_cli.folder / CHECKPOINT).keys()


def test_an_output_that_is_a_link_stays_one(resnet_cli):
    folder = resnet_cli.folder
    (folder / "run3.pt").write_bytes(b"old")
    (folder / "latest.pt").symlink_to("run3.pt")
    arguments = ("recalibrate", "nets.py:resnet", CHECKPOINT, "--data", "batches.py:stream")
    assert resnet_cli.run(*arguments, "--out", "latest.pt", "--force").status == 0
    assert (folder / "latest.pt").is_symlink()
    assert torch.load(folder / "run3.pt", weights_only=True)


@pytest.mark.parametrize(
    ("to", "said"), [("loop.pt", "leads to itself"), ("gone/run.pt", "gone, which does not: make it")]
)
def test_a_link_that_leads_nowhere_is_said_before_the_work(resnet_cli, tmp_path, to, said):
    link = tmp_path / "loop.pt"
    link.symlink_to(to)
    arguments = ("recalibrate", "nets.py:resnet", CHECKPOINT, "--data", "batches.py:stream")
    run = resnet_cli.run(*arguments, "--out", str(link), "--force")
    assert run.status == 1
    assert said in " ".join(run.errors.split())
    assert "Traceback" not in run.errors


@pytest.mark.parametrize("verb", ["recalibrate", "adapt", "fold", "convert"])
def test_help_has_examples_in_lines_that_are_not_broken(outcomes, verb):
    status, output, _ = outcomes[f"help {verb}"]
    assert status == 0
    examples = importlib.import_module(f"normwright.cli.{verb}").EXAMPLES
    lines = [line.strip() for line in examples.splitlines() if line.startswith("  ")]
    assert len(lines) >= 2
    for line in lines:
        assert f"   {line} " in output
