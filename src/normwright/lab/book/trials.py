"""Trials: one seed of a claim, measured once and kept in a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from normwright.doctor.random_states import random_states_kept
from normwright.errors import DataError, RunError, StoreError
from normwright.lab.book.bench import Bench, NeedsRunsError
from normwright.lab.book.choice import ChosenRate, chosen_rates
from normwright.lab.book.claim import Claim, Series, Trial
from normwright.lab.store.whole import write_whole


@dataclass(frozen=True)
class Measured:
    """A trial, and how it came about.

    Args:
        trial: what the experiment gave.
        runs: hashes of the runs that it used.
        seconds: that measuring took beside them.
        rates: the learning rates that were chosen for its sides.
    """

    trial: Trial
    runs: tuple[str, ...]
    seconds: float
    rates: tuple[ChosenRate, ...] = ()


class Trials:
    """The trials in a folder.

    A trial is named by its claim, size and seed and by the text of what the claim measures by, its file and
    the book's modules that it draws on: after a change of that text it is measured anew. What is half-written
    or unreadable is measured anew, too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, claim: Claim, seed: int, *, quick: bool) -> Measured | None:
        """The trial, if it was measured."""
        try:
            return _measured(json.loads(self._path(claim, seed, quick).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def keep(self, claim: Claim, seed: int, measured: Measured, *, quick: bool) -> None:
        """Writes a trial down.

        Raises:
            StoreError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._path(claim, seed, quick), json.dumps(dataclasses.asdict(measured)).encode())

    def _path(self, claim: Claim, seed: int, quick: bool) -> Path:
        text = hashlib.sha256(claim.source.encode()).hexdigest()[:12]
        size = "quick" if quick else "full"
        return self.folder / f"{claim.number:02}-{claim.name}-{size}-seed{seed}-{text}.json"


def measure(claim: Claim, seed: int, bench: Bench) -> Measured:
    """Runs one seed of a claim, on one thread; every random state and the thread count are put back.

    Raises:
        NeedsRunsError: it asks for runs that are not done yet.
        RunError: an exception in the experiment.
    """
    bench.used.clear()
    bench.choices.clear()
    threads = torch.get_num_threads()
    begin = time.perf_counter()
    try:
        torch.set_num_threads(1)
        with random_states_kept(seed):
            trial = claim.experiment(bench, seed)
    except (NeedsRunsError, DataError, StoreError):
        raise
    except Exception as error:
        raise RunError(
            f"{type(error).__name__}: {error}\nin claim {claim.number} ({claim.name}), seed {seed}\n"
            f"{traceback.format_exc().strip()}\n"
            "What is done is kept: put this right, then run the same command again to go on."
        ) from error
    finally:
        torch.set_num_threads(threads)
    predicted = {prediction.key: None for prediction in claim.predictions}
    missing = [key for key in predicted if key not in trial.values]
    if missing:
        raise RunError(
            f"claim {claim.number} ({claim.name}) must measure {missing[0]!r}, but seed {seed} did not"
        )
    more = [key for key in (*trial.values, *trial.bounds) if key not in predicted]
    if more:
        raise RunError(
            f"claim {claim.number} ({claim.name}) must measure what it predicts, but seed {seed} gave "
            f"{more[0]!r}, too: write a prediction about it, or leave it out"
        )
    seconds = time.perf_counter() - begin
    return Measured(trial, tuple(bench.used), seconds, chosen_rates(bench.choices))


def _measured(values: dict[str, Any]) -> Measured:
    trial = values["trial"]
    series = tuple(
        Series(line["name"], tuple(line["x"]), tuple(map(_number, line["y"])), line["norm"])
        for line in trial["series"]
    )
    return Measured(
        Trial(
            {key: _number(value) for key, value in trial["values"].items()},
            series,
            dict(trial["bounds"]),
            tuple(trial["notes"]),
        ),
        tuple(values["runs"]),
        float(values["seconds"]),
        tuple(ChosenRate(**{**rate, "tried": tuple(rate["tried"])}) for rate in values["rates"]),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
