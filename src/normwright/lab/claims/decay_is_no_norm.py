"""Claim 15: weight decay does not do what batch norm does."""

from __future__ import annotations

from collections.abc import Mapping

from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.book.bounds import ratio_of
from normwright.lab.book.claim import Claim, Plot, Prediction, Series, Trial
from normwright.lab.book.entrant import Entrant, best_of
from normwright.lab.book.race import steps_read
from normwright.lab.book.sides import best_setting, height_of_curve
from normwright.lab.judge import steps_to
from normwright.lab.recipe import Recipe
from normwright.lab.run import RunResult

RATES = (0.3, 1.0, 3.0)
BATCH_RATES = (0.03, 0.1, 0.3)
# 1e-4 is what most image networks are trained with; ten times that is the most in common use.
DECAYS = (1e-4, 1e-3)

# Near the end of what the pilot runs of every side reached in their steps.
TARGET = 0.8
SLOWER = 1.5
FASTER = 1.2

SIDES = {"none": "neither", "decay": "weight decay", "batch": "batch norm"}


def experiment(bench: Bench, seed: int) -> Trial:
    """One seed: steps to the target with neither, with weight decay and with batch norm."""
    plain = _recipe(bench, "none")
    entrants = [
        Entrant(_recipe(bench, "batch"), BATCH_RATES),
        *(Entrant(vary(plain, weight_decay=decay), RATES) for decay in (0.0, *DECAYS)),
    ]
    batch, none, *decays = best_of(bench, entrants, score=height_of_curve)
    sides = {"none": none, "decay": best_setting(bench, decays), "batch": batch}
    runs = {name: vary(side, seed=seed) for name, side in sides.items()}
    results = dict(zip(runs, bench.train(*runs.values()), strict=True))
    values, bounds = ratios({name: steps_to(result, TARGET) for name, result in results.items()}, results)
    return Trial(
        values=values,
        bounds=bounds,
        series=tuple(_curve(name, result) for name, result in results.items()),
    )


def ratios(
    reached: Mapping[str, int | None], results: Mapping[str, RunResult]
) -> tuple[dict[str, float], dict[str, str]]:
    """The two ratios of steps, and what kinds of bounds they are.

    A side that did not reach the target counts with the steps that it was given.
    """
    steps = {name: steps_read(reached[name], result) for name, result in results.items()}
    values, bounds = {}, {}
    for key, over, under in (("decay_is_slower", "decay", "batch"), ("decay_speeds_up", "none", "decay")):
        values[key], bounds[key] = ratio_of(steps[over], steps[under])
    return values, bounds


def _recipe(bench: Bench, norm: str) -> Recipe:
    return make(
        "mlp",
        "fashion-mnist",
        norm=norm,
        depth=4,
        batch_size=60,
        max_steps=bench.size(2_400, 1_800),
        evaluations=18,
    )


def _curve(name: str, result: RunResult) -> Series:
    norm = name if name != "decay" else ""
    steps, accuracy = map(float, result.evaluation_steps), map(float, result.validation)
    return Series(SIDES[name], tuple(steps), tuple(accuracy), norm)


CLAIM = Claim(
    number=15,
    sentence="Weight decay does not do what batch norm does.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167 (batch norm, and less weight decay with it)",
        "van Laarhoven 2017, arXiv:1706.05350 (with batch norm, weight decay sets the effective learning "
        "rate and does not regularise)",
        "Zhang et al. 2018, arXiv:1810.12281 (three things that weight decay does)",
    ),
    predictions=(
        Prediction(
            "decay_is_slower",
            f"steps to {TARGET:.0%} with weight decay are at least {SLOWER:g} times those with batch norm",
            "times",
            at_least=SLOWER,
            ratio=True,
        ),
        Prediction(
            "decay_speeds_up",
            f"steps to {TARGET:.0%} with neither are at most {FASTER:g} times those with weight decay",
            "times",
            at_most=FASTER,
            ratio=True,
        ),
    ),
    recipe=(
        "Four hidden layers of 100 sigmoid units on Fashion-MNIST, batch 60, Xavier start, plain SGD; "
        "weight decay of 0.0001 or 0.001 on all parameters."
    ),
    measure=(
        f"Training steps until the validation accuracy first reaches {TARGET:.0%}. Rate and weight decay are "
        "those of the pilot run with the highest accuracy over training and at its end."
    ),
    conditions=(
        "A network whose activations saturate, where batch norm helps most. Only the speed of training is "
        "compared; whether batch norm generalises as weight decay does is another question."
    ),
    practice={
        "supported": (
            "Do not expect weight decay to make a network trainable: where training is slow to begin, it is "
            "the normaliser, the initialisation or the activation that needs changing. Weight decay is then "
            "chosen for generalisation, and with batch norm for the effective learning rate."
        ),
        "not supported": (
            "In a network such as this one, batch norm's advantage in steps over weight decay is not "
            "certain. Measure both before you add either for the sake of speed."
        ),
        "refuted": (
            "Weight decay does part of what batch norm does here: see which prediction fails. If it needs "
            "few more steps than batch norm, try it first, because it costs nothing in a step; if it is "
            "only faster than neither, it saves steps without taking the place of a normaliser."
        ),
    },
    plot=Plot("Validation accuracy while training", "training step", "validation accuracy"),
    experiment=experiment,
)
