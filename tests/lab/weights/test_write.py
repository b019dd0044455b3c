"""What is written can be read, and the old file stands until the new one is whole."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from contextlib import contextmanager

import pytest
import torch
from safetensors import safe_open
from torch import nn

from normwright.errors import OptionError, StoreError
from normwright.lab.store.whole import write_whole
from normwright.lab.weights.read import read_weights
from normwright.lab.weights.write import write_weights


@contextmanager
def file_sizes_below(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # the kernel then refuses a larger file
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.pth"])
def test_written_weights_are_read_to_the_bit(tmp_path, name):
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3).to(torch.bfloat16))
    network[0].bias = network[1].bias  # safetensors itself refuses tied weights
    write_weights(network, tmp_path / name, made_by={"verb": "test"})
    read = read_weights(tmp_path / name).tensors
    assert read.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        assert read[key].dtype == value.dtype
        assert torch.equal(read[key], value)
    assert os.listdir(tmp_path) == [name]


def test_safetensors_say_which_verb_made_them(tmp_path):
    write_weights(nn.Linear(2, 2), tmp_path / "a.safetensors", made_by={"verb": "adapt"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "verb": "adapt"}


def test_what_safetensors_cannot_hold_is_told(tmp_path):
    network = nn.Linear(2, 2)
    network.register_buffer("sparse", torch.eye(3).to_sparse())
    with pytest.raises(OptionError, match="safetensors cannot hold every tensor"):
        write_weights(network, tmp_path / "a.safetensors", made_by={})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_full_disk_leaves_the_old_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    with (
        file_sizes_below(10_000),
        pytest.raises(StoreError, match=rf"{name} must be in .* has room"),
    ):
        write_weights(nn.Linear(100, 100), tmp_path / name, made_by={})
    assert (tmp_path / name).read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(StoreError, match=os.strerror(errno.ENOENT)):
        write_weights(nn.Linear(2, 2), tmp_path / "no" / "a.pt", made_by={})


def test_killed_at_any_moment_the_file_is_the_old_or_the_new(tmp_path):
    path = tmp_path / "a.bin"
    contents = [bytes([number]) * 3_000_000 for number in range(4)]
    path.write_bytes(contents[0])
    for wait in range(12):
        child = os.fork()
        if child == 0:
            while True:
                for content in contents:
                    write_whole(path, content)
        time.sleep(0.003 * wait)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert path.read_bytes() in contents
    write_whole(path, contents[0])
    assert os.listdir(tmp_path) == ["a.bin"]  # the drafts of the dead are gone


def test_draft_of_a_living_process_stays(tmp_path):
    path = tmp_path / "a.bin"
    told, tell = os.pipe()
    go_on, let_go_on = os.pipe()
    child = os.fork()
    if child == 0:
        synced = os.fsync

        def fsync(handle):
            os.write(tell, b".")
            os.read(go_on, 1)
            os.fsync = synced
            synced(handle)

        os.fsync = fsync
        write_whole(path, b"the child's")
        os._exit(0)
    os.read(told, 1)
    write_whole(path, b"ours")
    assert len(os.listdir(tmp_path)) == 2
    os.write(let_go_on, b".")
    assert os.waitpid(child, 0)[1] == 0
    assert path.read_bytes() == b"the child's"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_file_of_a_like_name_is_no_draft(tmp_path):
    (tmp_path / ".a.bin.tmp").write_bytes(b"")
    (tmp_path / ".b.a.bin.00000000.tmp").write_bytes(b"")
    write_whole(tmp_path / "a.bin", b"new")
    assert len(os.listdir(tmp_path)) == 3
