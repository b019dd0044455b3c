"""recalibrate, adapt, fold and convert on a Transformers ResNet: what they print and write, and its use."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import normwright as nw
from normwright.lab.batches import open_batches
from normwright.lab.recipe import DataRecipe
from normwright.lab.user_code import resolve

CHECKPOINT = "saved/model.safetensors"
X = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _as_many_threads_as_the_command_has():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def resnet(resnet_cli):
    """The network with the checkpoint's weights, in inference mode."""
    network = resolve(f"{resnet_cli.folder / 'nets.py'}:resnet")().eval()
    network.load_state_dict(load_file(resnet_cli.folder / CHECKPOINT))
    return network


def assert_as_exact(logits, network):
    """Against float64, at most 4 times the network's own error, or 4 ulps: what `nw.fold` lets pass."""
    unfolded = network(X).logits.double()
    exact = network.double()(X.double()).logits
    ulp = torch.finfo(torch.float32).eps * exact.abs().max()
    allowed = 4 * torch.maximum((unfolded - exact).abs().max(), ulp)
    assert (logits.double() - exact).abs().max() <= allowed


def digits(split, batch_size=None):
    return open_batches(DataRecipe(name="digits"), split=split, batch_size=batch_size)


def act(cli, verb, *more, network="nets.py:resnet", checkpoint=CHECKPOINT):
    outcome = cli.run(verb, network, checkpoint, *more)
    assert outcome.status == 0, outcome.errors
    return outcome


def logits_after(cli, outcome):
    """What the network gives for X in another process that runs the lines which the command printed."""
    lines = [line.strip() for line in outcome.output.splitlines() if line.startswith("    ")]
    torch.save(X, cli.folder / "x.pt")
    start = ["network = resnet()"] if not lines[0].startswith("network = ") else []
    code = [
        "import torch, safetensors.torch, normwright",
        *(["from nets import resnet"] if "resnet" in "".join([*start, *lines]) else []),
        *start,
        *lines,
        *([] if "export" in lines[0] else ["network.eval()"]),
        "torch.save(network(torch.load('x.pt'))['logits'], 'y.pt')",
    ]
    done = cli.run(program=(sys.executable, "-c", "\n".join(code)))
    assert done.status == 0, (code, done.errors)
    return torch.load(cli.folder / "y.pt")


@pytest.mark.parametrize("verb", ["recalibrate", "adapt"])
def test_statistics_alone_change_and_are_those_of_the_verb(resnet_cli, resnet, verb):
    out = f"{verb}.safetensors"
    outcome = act(resnet_cli, verb, "--data", "digits", "--out", out)
    written, before = load_file(resnet_cli.folder / out), load_file(resnet_cli.folder / CHECKPOINT)
    assert written.keys() == before.keys()
    for name, value in written.items():
        assert torch.equal(value, before[name]) == ("running" not in name), name
    handle = getattr(nw, verb)(resnet, digits("train" if verb == "recalibrate" else "test"))
    for name, value in resnet.state_dict().items():
        assert torch.equal(value, written[name]), name
    assert outcome.output.startswith(str(handle.table()))
    assert f"written: {out}" in outcome.output
    assert "  100 %: " in outcome.errors
    assert torch.equal(logits_after(resnet_cli, outcome), resnet(X).logits)


def test_folded_program_runs_elsewhere(resnet_cli, resnet):
    outcome = act(resnet_cli, "fold", "--example", "2,1,8,8", "--out", "folded.pt2")
    assert "6 of 6 normalisers folded" in outcome.output
    program = torch.export.load(resnet_cli.folder / "folded.pt2")
    assert not [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    assert_as_exact(logits_after(resnet_cli, outcome), resnet)


def test_folded_onnx_has_no_batch_normalization(resnet_cli, resnet):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    act(resnet_cli, "fold", "--data", "batches.py:stream", "--out", "folded.onnx")
    path = resnet_cli.folder / "folded.onnx"
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
    (logits,) = onnxruntime.InferenceSession(path).run(["logits"], {"pixel_values": X.numpy()})
    assert_as_exact(torch.from_numpy(logits), resnet)


def test_converted_and_calibrated_network_is_made_again_elsewhere(resnet_cli, resnet):
    more = ("--data", "digits", "--split", "test", "--batch-size", "120")
    outcome = act(resnet_cli, "convert", "--to", "group", *more, "--out", "group.safetensors")
    assert "6 of 6 normalisers converted to group" in outcome.output
    converted = nw.convert(resnet, "group", calibrate=digits("test", 120))
    assert sum(isinstance(module, nn.GroupNorm) for module in converted.modules()) == 6
    assert torch.equal(logits_after(resnet_cli, outcome), converted(X).logits)


@pytest.mark.parametrize(
    "how",
    [
        ("--to", "frozen"),
        ("--to", "layer", "--example", "2,1,8,8"),
        ("--to", "group", "--groups", "2", "--names", "resnet.embedder.embedder.normalization"),
    ],
)
def test_converted_network_is_made_again_elsewhere(resnet_cli, resnet, how):
    outcome = act(resnet_cli, "convert", *how, "--out", "converted.pt", "--force")
    given = logits_after(resnet_cli, outcome)
    named = [how[5]] if "--names" in how else None
    shown = torch.zeros(2, 1, 8, 8) if "--example" in how else None
    groups = 2 if named else None
    converted = nw.convert(resnet, how[1], names=named, groups=groups, example=shown)
    assert torch.equal(given, converted(X).logits)


def test_json_is_the_report_and_all_else_goes_to_the_errors(resnet_cli):
    more = ("--data", "batches.py:loader", "--dry-run", "--json")
    outcome = act(resnet_cli, "recalibrate", *more)
    report = json.loads(outcome.output)
    assert (report["samples"], report["batches"], len(report["layers"])) == (40, 3, 6)
    assert report["layers"][0]["name"] == "resnet.embedder.embedder.normalization"
    assert "making a loader" in outcome.errors
    assert outcome.errors.splitlines()[-1] == "dry run: nothing was written"


def test_dry_run_leaves_every_file(resnet_cli):
    before = sorted(path.name for path in resnet_cli.folder.iterdir())
    stood = (resnet_cli.folder / CHECKPOINT).stat().st_mtime_ns
    how = ("--data", "batches.py:loader", "--dry-run", "--out", CHECKPOINT)
    outcome = act(resnet_cli, "adapt", *how)
    assert outcome.output.splitlines()[-1] == "dry run: nothing was written"
    assert sorted(path.name for path in resnet_cli.folder.iterdir()) == before
    assert (resnet_cli.folder / CHECKPOINT).stat().st_mtime_ns == stood


def test_checkpoint_may_be_replaced_by_the_output(resnet_cli):
    (resnet_cli.folder / "own.pt").unlink(missing_ok=True)
    before = load_file(resnet_cli.folder / CHECKPOINT)
    nested = {"state_dict": {f"module.{name}": value for name, value in before.items()}, "epoch": 3}
    torch.save(nested, resnet_cli.folder / "own.pt")
    how = ("--data", "batches.py:stream", "--out", "own.pt")
    refused = resnet_cli.run("recalibrate", "nets.py:resnet", "own.pt", *how)
    assert (refused.status, refused.output) == (1, "")
    assert refused.errors == "error: own.pt exists: choose another --out, or replace it by --force\n"
    outcome = act(resnet_cli, "recalibrate", *how, "--force", checkpoint="own.pt")
    assert "note: Of own.pt, only the state dict was read, not epoch." in outcome.output
    assert "note: The checkpoint's names begin with 'module.', which was left off." in outcome.output
    after = torch.load(resnet_cli.folder / "own.pt", weights_only=True)
    assert after.keys() == before.keys()


@pytest.mark.parametrize("verb", ["recalibrate", "adapt", "fold", "convert"])
def test_help_has_examples_and_fits_80_columns(resnet_cli, verb):
    outcome = resnet_cli.run(verb, "--help")
    assert outcome.status == 0
    assert outcome.output.count(f"\n   normwright {verb}") >= 2
    assert max(map(len, outcome.output.splitlines())) <= 80
