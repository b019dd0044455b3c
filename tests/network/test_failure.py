"""Which module failed, and on what."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwright.network.failure import where_it_failed


def caught(call) -> str:
    with pytest.raises(Exception) as info:  # noqa: PT011 - whatever PyTorch raises
        call()
    return where_it_failed(info.value)


def test_the_innermost_module_and_what_came_to_it():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))
    assert caught(lambda: network(torch.zeros(2, 1, 8, 8))).startswith("it failed in 1.1, BatchNorm2d(3, ")
    assert caught(lambda: network(torch.zeros(2, 1, 8, 8))).endswith(", to which came (2, 2, 6, 6) float32")


def test_a_forward_of_the_users_own_is_named_by_its_class():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, *, mask):
            return self.layer(x)[mask]

    call = {"mask": torch.zeros(9, dtype=torch.bool)}
    assert caught(lambda: Net()(torch.zeros(3, 4), **call)) == (
        "it failed in Net, to which came (3, 4) float32, (9,) bool"
    )


def test_it_looks_through_hooks_and_data_parallel():
    network = nn.DataParallel(nn.Sequential(nn.Linear(4, 2)))
    network.module[0].register_forward_pre_hook(lambda module, args: None)
    assert "0, Linear(in_features=4" in caught(lambda: network(torch.zeros(3, 5)))


def test_a_call_without_tensors():
    assert caught(lambda: nn.Linear(4, 2)("text")).endswith("to which came no tensor")


def test_a_failure_outside_of_modules_is_not_explained():
    assert caught(lambda: torch.zeros(2) @ torch.zeros(3)) == ""
    assert where_it_failed(ValueError()) == ""
