"""Whatever a file holds, its weights are read or the reason is told, and nothing in it runs."""

from __future__ import annotations

import argparse
import os
import pickle
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from normwright.errors import CheckpointError, OptionError
from normwright.lab.weights.read import check_is_there, read_weights

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2, dtype=torch.float16)}


class Evil:
    """Pickled code: it would make a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def assert_read(path, **how):
    read = read_weights(path, **how)
    assert read.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read.tensors[name].dtype == tensor.dtype
        assert torch.equal(read.tensors[name], tensor)
    return read


@pytest.mark.parametrize(
    "name", ["a.safetensors", "a.pt", "old.pt", "safe.pt", "zip.safetensors", "noending"]
)
def test_weights_are_read_by_what_the_file_is_and_not_by_its_name(tmp_path, name):
    path = tmp_path / name
    if name in ("a.safetensors", "safe.pt"):
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=name != "old.pt")
    assert assert_read(path).left_out == ()


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "whatever"])
def test_nested_state_dict_is_found(tmp_path, key):
    optimiser = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, key: TENSORS, "optimizer": optimiser}, tmp_path / "a.pt")
    assert assert_read(tmp_path / "a.pt").left_out == ("epoch", "optimizer")


def test_of_several_state_dicts_one_is_chosen_by_its_key(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"model": TENSORS, "ema": {"weight": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match=r"holds 2: choose one by --key \(model, ema\)"):
        read_weights(path)
    assert_read(path, key="model")
    with pytest.raises(OptionError, match="'nonsense', but has none there: it has model, ema"):
        read_weights(path, key="nonsense")


@pytest.mark.parametrize("old", [False, True])
def test_pickled_code_is_never_run(tmp_path, old):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    if old:
        path.write_bytes(pickle.dumps({"weight": Evil(trace)}))
    else:
        torch.save({"weight": Evil(trace)}, path)
    with pytest.raises(CheckpointError, match=r"holds pickled code.* which is never run"):
        read_weights(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(trace)))  # it would have been seen
    assert trace.exists()


@pytest.mark.parametrize(
    ("held", "named"),
    [
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"state_dict": TENSORS, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        ({"state_dict": TENSORS, "best": np.float64(0.5)}, "numpy"),
    ],
)
def test_what_needs_code_is_named(tmp_path, held, named):
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"holds pickled code: .*{named}"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "old"])
def test_truncated_checkpoint_says_so(tmp_path, kind, share):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    large = {"weight": torch.randn(50, 50)}
    if kind == "safetensors":
        save_file(large, whole)
    else:
        torch.save(large, whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"is cut off or damaged.*: copy or download it again"):
        read_weights(cut)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"import torch\n", "is neither .it begins with b'import to'"),
        (b"\x80", "is cut off or damaged"),
    ],
)
def test_file_of_another_kind(tmp_path, content, words):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_weights(tmp_path / "a.pt")


def test_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"not what torch.save wrote"):
        read_weights(tmp_path / "a.pt")


def test_compiled_program(tmp_path):
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.raises(CheckpointError, match="holds a compiled program"):
        read_weights(tmp_path / "a.pt2")


@pytest.mark.parametrize("held", [[torch.ones(2)], {"lr": 0.1}, {}, {1: torch.ones(2)}, torch.ones(2)])
def test_no_state_dict_in_it(tmp_path, held):
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="must hold a state dict, tensors by name, but holds"):
        read_weights(tmp_path / "a.pt")


def test_missing_file_names_the_nearest(tmp_path):
    torch.save(TENSORS, tmp_path / "resnet.pt")
    with pytest.raises(CheckpointError, match=r"does not exist: did you mean resnet.pt\?"):
        read_weights(tmp_path / "resent.pt")
    with pytest.raises(CheckpointError, match=r"does not exist$"):
        read_weights(tmp_path / "no-such-folder" / "a.pt")


def test_folder_names_what_is_in_it(tmp_path):
    torch.save(TENSORS, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"is a folder: name .* in it \(model.safetensors\)"):
        read_weights(tmp_path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)  # the whole path may be too long for one


IRREGULAR = {
    "a pipe": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to(os.devnull),
}


@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_file_is_refused_and_never_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    IRREGULAR[kind](path)
    with pytest.raises(CheckpointError, match=f"a.pt must be a file, but is {kind}.*: save it to a file"):
        read_weights(path)


def test_a_name_that_the_system_refuses(tmp_path):
    with pytest.raises(CheckpointError, match="must be readable, but is not: File name too long"):
        check_is_there(tmp_path / (300 * "a"))


def test_what_stands_among_the_tensors_is_named(tmp_path):
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"calls": 1}

    torch.save(Counting(2, 2).state_dict(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="but '_extra_state' in it is of type dict: save the tensors"):
        read_weights(tmp_path / "a.pt")
