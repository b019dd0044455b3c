"""How often the rule of `normwright compare` names a winner where there is none, and where there is one.

    python -m benchmarks.winners

prints both as Markdown, of simulated test answers, by the rule with the answers and without. Same every time;
about two minutes of one core.
In every world each of two normalisers has an accuracy; what differs is which samples its seeds miss:

    independent    each seed misses its own
    repeating      nearly all seeds of a normaliser miss the same, those of another miss others
    hard samples   all seeds of all normalisers miss the same more often
    seed luck      repeating in part, and a seed that is unlucky misses a fifth more of all
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.markdown import table
from normwright.lab.lead import Guessing, lead
from normwright.lab.records import Interval, Row

Answers = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class World:
    """How a normaliser's errors lie.

    Args:
        name: in the table.
        concentration: of the beta distribution that a sample's chance to be missed is drawn from: near 0,
            all seeds miss it or none. None is the same chance for every sample.
        shared: whether the samples that are hard are the same for all normalisers.
        luck: deviation of the logarithm of a seed's own number of errors.
    """

    name: str
    concentration: float | None = None
    shared: bool = False
    luck: float = 0.0

    def draw(
        self, rng: np.random.Generator, accuracies: tuple[float, ...], seeds: int, samples: int
    ) -> list[Answers]:
        """Which samples are right, (seeds, samples), of each normaliser."""
        mean = 1 - sum(accuracies) / len(accuracies)
        hard = self._errors(rng, mean, samples)
        return [
            self._answer(
                rng, hard * error / mean if self.shared else self._errors(rng, error, samples), seeds
            )
            for error in (1 - accuracy for accuracy in accuracies)
        ]

    def _errors(self, rng: np.random.Generator, mean: float, samples: int) -> npt.NDArray[np.float64]:
        """Each sample's chance to be missed."""
        if self.concentration is None:
            return np.full(samples, mean)
        return rng.beta(self.concentration * mean, self.concentration * (1 - mean), samples)

    def _answer(self, rng: np.random.Generator, errors: npt.NDArray[np.float64], seeds: int) -> Answers:
        # Of mean 1, so that luck leaves the accuracy as it is.
        luck = np.exp(self.luck * rng.standard_normal((seeds, 1)) - self.luck**2 / 2)
        return rng.random((seeds, len(errors))) >= errors * luck


WORLDS = (
    World("independent"),
    World("repeating", concentration=0.1),
    World("hard samples", concentration=3.0, shared=True),
    World("seed luck", concentration=1.0, luck=0.2),
)

# By the size of the test set: a share of 5 % has a standard error of 0.7 points, and of the largest of 1.5.
DRAWS = {100: 1_000, 359: 1_000, 2_000: 1_000, 10_000: 200}


def winners(answers: list[Answers]) -> tuple[str | None, str | None]:
    """Who wins by the rule, with the answers and by the accuracies alone."""
    right = {f"norm{i}": dict(enumerate(own)) for i, own in enumerate(answers)}
    tests = {norm: dict(enumerate(own.mean(1).tolist())) for norm, own in zip(right, answers, strict=True)}
    rows = [_row(norm, list(values.values())) for norm, values in tests.items()]
    chance = Guessing(0.1, answers[0].shape[1])
    return lead(rows, tests, chance, answers=right).winner, lead(rows, tests, chance).winner


def _row(norm: str, values: list[float]) -> Row:
    # Of the interval, the rule reads the mean and the count.
    test = Interval(sum(values) / len(values), None, None, len(values))
    return Row(norm, 32, 0.1, test, test, 0, len(values), None, None, 0.0, 1.0, 1, 1, 0)


def shares(
    world: World,
    accuracies: tuple[float, ...],
    *,
    seeds: int,
    samples: int,
    draws: int,
    by: str | None = None,
) -> tuple[float, float]:
    """The share of draws with a winner, whoever it is, or `by` one: with the answers and without."""
    rng = np.random.default_rng(0)
    found = [winners(world.draw(rng, accuracies, seeds, samples)) for _ in range(draws)]
    wins = np.array([[one is not None if by is None else one == by for one in pair] for pair in found])
    kept, without = wins.mean(0).tolist()
    return kept, without


def _rows() -> Iterator[tuple[str, ...]]:
    truths: tuple[tuple[tuple[float, float], str | None], ...] = (
        ((0.9, 0.9), None),
        ((0.92, 0.88), "norm0"),
        ((0.94, 0.86), "norm0"),
    )
    for world, samples, seeds in itertools.product(WORLDS, DRAWS, (3, 5, 10)):
        cells = [
            share
            for truth, by in truths
            for share in shares(world, truth, seeds=seeds, samples=samples, draws=DRAWS[samples], by=by)
        ]
        yield (world.name, f"{samples:,}", str(seeds), *(f"{100 * cell:.1f}" for cell in cells))


def main() -> None:
    """Prints the table."""
    heads = ("world", "samples", "seeds", "equal", "without", "4 points", "without", "8 points", "without")
    print(table(heads, _rows()))


if __name__ == "__main__":
    main()
