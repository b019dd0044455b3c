"""Memory that is used up, told from other errors."""

from __future__ import annotations

import sys

import pytest
import torch

from normwright.lab.advice import exhaustion
from normwright.lab.advice.exhaustion import available_bytes, is_out_of_memory

# 4 PiB of float32: beyond the addresses of a process, so that the system must refuse it.
ABSURD = 2**50


def raised(action):
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whichever PyTorch raises
        action()
    return caught.value


def test_the_allocator_s_own_error_is_known():
    error = raised(lambda: torch.empty(ABSURD))
    assert isinstance(error, RuntimeError)
    assert is_out_of_memory(error)


def test_a_cause_is_looked_at():
    def wrapped():
        try:
            torch.empty(ABSURD)
        except RuntimeError as error:
            raise ValueError("the network failed") from error

    assert is_out_of_memory(raised(wrapped))


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to …")])
def test_errors_with_a_class_of_their_own(error):
    assert is_out_of_memory(error)


def test_other_errors_are_not_taken_for_it():
    assert not is_out_of_memory(raised(lambda: torch.ones(2, 3) @ torch.ones(2, 3)))
    assert not is_out_of_memory(None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_is_available_is_less_than_what_there_is():
    with open("/proc/meminfo") as lines:
        total = 1024 * int(next(lines).split()[1])
    available = available_bytes(torch.device("cpu"))
    assert available is not None
    assert 0 < available < total


@pytest.mark.parametrize(
    ("own", "limits", "left"),
    [
        ("/", {"": 700}, 600),
        ("/jobs/7/step", {"": "max", "jobs": 900, "jobs/7": 500, "jobs/7/step": "max"}, 400),
        ("/elsewhere/than/is/mounted", {"": 700}, 600),
        ("/../beside", {"": 700}, 600),
        ("/jobs", {"": "max", "jobs": "max"}, None),
    ],
)
def test_a_limit_of_any_control_group_around_the_process_counts(monkeypatch, tmp_path, own, limits, left):
    for group, most in limits.items():
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / "memory.max").write_text(f"{most}\n")
        (tmp_path / group / "memory.current").write_text("150\n")
        (tmp_path / group / "memory.stat").write_text("anon 100\ninactive_file 50\n")
    (tmp_path / "own").write_text(f"1:name=systemd:/\n0::{own}\n")
    monkeypatch.setattr(exhaustion, "_CGROUP", tmp_path)
    monkeypatch.setattr(exhaustion, "_OWN_CGROUP", tmp_path / "own", raising=False)
    monkeypatch.setattr(exhaustion, "_of_system", lambda: None)
    assert available_bytes(torch.device("cpu")) == left
