"""Whom a call is synchronised over; what gloo does not gather from where it lies goes over the CPU.

What real processes compute: test_sync_batch_norm.
"""

from pathlib import Path

import pytest
import torch
from processes import run_ranks
from torch._subclasses import FakeTensorMode
from torch.distributed import distributed_c10d
from torch.utils._python_dispatch import TorchDispatchMode

from normwright.functional.collectives import Ranks, gathered, left_to_gloo


@pytest.mark.parametrize(
    ("backends", "expected"),
    [
        ("cpu:gloo", ()),
        ("cpu:gloo,cuda:gloo", ("cuda",)),
        ("cpu:gloo,cuda:nccl", ()),
        ("cuda:nccl", ()),
        ("cpu:mpi,cuda:mpi,xpu:gloo", ("xpu",)),
    ],
)
def test_what_is_left_to_gloo(backends, expected):
    assert left_to_gloo(backends) == expected


def test_pytorch_says_that_gloo_serves_gpus():
    config = distributed_c10d.BackendConfig(distributed_c10d.Backend("gloo"))
    assert left_to_gloo(str(config)) == ("cuda",)


class Collectives(TorchDispatchMode):
    """Notes the device of what is gathered."""

    def __init__(self):
        super().__init__()
        self.devices = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if "all_gather" in str(operator):
            self.devices.append(args[0].device.type)
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize(("over_cpu", "on"), [(("cuda",), "cpu"), ((), "cuda")])
def test_it_is_gathered_there_and_comes_back(over_cpu, on):
    # Tensors without storage: no GPU is asked for.
    with FakeTensorMode(), Collectives() as collectives:
        everything = gathered(torch.empty(3, 2, device="cuda"), Ranks("any", 4, over_cpu))
    assert collectives.devices == [on]
    assert everything.shape == (4, 3, 2)
    assert everything.device.type == "cuda"


FIRST = [("0", 2, ("cuda",)), ("1", 2, ()), ("2", 2, ("cuda",))]
SECOND = [("0", 2, ()), ("1", 2, ("cuda",)), None]


def test_compiled_code_finds_the_groups_that_are_there_now(tmp_path):
    for seen in run_ranks(Path(__file__).with_name("regrouped.py"), tmp_path):
        assert [compiled for compiled, _ in seen] == [None, *FIRST, None, *SECOND]
        assert [plain for _, plain in seen] == [None, *FIRST, None, *SECOND]
