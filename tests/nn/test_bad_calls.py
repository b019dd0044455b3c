"""The same bad constructors and inputs raise PyTorch's error, and its message or a longer one."""

import warnings

import pytest
import torch
from modules import THEIRS
from torch import float16, float64, int64, ones

from normwright import nn

IMAGE = ones(4, 3, 5, 5)

# name, positional arguments, keywords, input (None: the constructor raises), training
CALLS = [
    ("BatchNorm2d", (3,), {}, ones(4, 3, 5), True),
    ("BatchNorm1d", (3,), {}, IMAGE, True),
    ("BatchNorm3d", (3,), {}, IMAGE, True),
    ("BatchNorm1d", (3,), {}, ones(3), True),
    ("BatchNorm2d", (3,), {}, ones(4, 5, 2, 2), True),
    ("BatchNorm2d", (3,), {}, ones(4, 5, 2, 2), False),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, ones(4, 5, 2, 2), True),
    ("BatchNorm1d", (3,), {}, ones(1, 3), True),
    ("BatchNorm2d", (3,), {}, ones(1, 3, 1, 1), True),
    ("BatchNorm2d", (3,), {"momentum": None}, ones(1, 3, 1, 1), True),
    ("BatchNorm2d", (3,), {}, IMAGE.to(int64), True),
    ("BatchNorm2d", (3,), {}, IMAGE.to(int64), False),
    ("BatchNorm2d", (3,), {}, IMAGE.double(), True),
    ("BatchNorm2d", (3,), {}, IMAGE.double(), False),
    ("BatchNorm2d", (3,), {"dtype": float64}, IMAGE, True),
    ("BatchNorm2d", (3,), {"dtype": float64}, IMAGE.half(), True),
    ("BatchNorm2d", (3,), {"dtype": float16}, IMAGE.bfloat16(), True),
    ("BatchNorm2d", (3,), {"eps": 0.0}, IMAGE, True),
    ("BatchNorm2d", (3,), {"eps": -1.0}, IMAGE, True),
    ("BatchNorm2d", (3,), {"eps": -1.0}, IMAGE, False),
    ("BatchNorm2d", (-1,), {}, None, True),
    ("BatchNorm2d", ("a",), {}, None, True),
    ("BatchNorm2d", (), {}, None, True),
    ("BatchNorm2d", (3,), {"foo": 1}, None, True),
    ("BatchNorm2d", (3.0,), {}, None, True),
    ("BatchNorm2d", (3,), {"dtype": int64}, None, True),
    ("BatchNorm2d", (3,), {}, "a", True),
    ("SyncBatchNorm", (3,), {}, ones(3), True),
    ("SyncBatchNorm", (3,), {}, ones(4, 0, 2, 2), True),
    ("SyncBatchNorm", (3,), {}, ones(4, 5, 2, 2), True),
    ("SyncBatchNorm", (3,), {}, ones(1, 3), True),
    ("SyncBatchNorm", (3,), {}, IMAGE.to(int64), True),
    ("SyncBatchNorm", (3,), {"eps": 0.0}, IMAGE, True),
    ("FrozenBatchNorm2d", (3,), {}, ones(4, 3, 5), True),
    ("FrozenBatchNorm1d", (3,), {}, IMAGE, False),
    ("FrozenBatchNorm3d", (3,), {}, ones(3), True),
    ("FrozenBatchNorm2d", (3,), {}, ones(4, 5, 2, 2), True),
    ("FrozenBatchNorm2d", (3,), {}, IMAGE.to(int64), True),
    ("FrozenBatchNorm2d", (3,), {}, IMAGE.double(), True),
    ("FrozenBatchNorm2d", (3,), {"eps": -1.0}, IMAGE, True),
    ("FrozenBatchNorm2d", (-1,), {}, None, True),
    ("FrozenBatchNorm2d", (), {}, None, True),
    ("FrozenBatchNorm2d", (3,), {"foo": 1}, None, True),
    ("InstanceNorm2d", (3,), {}, ones(4, 3, 1, 1), True),
    ("InstanceNorm2d", (3,), {}, ones(4, 3), True),
    ("InstanceNorm1d", (3,), {}, IMAGE, True),
    ("InstanceNorm3d", (3,), {}, ones(4, 5), True),
    ("InstanceNorm2d", (3,), {"affine": True}, ones(4, 5, 2, 2), True),
    ("InstanceNorm2d", (3,), {"affine": True}, ones(5, 2, 2), True),
    ("InstanceNorm2d", (3,), {"track_running_stats": True}, ones(4, 5, 2, 2), True),
    ("InstanceNorm2d", (3,), {"track_running_stats": True}, ones(4, 5, 2, 2), False),
    ("InstanceNorm2d", (3,), {"affine": True, "dtype": float64}, IMAGE, True),
    ("InstanceNorm2d", (3,), {}, IMAGE.to(int64), True),
    ("InstanceNorm2d", (-1,), {"affine": True}, None, True),
    ("GroupNorm", (4, 6), {}, None, True),
    ("GroupNorm", (0, 6), {}, None, True),
    ("GroupNorm", (2,), {}, None, True),
    ("GroupNorm", (2, 6), {}, ones(4, 5, 2), True),
    ("GroupNorm", (2, 6), {}, ones(6), True),
    ("GroupNorm", (2, 6), {}, ones(4, 8, 2), True),
    ("GroupNorm", (2, 6), {"affine": False}, ones(4, 7, 2), True),
    ("GroupNorm", (6, 6), {}, ones(1, 6), True),
    ("GroupNorm", (2, 6), {}, ones(4, 6).double(), True),
    ("GroupNorm", (2, 6), {"affine": False}, ones(4, 6).to(int64), True),
    ("LayerNorm", (5,), {}, ones(4, 6), True),
    ("LayerNorm", ((3, 5),), {}, ones(5), True),
    ("LayerNorm", ((3, 5),), {"elementwise_affine": False}, ones(2, 5, 3), True),
    ("LayerNorm", ((),), {}, ones(4, 6), True),
    ("LayerNorm", (5.0,), {}, None, True),
    ("LayerNorm", (-5,), {}, None, True),
    ("LayerNorm", (5,), {}, ones(4, 5).double(), True),
    ("LayerNorm", (5,), {"dtype": float64}, ones(4, 5), True),
    ("RMSNorm", (5,), {}, ones(4, 6), True),
    ("RMSNorm", ((3, 5),), {}, ones(5), True),
    ("RMSNorm", ((),), {}, ones(4, 6), True),
    ("RMSNorm", (5,), {}, ones(4, 5).to(int64), True),
    ("LocalResponseNorm", (), {}, None, True),
    ("LocalResponseNorm", (3,), {}, ones(4, 6), True),
    ("LocalResponseNorm", (0,), {}, ones(4, 6, 2), True),
    ("LocalResponseNorm", (0,), {}, IMAGE, True),
]


def described(call):
    name, arguments, options, x, training = call
    given = [*map(str, arguments), *(f"{key}={value}" for key, value in options.items())]
    what = f" of {tuple(x.shape)} {x.dtype}" if isinstance(x, torch.Tensor) else ""
    return f"{name}({', '.join(given)}){what}{'' if training else ' in inference'}"


def call_it(library, call):
    name, arguments, options, x, training = call
    module = getattr(library, name)(*arguments, **options).train(training)
    return module if x is None else module(x)


@pytest.mark.parametrize("call", CALLS, ids=described)
def test_the_error_is_pytorchs(call):
    with pytest.raises(Exception) as theirs:  # noqa: PT011 whatever PyTorch raises is what is wanted
        call_it(THEIRS, call)
    with pytest.raises(theirs.type) as ours:
        call_it(nn, call)
    assert str(ours.value).startswith(str(theirs.value).split("\n")[0])


def test_one_value_per_channel_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"Use a batch of two or more .*\(group or layer norm\), or eval\(\)"
    ):
        nn.BatchNorm1d(3)(ones(1, 3))


@pytest.mark.parametrize("x", [ones(4, 5, 2, 2), ones(5, 2, 2)], ids=["batch", "no batch"])
def test_the_warning_of_instance_norm_is_pytorchs(x):
    said = []
    for library in (nn, torch.nn):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            library.InstanceNorm2d(3)(x)
        said.append([(warning.category, str(warning.message)) for warning in caught])
    assert len(said[0]) == 1
    assert said[0] == said[1]
