"""A traceback begins where the user's code does."""

import pytest
import torch
from torch import nn

from normwright.lab.tracebacks import user_traceback


class Raises(nn.Module):
    def forward(self, x):
        raise KeyError("no such layer")


def test_what_pytorch_does_before_a_forward_of_the_users_is_left_out():
    with pytest.raises(KeyError) as caught:
        Raises()(torch.ones(1))
    called = caught.value.__traceback__.tb_next  # without this test's own frame
    shown = user_traceback(caught.value.with_traceback(called))
    assert "in forward" in shown.splitlines()[1]
    assert "_call_impl" not in shown
