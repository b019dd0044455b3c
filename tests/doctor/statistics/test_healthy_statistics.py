"""No rule about statistics finds more than a note in healthy networks, fresh or a little trained."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from normwright.doctor.diagnose import examine
from normwright.doctor.rule import all_rules
from normwright.doctor.subject import Subject
from normwright.lab.data.load import load
from normwright.lab.networks import build_network
from normwright.lab.recipe import DataRecipe, NetworkRecipe

RULES = (
    "accumulation_mismatch",
    "averaged_weights_stale",
    "batch_of_one",
    "batch_too_small",
    "double_update",
    "eps_dominates",
    "frozen_but_updating",
    "last_batch_ragged",
    "leak_across_batch",
    "padding_contamination",
    "ranks_disagree",
    "stale_statistics",
    "train_eval_gap",
)


def built(name):
    torch.manual_seed(0)
    if name == "transformers":
        transformers = pytest.importorskip("transformers")
        config = transformers.ResNetConfig(
            num_channels=1, embedding_size=8, hidden_sizes=[16, 16, 32], depths=[1, 1, 1], num_labels=10
        )
        return transformers.ResNetForImageClassification(config)
    recipe = NetworkRecipe(name=name, width=16) if name == "lstm" else NetworkRecipe(name=name)
    return build_network(recipe, "layer" if name == "lstm" else "batch", (1, 8, 8), 10).module


def loss_of(outputs, target):
    return F.cross_entropy(getattr(outputs, "logits", outputs), target)


OPTIMISERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("steps", [0, 4, 24])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("name", ["lenet", "resnet20", "lstm", "transformers"])
def test_no_false_alarm(name, optimiser, steps):
    data = load(DataRecipe(name="digits"))
    order = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(0))
    batches = [(data.train_x[part], data.train_y[part]) for part in order.split(32)]
    network = built(name).train()
    stepping = OPTIMISERS[optimiser](network.parameters())
    for x, y in batches[:steps]:
        stepping.zero_grad()
        loss_of(network(x), y).backward()
        stepping.step()
    subject = Subject(network, tuple(batches[24:32]), loss_of, stepping, sizes=(32,) * 8)
    found = examine(subject, [all_rules()[rule] for rule in RULES])
    assert not [finding for finding in found.findings if finding.severity != "note"]
