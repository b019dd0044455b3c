"""Faults of what a network is fed: its values, the size, order and make-up of its batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.faults.patients import Patient, loader_of, lstm, samples
from benchmarks.faults.seeded import Seeded, rewritten
from normwright.lab.data.load import read
from normwright.lab.networks.lstm import NormalisedLSTM
from normwright.lab.networks.resnet20 import ResidualBlock
from normwright.lab.recipe import DataRecipe

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def pixels(name: str, count: int = 1024) -> tuple[Tensor, Tensor]:
    """Training images of a data set as their files hold them, from 0 up, and their labels."""
    whole = read(DataRecipe(name=name), None)
    return whole.train_x[:count].float(), whole.train_y[:count]


def raw_pixels(patient: Patient) -> Patient:
    """Pixels from 0 to 255, as `torch.from_numpy(images).float()` gives them."""
    return patient.but(loader=loader_of(*pixels("fashion-mnist")))


def one_sample(patient: Patient) -> Patient:
    """Batches of one, as large images and little memory make people train."""
    return patient.but(loader=loader_of(*samples("fashion-mnist", 256), batch=1))


def two_samples(patient: Patient) -> Patient:
    """Batches of two, as detectors are trained."""
    return patient.but(loader=loader_of(*samples("digits", 256), batch=2))


def four_samples(patient: Patient) -> Patient:
    """Batches of four, whose last normalisers see no more than four values of each unit."""
    return patient.but(loader=loader_of(*samples("fashion-mnist", 512), batch=4))


def two_left_over(patient: Patient) -> Patient:
    """A loader that keeps its last batch, which has two samples of 64."""
    return patient.but(loader=loader_of(*samples("fashion-mnist", 10 * 64 + 2), drop_last=False))


def one_left_over(patient: Patient) -> Patient:
    """A loader that keeps its last batch, which has one sample of 64: training ends in an error there."""
    return patient.but(loader=loader_of(*samples("fashion-mnist", 15 * 64 + 1), drop_last=False))


def sorted_by_class(patient: Patient) -> Patient:
    """A folder of images is read class by class, and `shuffle` was left out."""
    x, y = samples("digits")
    order = y.argsort(stable=True)
    return patient.but(loader=loader_of(x[order], y[order], shuffle=False))


def padding_of(batch: tuple[Tensor, Tensor]) -> Tensor:
    """(N, 28) bool of a batch of `padded`: only padding is exactly 0 all along a row."""
    return (batch[0][:, 0] == 0).all(-1)


def padded() -> tuple[Tensor, Tensor]:
    """Sequences of 10 to 28 rows, padded by zeros before their first row to 28."""
    x, y = samples("fashion-mnist")
    lengths = torch.randint(10, 29, (len(y),), generator=torch.Generator().manual_seed(1))
    padding = torch.arange(28) < (28 - lengths)[:, None]
    return x.masked_fill(padding[:, None, :, None], 0.0), y


def padding_counted(patient: Patient) -> Patient:
    """Batch norm over the rows of sequences of unequal length, the padded ones included."""
    return patient.but(
        network=lstm(norm="batch").network, loader=loader_of(*padded()), options={"padding": padding_of}
    )


class StepsFirst(NormalisedLSTM):
    """The layer with `batch_first=True` left out."""

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's, but that the LSTM walks along the batch."""
        self.lstm.batch_first = False
        return super().forward(x)


def batch_first_forgotten(patient: Patient) -> Patient:
    """`nn.LSTM(…)` takes (steps, batch, features) unless it is told otherwise."""
    return patient.but(network=rewritten(patient.network, NormalisedLSTM, StepsFirst))


def no_running_statistics(patient: Patient) -> Patient:
    """Batch norm with `track_running_stats=False`, which normalises by the batch at inference too."""
    for module in patient.network.modules():
        if isinstance(module, _BATCH_NORM):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return patient.but()


class AlwaysTraining(ResidualBlock):
    """The block with its first normaliser as a functional call, whose `training` is always true."""

    def forward(self, x: Tensor) -> Tensor:
        """As the block's."""
        norm = self.norm1
        y = F.batch_norm(
            self.conv1(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, training=True
        )
        y = self.norm2(self.conv2(self.activation1(y)))
        return cast(Tensor, self.activation2(y + self._shortcut(x)))


def always_training(patient: Patient) -> Patient:
    """`F.batch_norm(…, training=True)` where `training=self.training` was meant."""
    return patient.but(network=rewritten(patient.network, ResidualBlock, AlwaysTraining))


class _Stream:
    """Batches whose images are made brighter and stronger on their way, as another preprocessing does."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.loader:
            yield 2 * x + 1, y


def other_preprocessing(patient: Patient) -> Patient:
    """A trained network is fine-tuned with a preprocessing that is not the one it was trained with."""
    return patient.but(loader=_Stream(patient.loader))


FAULTS = (
    Seeded(
        "raw pixels",
        "unnormalised_input",
        "lenet",
        "pixels from 0 to 255",
        raw_pixels,
    ),
    Seeded(
        "raw pixels in rows",
        "unnormalised_input",
        "LSTM",
        "rows of pixels from 0 to 255",
        raw_pixels,
        explains={
            "saturated_activation": "gates of such inputs saturate",
            "vanishing_gradient": "so no gradient passes them",
            "gradient_imbalance": "the same",
            "exploding_gradient": "a gradient by a weight is as large as the weight's input",
            "dead_units": "a saturated unit",
            "internal_covariate_shift": "no step size suits such inputs",
        },
    ),
    Seeded(
        "one sample",
        "batch_of_one",
        "Transformers ResNet",
        "batches of one",
        one_sample,
        explains={
            "batch_too_small": "it is that, too",
            "train_eval_gap": "moments of one sample are not the population's",
            "stale_statistics": "running statistics are of the last 10 samples",
            "unnormalised_input": "8 single images need not have the data's mean",
            "exploding_gradient": "with moments of one sample a step moves weights by 4.5 times their size",
        },
    ),
    Seeded(
        "two samples",
        "batch_too_small",
        "resnet20",
        "batches of two",
        two_samples,
        explains={
            "train_eval_gap": "moments of two samples are not the population's",
            "stale_statistics": "running statistics are of the last 20 samples",
            "internal_covariate_shift": "moments of two samples jump from batch to batch",
            "dead_channels": "a channel must be active in 8 batches of two, which is little to go by",
            "diverging_loss": "so do the steps, at a learning rate for batches of 64",
        },
    ),
    Seeded(
        "four samples",
        "batch_too_small",
        "lenet",
        "batches of four, with batch norm after linear layers",
        four_samples,
        where=("fc1", "fc2"),
        explains={
            "train_eval_gap": "moments of four samples are not the population's",
            "stale_statistics": "running statistics are of the last 40 samples",
        },
    ),
    Seeded(
        "two left over",
        "last_batch_ragged",
        "lenet",
        "drop_last=False leaves a last batch of two",
        two_left_over,
        explains={
            "train_eval_gap": "the last batch's moments move the running statistics",
            "stale_statistics": "the same",
            "gradient_imbalance": "steps on two samples blow up the weights before a normaliser, and what is "
            "left of their gradient is little beside them",
            "vanishing_gradient": "the same",
        },
    ),
    Seeded(
        "one left over",
        "last_batch_ragged",
        "lenet",
        "drop_last=False leaves a last batch of one, where training ends in an error",
        one_left_over,
        states=("fresh",),
    ),
    Seeded(
        "sorted by class",
        "train_eval_gap",
        "resnet20",
        "a loader without shuffling, over images sorted by class",
        sorted_by_class,
        states=("trained",),
        explains={
            "stale_statistics": "running statistics are of the last class",
            "batch_too_small": "every batch is of one class, and its moments vary as those of few samples",
            "dead_units": "what the network learns of one class at a time",
            "dead_channels": "the same",
            "internal_covariate_shift": "each batch pulls the layers another way",
            "vanishing_gradient": "a class that was just learned gives no gradient",
            "gradient_imbalance": "the same",
        },
    ),
    Seeded(
        "padding counted",
        "padding_contamination",
        "LSTM",
        "batch norm over sequences of unequal length, padded rows included",
        padding_counted,
        where=("norm",),
        explains={"recurrent_shared_statistics": "it is that, too"},
    ),
    Seeded(
        "batch_first forgotten",
        "leak_across_batch",
        "LSTM",
        "the LSTM walks along the batch instead of the rows",
        batch_first_forgotten,
    ),
    Seeded(
        "no running statistics",
        "leak_across_batch",
        "Transformers ResNet",
        "batch norm with track_running_stats=False",
        no_running_statistics,
    ),
    Seeded(
        "always training",
        "leak_across_batch",
        "resnet20",
        "F.batch_norm with training=True in the block's forward",
        always_training,
    ),
    Seeded(
        "another preprocessing",
        "stale_statistics",
        "Transformers ResNet",
        "a trained network is given images that were scaled in another way",
        other_preprocessing,
        where=("embedder",),
        states=("trained",),
        after_training=True,
        explains={
            "train_eval_gap": "inference normalises by what the images were",
            "unnormalised_input": "the images have mean 1 and deviation 2",
        },
    ),
)
