"""Claim 21: samples per second level off as the batch grows."""

from __future__ import annotations

from collections.abc import Mapping

from normwright.lab.batch_size.find import find_batch_size
from normwright.lab.book.bench import Bench, make
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.training import build

NETWORKS = ("mlp", "lenet")
SIZES = (2, 8, 32, 128, 512, 2_048)
SECONDS = 0.3
MATTERS = 2.0
LEVEL = 1.25


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: times all sizes of each network in turn."""
    values: dict[str, float] = {}
    series = []
    for name in NETWORKS:
        rates = _rates(bench, name, seed)
        values |= {f"rise_{name}": rise(rates), f"level_{name}": last_gain(rates)}
        series.append(Series(name, tuple(map(float, rates)), tuple(rates.values())))
    return Trial(values=values, series=tuple(series))


def rise(rates: Mapping[int, float]) -> float:
    """Samples per second at the third size over those at the first."""
    return rates[SIZES[2]] / rates[SIZES[0]]


def last_gain(rates: Mapping[int, float]) -> float:
    """Samples per second at the largest size over those at the one before."""
    return rates[SIZES[-1]] / rates[SIZES[-2]]


def _rates(bench: Bench, name: str, seed: int) -> dict[int, float]:
    """Samples per second by batch size."""
    recipe = make(name, "fashion-mnist", norm="batch", batch_size=SIZES[-1], lr=0.1, seed=seed)
    data = bench.data(recipe)
    count = 2 * SIZES[-1]
    found = find_batch_size(
        build(recipe, data).module,
        (data.train_x[:count], data.train_y[:count]),
        sizes=SIZES,
        seconds=bench.size(SECONDS, SECONDS / 3),
    )
    return {trial.batch_size: trial.rate for trial in found.trials}


CLAIM = Claim(
    number=21,
    sentence="Samples per second rise with the batch size at first, and then level off.",
    references=(
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.1.3: very small batches leave the "
        "hardware idle",
        "Zhang et al., Dive into Deep Learning, section 12.5: vectorised batches are faster, up to a size",
    ),
    predictions=tuple(
        prediction
        for name, words in zip(NETWORKS, ("the perceptron", "LeNet"), strict=True)
        for prediction in (
            Prediction(
                f"rise_{name}",
                f"{words} trains at least {MATTERS:g} times as many samples per second at batch {SIZES[2]} "
                f"as at {SIZES[0]}",
                "times",
                at_least=MATTERS,
                ratio=True,
            ),
            Prediction(
                f"level_{name}",
                f"{words} trains at most {LEVEL:g} times as many samples per second at batch {SIZES[-1]:,} "
                f"as at {SIZES[-2]}",
                "times",
                at_most=LEVEL,
                ratio=True,
            ),
        )
    ),
    recipe=(
        "Training steps (forward, backward, plain SGD) of a perceptron of 6 hidden layers of 100 sigmoid "
        "units and of LeNet, both with batch norm, on images of Fashion-MNIST that lie in memory; one "
        "thread."
    ),
    measure=(
        "Samples per second from the median time of a step, at batches of 2, 8, 32, 128, 512 and 2,048 "
        "images, all sizes timed in turn, again and again, so that a busy moment of the machine meets them "
        "all."
    ),
    conditions=(
        "One core of a CPU, small networks: on a GPU, with thousands of lanes to fill, the levelling comes "
        "at larger batches, and the place of the knee is a fact about one machine and one network. No "
        "learning rate is chosen, for a step takes the same time at every rate."
    ),
    practice={
        "supported": (
            "Raise the batch until samples per second stop rising and no further: beyond the knee a larger "
            "batch buys no speed and costs memory and updates. `normwright batch-size` finds it for a "
            "network and a machine."
        ),
        "not supported": (
            "These times do not settle where the rate levels off. Measure your own network on your own "
            "machine with `normwright batch-size`, at a quiet moment."
        ),
        "refuted": (
            "Here the rate does not behave as the rule of thumb says. Measure before choosing a batch size: "
            "`normwright batch-size` times your own network on your own machine."
        ),
    },
    plot=Plot("Training rate by batch size", "batch size", "samples per second", log_x=True, log_y=True),
    experiment=experiment,
)
