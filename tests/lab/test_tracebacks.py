"""A traceback begins where the user's code does."""

import pytest
import torch
from torch import nn

from normwright.errors import UserCodeError
from normwright.lab.grid import make_base
from normwright.lab.tracebacks import user_traceback
from normwright.lab.user_code import resolve
from normwright.lab.work import run_error


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


def test_what_normwright_says_of_a_users_code_needs_no_traceback():
    with pytest.raises(UserCodeError) as caught:
        resolve("math:pi")
    called = caught.value.__traceback__.tb_next  # without this test's own frame
    shown = user_traceback(caught.value.with_traceback(called))
    assert shown == f"UserCodeError: {caught.value}"
    told = str(run_error(shown, make_base("mlp", "digits", norm="none", batch_size=8, lr=0.1), shown))
    assert told.count("must be a function") == 1
    assert "Traceback" not in told
