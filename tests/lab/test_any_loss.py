"""The loss of whatever a network returns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from normwright.errors import DataError, OptionError
from normwright.lab.any_loss import loss_of_any

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
LABELS = torch.tensor([0, 2])


@pytest.mark.parametrize(
    "outputs", [LOGITS, SimpleNamespace(logits=LOGITS), {"logits": LOGITS, "loss": None}]
)
@pytest.mark.parametrize("name", [None, "cross_entropy"])
def test_cross_entropy_of_a_tensor_or_of_logits(outputs, name):
    assert loss_of_any(name)(outputs, LABELS) == functional.cross_entropy(LOGITS, LABELS)


def test_the_networks_own_comes_first_unless_another_is_named():
    outputs = SimpleNamespace(logits=LOGITS, loss=torch.tensor(7.0))
    assert loss_of_any(None)(outputs, LABELS) == 7
    assert loss_of_any("cross_entropy")(outputs, LABELS) == functional.cross_entropy(LOGITS, LABELS)
    assert loss_of_any("own") is None


def test_mse_is_of_one_hot_labels_or_of_targets_of_the_same_shape():
    one_hot = functional.one_hot(LABELS, 3).float()
    assert loss_of_any("mse")(LOGITS, LABELS) == functional.mse_loss(LOGITS, one_hot)
    assert loss_of_any("mse")(LOGITS, LOGITS + 1) == 1
    with pytest.raises(OptionError, match=r"\(2, 3\) and \(2, 1\) came"):
        loss_of_any("mse")(LOGITS, LOGITS[:, :1])


@pytest.mark.parametrize("name", [None, "cross_entropy", "mse"])
@pytest.mark.parametrize("label", [3, 7, -1])
def test_a_label_without_an_output_is_named(name, label):
    with pytest.raises(DataError, match=f"from 0 to 2, as the network has 3 outputs, but {label} came"):
        loss_of_any(name)(LOGITS, torch.tensor([0, label]))


def test_the_label_that_cross_entropy_passes_over_counts_for_nothing():
    labels = torch.tensor([0, -100])
    assert loss_of_any(None)(LOGITS, labels) == functional.cross_entropy(LOGITS, labels)
    assert loss_of_any(None)(LOGITS, torch.full((2,), -100)).isnan()


def test_probabilities_may_be_targets():
    shares = LOGITS.softmax(1)
    assert loss_of_any(None)(LOGITS, shares) == functional.cross_entropy(LOGITS, shares)


@pytest.mark.parametrize(
    ("outputs", "labels"), [((LOGITS,), LABELS), (LOGITS, [0, 2]), ({"other": 1}, LABELS)]
)
def test_what_has_no_logits_asks_for_a_loss_of_ones_own(outputs, labels):
    with pytest.raises(OptionError, match="name a loss of your own"):
        loss_of_any(None)(outputs, labels)


def test_a_users_own_gets_what_the_network_returns(tmp_path):
    (tmp_path / "own.py").write_text("def loss(outputs, target): return outputs, target")
    assert loss_of_any(f"{tmp_path / 'own.py'}:loss")("outputs", "target") == ("outputs", "target")


def test_an_unknown_name_is_told():
    with pytest.raises(OptionError, match="did you mean 'mse'"):
        loss_of_any("msee")
