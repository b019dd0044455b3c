"""The healthy: four networks on real images, with the loader, loss and optimiser of their training."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import normwright as nw
from normwright.doctor.diagnosis import Diagnosis
from normwright.lab.data import Data, load
from normwright.lab.networks import build_network
from normwright.lab.recipe import DataRecipe, NetworkRecipe

BATCH = 64
#: Training samples that a patient's loader gives: 16 whole batches.
SAMPLES = 16 * BATCH
#: Steps after which a patient is called trained: three epochs.
STEPS = 48

Optimise = Callable[[Iterable[nn.Parameter]], Optimizer]


@dataclass(eq=False)
class Patient:
    """A network as somebody trains it.

    Args:
        network: trained or not.
        loader: of (images, labels).
        optimise: makes the optimiser of parameters.
        loss: called as loss(outputs, labels).
        options: what `nw.diagnose` must be told besides, such as `forward_fn`.
    """

    network: nn.Module
    loader: Iterable[Any]
    optimise: Optimise
    loss: Callable[[Any, Any], Tensor] = F.cross_entropy
    options: Mapping[str, Any] = field(default_factory=dict)
    _optimiser: Optimizer | None = None

    @property
    def optimiser(self) -> Optimizer:
        """Made when it is first asked for, as a training script does once the network stands."""
        if self._optimiser is None:
            self._optimiser = self.optimise(self.network.parameters())
        return self._optimiser

    def but(self, **changes: Any) -> Patient:
        """The same person with something changed, and a new optimiser."""
        return dataclasses.replace(self, **{"_optimiser": None, **changes})

    def twin(self) -> Patient:
        """A copy whose training leaves this one alone."""
        network, optimiser = copy.deepcopy((self.network, self._optimiser))
        return dataclasses.replace(self, network=network, _optimiser=optimiser)

    def train(self, steps: int = STEPS) -> Patient:
        """Trains for some steps, as the training script does; returns itself."""
        self.network.train()
        call = self.options.get("forward_fn") or (lambda network, batch: network(batch[0]))
        every = self.options.get("accumulation", 1)
        batches = itertools.chain.from_iterable(itertools.repeat(self.loader))
        for step, batch in enumerate(itertools.islice(batches, steps * every), start=1):
            loss = self.loss(call(self.network, batch), batch[1])
            (loss / every).backward()
            if step % every == 0:
                self.optimiser.step()
                self.optimiser.zero_grad()
        return self

    def diagnose(self, rules: Iterable[str] | None = None) -> Diagnosis:
        """What the doctor says, from what a user has at hand."""
        chosen = None if rules is None else tuple(rules)
        return nw.diagnose(
            self.network, self.loader, self.loss, optimiser=self.optimiser, rules=chosen, **self.options
        )


@cache
def data(name: str) -> Data:
    """A data set, standardised by its training split."""
    return load(DataRecipe(name=name))


def samples(name: str, count: int = SAMPLES) -> tuple[Tensor, Tensor]:
    """The first training images of a data set, and their labels."""
    whole = data(name)
    return whole.train_x[:count], whole.train_y[:count]


def loader_of(x: Tensor, y: Tensor, *, batch: int = BATCH, **options: Any) -> DataLoader[tuple[Tensor, ...]]:
    """A loader that shuffles (alike in every run) and drops a ragged last batch, unless told not to."""
    given: dict[str, Any] = {"shuffle": True, "drop_last": True, **options}
    return DataLoader(TensorDataset(x, y), batch, generator=torch.Generator().manual_seed(0), **given)


def sgd(lr: float = 0.1, **options: Any) -> Optimise:
    """SGD with momentum, on all parameters."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **{"momentum": 0.9, **options})


def adam(lr: float = 1e-3, **options: Any) -> Optimise:
    """Adam, on all parameters."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **options)


def lenet(**recipe: Any) -> Patient:
    """LeNet with batch norm (before its sigmoids, unless told otherwise) on Fashion-MNIST."""
    return Patient(_built("lenet", "fashion-mnist", **recipe), loader_of(*samples("fashion-mnist")), sgd())


def resnet20(**recipe: Any) -> Patient:
    """ResNet-20 with batch norm and ReLU on the digits."""
    options = {"activation": "relu", "initialisation": "kaiming", **recipe}
    return Patient(_built("resnet20", "digits", **options), loader_of(*samples("digits")), sgd())


def lstm(**recipe: Any) -> Patient:
    """Two LSTM layers with layer norm, which read Fashion-MNIST row by row."""
    options = {"depth": 2, "width": 32, "norm": "layer", **recipe}
    return Patient(_built("lstm", "fashion-mnist", **options), loader_of(*samples("fashion-mnist")), sgd())


def transformers_resnet(**config: Any) -> Patient:
    """The ResNet of Transformers with bottlenecks, shrunk, on Fashion-MNIST; its outputs are an object."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 16, "hidden_sizes": [32, 64, 128], "depths": [1, 2, 1], **config}
    settings = ResNetConfig(num_channels=1, **sizes)
    settings.num_labels = 10
    torch.manual_seed(0)
    network: nn.Module = ResNetForImageClassification(settings)
    return Patient(network.train(), loader_of(*samples("fashion-mnist")), sgd(), loss_of_logits)


def loss_of_logits(outputs: Any, labels: Tensor) -> Tensor:
    """The loss of a network of Transformers."""
    return F.cross_entropy(outputs.logits, labels)


PATIENTS: dict[str, Callable[..., Patient]] = {
    "lenet": lenet,
    "resnet20": resnet20,
    "LSTM": lstm,
    "Transformers ResNet": transformers_resnet,
}


def _built(name: str, source: str, *, norm: str = "batch", **recipe: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(NetworkRecipe(name=name, **recipe), norm, data(source).sample_shape, 10).module
