"""What the constructors say that they take."""

from __future__ import annotations

import inspect

import pytest
import torch

from normwright import nn

DROP_INS = [
    *(f"{kind}Norm{axes}d" for kind in ("Batch", "Instance") for axes in (1, 2, 3)),
    *("LayerNorm", "GroupNorm", "RMSNorm", "LocalResponseNorm", "SyncBatchNorm"),
]

FAMILY = [
    *(f"{kind}{axes}d" for kind in ("GhostBatchNorm", "SplitBatchNorm", "BatchRenorm") for axes in (1, 2, 3)),
    *("FrozenBatchNorm1d", "FrozenBatchNorm2d", "FrozenBatchNorm3d", "MaskedBatchNorm1d"),
]


@pytest.mark.parametrize("name", DROP_INS)
def test_a_drop_in_takes_what_pytorchs_takes_in_the_same_order_and_an_activation(name: str) -> None:
    theirs = inspect.signature(getattr(torch.nn, name)).parameters
    ours = dict(inspect.signature(getattr(nn, name)).parameters)
    activation = ours.pop("activation")
    assert (activation.kind, activation.default) == (inspect.Parameter.KEYWORD_ONLY, None)
    assert list(ours.values()) == list(theirs.values())


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_takes_what_batch_norm_takes_and_more_by_name(name: str) -> None:
    batch_norm = inspect.signature(torch.nn.BatchNorm1d).parameters
    ours = inspect.signature(getattr(nn, name)).parameters
    assert [ours[key] for key in batch_norm] == list(batch_norm.values())
    assert all(ours[key].kind is inspect.Parameter.KEYWORD_ONLY for key in ours.keys() - batch_norm.keys())


def test_a_wrong_keyword_does_not_bind() -> None:
    signature = inspect.signature(nn.BatchNorm2d)
    assert signature.bind(16, activation="relu").arguments == {"num_features": 16, "activation": "relu"}
    with pytest.raises(TypeError, match="bogus"):
        signature.bind(16, bogus=1)


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d", "LayerNorm", "RMSNorm", "SyncBatchNorm"])
def test_pytorch_makes_one_without_filling_it(name: str) -> None:
    made = torch.nn.utils.skip_init(getattr(nn, name), 4, activation="relu")
    assert made.activation == "relu"
