"""Claim 18: in a recurrent network, batch norm's statistics must be kept for each time step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.recipe import Recipe
from normwright.lab.training import evaluate
from normwright.nn import RecurrentBatchNorm

RATES = (0.004, 0.016, 0.064, 0.256)
MATTERS = 2.0
FEWER_STEPS = (1, 2, 4, 7, 14, 28)


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: one trained network, its statistics shared among more and more time steps."""
    (best,) = bench.best_rates([_recipe(bench)], RATES)
    recipe = vary(best, seed=seed)
    bench.train(recipe)
    network, data = bench.network(recipe).eval(), bench.data(recipe)
    count = bench.size(5_000, 2_000)
    accuracy = {
        together: 100
        * evaluate(shared(network, together), data.test_x[:count], data.test_y[:count], "accuracy")
        for together in FEWER_STEPS
    }
    own, one = accuracy[FEWER_STEPS[0]], accuracy[FEWER_STEPS[-1]]
    return Trial(
        values={"lost": own - one},
        series=(
            Series(
                "batch norm inside the LSTM",
                tuple(map(float, accuracy)),
                tuple(accuracy.values()),
                "recurrent-batch",
            ),
        ),
    )


def shared(network: nn.Module, together: int) -> nn.Module:
    """A copy of the network whose normalisers share statistics among so many neighbouring time steps.

    A share holds the moments of its steps joined, which weigh the same: the mean of their means, and the mean
    of their variances with the variance of their means.
    """
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, RecurrentBatchNorm):
            seen = int((module.num_batches_tracked > 0).sum())
            for start in range(0, seen, together):
                steps = slice(start, min(start + together, seen))
                mean, variance = joined(module.running_mean[steps], module.running_var[steps])
                module.running_mean[steps], module.running_var[steps] = mean, variance
    return copied


def joined(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of equally many elements at each step, from those of the steps (T, C)."""
    return means.mean(0), variances.mean(0) + torch.var(means, 0, correction=0)


def _recipe(bench: Bench) -> Recipe:
    return make(
        "lstm",
        "fashion-mnist",
        norm="recurrent-batch",
        batch_size=100,
        depth=1,
        width=50,
        optimiser="adamw",
        epochs=1,
        max_steps=bench.size(300, 150),
        evaluations=1,
    )


CLAIM = Claim(
    number=18,
    sentence="In a recurrent network, the statistics of batch norm must be kept for each time step.",
    references=(
        "Cooijmans et al. 2017, arXiv:1603.09025, section 3: sharing statistics over time does harm, for the "
        "first steps are distributed unlike the later ones",
        "Laurent et al. 2016, arXiv:1510.01378: batch norm with shared statistics did not help inside "
        "recurrent networks",
    ),
    predictions=(
        Prediction(
            "lost",
            "the same network loses at least "
            f"{MATTERS:g} points of accuracy where all time steps share their statistics",
            "points of accuracy",
            at_least=MATTERS,
        ),
    ),
    recipe=(
        "An LSTM of 50 units that reads images of Fashion-MNIST row by row (28 steps of 28 pixels), with "
        "batch norm of the input path, the hidden path and the cell, gains started at 0.1; 300 steps of 100 "
        "images by AdamW at the best of four learning rates."
    ),
    measure=(
        "Test accuracy of one trained network in inference: with the statistics of each time step, and with "
        "those of 2, 4, 7, 14 or all 28 neighbouring steps joined. Its weights stay the same."
    ),
    conditions=(
        "In training every step is normalised by its own mini-batch in any case, for later steps are not "
        "known yet; what can be shared are the statistics of inference, as here. The rows of an image "
        "differ in themselves, from dark borders to the middle, beside what a recurrent network's start "
        "makes different; Cooijmans et al. show the latter for text and for pixels one by one."
    ),
    practice={
        "supported": (
            "Inside a recurrent network keep statistics for each time step, up to a cap past which the last "
            "ones serve (`BatchNormLSTM`). Where sequences are much longer than the cap, or of very unequal "
            "length, layer norm (`LayerNormLSTM`) needs no statistics at all."
        ),
        "not supported": (
            "Sharing statistics over time costs little or much from seed to seed here. Statistics for each "
            "step are the safe choice and cost memory alone; layer norm needs none."
        ),
        "refuted": (
            "Statistics shared over time serve here, so that one pair of them may do for sequences of any "
            "length. Check on data of yours, where the first steps may differ more from the later ones."
        ),
    },
    plot=Plot(
        "Accuracy of one network by how many time steps share their statistics",
        "time steps that share statistics",
        "test accuracy in per cent",
        log_x=True,
    ),
    experiment=experiment,
)
