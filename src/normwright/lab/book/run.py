"""Runs claims: trains what their experiments ask for, measures, judges, and keeps a record of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from normwright.errors import OptionError
from normwright.lab.book.alone import alone_in
from normwright.lab.book.bench import Bench, NeedsRunsError
from normwright.lab.book.claim import Claim, all_claims, chosen_claims
from normwright.lab.book.record import ClaimRecord, Cost, make_record
from normwright.lab.book.trials import Measured, Trials, measure
from normwright.lab.book.verdict import LEAST_SEEDS
from normwright.lab.jobs import OnProgress, run_all
from normwright.lab.machine import default_jobs, machine_in_words
from normwright.lab.recipe import DataRecipe, Recipe
from normwright.lab.store import Store
from normwright.lab.user_code import not_while_importing
from normwright.network.counting import how_many

RECORDS = "records"
QUICK_SEEDS = LEAST_SEEDS - 1


def run_claims(
    numbers: Sequence[int] | None = None,
    *,
    quick: bool = False,
    seeds: int | None = None,
    jobs: int | None = None,
    out: str | Path = "normwright-claims",
    data_dir: str | Path | None = None,
    on_stage: Callable[[str], None] = lambda text: None,
    on_progress: OnProgress = lambda done, total, running: None,
    on_record: Callable[[ClaimRecord], None] = lambda record: None,
) -> list[ClaimRecord]:
    """Re-runs claims of the literature on normalisation, and judges each by its written rule.

    Finished runs, trials and records are kept in `out`: the same call goes on where an earlier one was
    stopped, and does nothing twice. A trial is measured with nothing trained beside it, so one process at a
    time runs claims in a folder.

    Args:
        numbers: of the claims; None for all.
        quick: a reduced size, with one seed fewer than a verdict needs.
        seeds: how many; by default 5, or 4 for a quick run.
        jobs: processes that train at once; None takes one per core.
        out: folder of the book.
        data_dir: where data files are looked for first.
        on_stage: called with a sentence at the beginning of each part of the work.
        on_progress: called about five times a second while training.
        on_record: called with each claim's record as soon as it is judged.
    Returns:
        One record per claim, by number.
    Raises:
        OptionError: there is no claim of a number; seeds or jobs below 1; `out` is empty.
        DataError: the data are missing.
        RunError: an exception in a run or an experiment; what was finished is kept.
        StoreError: `out` cannot be read or written, or another process runs claims in it.
    Usage, not run as a test because it trains for minutes:
        for record in nw.run_claims([1], quick=True, out="claims"):
            print(record.number, record.verdict)
    """
    not_while_importing()
    claims = claims_to_run(numbers)
    count = (QUICK_SEEDS if quick else LEAST_SEEDS) if seeds is None else seeds
    for what, value in (("seeds", count), ("jobs", jobs)):
        if value is not None and not (isinstance(value, int) and value >= 1):
            raise OptionError(f"{what} must be at least 1 and a whole number, but is {value!r}")
    if not str(out):
        raise OptionError("out must name a folder, but is empty: leave it out for the usual one")
    directory = None if data_dir is None else Path(data_dir)
    book = _Book(claims, Path(out), directory, quick, count, jobs, on_stage, on_progress)
    records = []
    with alone_in(book.out):
        for record in book.run():
            on_record(record)
            records.append(record)
    return sorted(records, key=lambda record: record.number)


def claims_to_run(numbers: Sequence[int] | None) -> list[Claim]:
    """The claims of these numbers, or all.

    Raises:
        OptionError: there is no claim of a number.
    """
    return list(all_claims().values()) if numbers is None else chosen_claims(numbers)


@dataclass
class _Book:
    """One call, once it is known to be possible."""

    claims: list[Claim]
    out: Path
    directory: Path | None
    quick: bool
    seeds: int
    jobs: int | None
    on_stage: Callable[[str], None]
    on_progress: OnProgress

    def run(self) -> Iterator[ClaimRecord]:
        """The record of each claim as soon as all of its seeds are measured."""
        self.trials = Trials(self.out / "trials")
        self.digests: dict[DataRecipe, str] = {}
        left = list(self.claims)
        self.on_stage(f"preparing {how_many(len(left), 'claim')}")
        while left:
            asked: dict[str, Recipe] = {}
            for claim in list(left):
                needs = self._measure(claim)
                asked |= {recipe.hash: recipe for recipe in needs}
                if not needs:
                    left.remove(claim)
                    yield self._record(claim)
            if asked:
                self._train(list(asked.values()), left)

    def _measure(self, claim: Claim) -> list[Recipe]:
        """Measures the seeds that can be measured; the runs that the others ask for."""
        asked: list[Recipe] = []
        told = False
        for seed in range(self.seeds):
            if self.trials.find(claim, seed, quick=self.quick) is not None:
                continue
            with Store.open(self.out) as store:
                bench = Bench(store, directory=self.directory, quick=self.quick, digests=self.digests)
                try:
                    measured = measure(claim, seed, bench)
                except NeedsRunsError as needs:
                    asked += needs.recipes
                else:
                    self.trials.keep(claim, seed, measured, quick=self.quick)
                    # Not before: an experiment that only asks for runs is called just as one that measures.
                    if not told:
                        self.on_stage(f"measuring claim {claim.number} ({claim.name})")
                    told = True
        return asked

    def _train(self, recipes: Sequence[Recipe], claims: Sequence[Claim]) -> None:
        jobs = default_jobs("cpu", len(recipes)) if self.jobs is None else self.jobs
        numbers = ", ".join(str(claim.number) for claim in claims)
        self.on_stage(f"training {how_many(len(recipes), 'run')}, {jobs} at a time (claims {numbers})")
        run_all(self.out, recipes, jobs=jobs, directory=self.directory, on_progress=self.on_progress)

    def _record(self, claim: Claim) -> ClaimRecord:
        found = [self.trials.find(claim, seed, quick=self.quick) for seed in range(self.seeds)]
        measured = [trial for trial in found if trial is not None]
        record = make_record(
            claim,
            [one.trial for one in measured],
            self._cost(measured),
            rates=[rate for one in measured for rate in one.rates],
            quick=self.quick,
            machine=machine_in_words("cpu"),
            command=_command(claim, self.quick, self.seeds),
        )
        record.save(self.out / RECORDS)
        return record

    def _cost(self, measured: Sequence[Measured]) -> Cost:
        hashes = {run for one in measured for run in one.runs}
        with Store.open(self.out) as store:
            results = [store.result(run) for run in hashes]
        spent = [r.milliseconds * len(r.loss) / 1000 for r in results if r and math.isfinite(r.milliseconds)]
        return Cost(len(hashes), sum(spent), sum(one.seconds for one in measured))


def _command(claim: Claim, quick: bool, seeds: int) -> str:
    """Makes the record again, in whatever folder."""
    words = f"normwright claims run {claim.number}"
    words += " --quick" if quick else ""
    return words if seeds == (QUICK_SEEDS if quick else LEAST_SEEDS) else f"{words} --seeds {seeds}"
