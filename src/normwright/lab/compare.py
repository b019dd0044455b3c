"""Trains one network under every normaliser and judges each at its own best learning rate."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from normwright.errors import OptionError, unknown_name
from normwright.lab.beforehand import check_grid, naming_the_run
from normwright.lab.cluster import Cluster, cluster_at
from normwright.lab.curves import make_gradients, make_learning, make_ribbons
from normwright.lab.data import Data
from normwright.lab.devices import device_of
from normwright.lab.grid import OPTIONS, Grid, make_base
from normwright.lab.heard import check_heard
from normwright.lab.jobs import OnProgress, run_all
from normwright.lab.judge import (
    Choice,
    Results,
    choose,
    edge_of,
    final_metric,
    make_rate_map,
    make_row,
    steps_by_seed,
)
from normwright.lab.lead import Guessing, guessing, lead
from normwright.lab.machine import default_jobs, machine_in_words
from normwright.lab.recipe import Recipe
from normwright.lab.records import Comparison, Lead, Row
from normwright.lab.store import Store
from normwright.lab.testing import Tested, take_test
from normwright.lab.training import load_once
from normwright.lab.user_code import digest, is_user_code, name_of, not_while_importing
from normwright.lab.verdict import verdict
from normwright.network.counting import how_many

UserFunction = Callable[..., Any]

Tests = dict[str, Tested]

DEFAULT_NORMS = ("none", "batch", "layer", "group", "rms")

# What a recipe has one of and a comparison several.
_SEVERAL = {"norm": "norms", "batch_size": "batch_sizes", "lr": "lrs", "seed": "seeds"}


def compare(
    network: str | UserFunction = "mlp",
    data: str | UserFunction = "digits",
    *,
    norms: Sequence[str] = DEFAULT_NORMS,
    batch_sizes: Sequence[int] = (256,),
    lrs: Sequence[float] = (0.1, 1.0),
    seeds: int = 3,
    epochs: int = 10,
    target: float = 0.85,
    jobs: int | None = None,
    ray: str | None = None,
    device: str = "auto",
    out: str | Path = "normwright-out",
    data_dir: str | Path | None = None,
    loss: str | UserFunction = "cross_entropy",
    metric: str | UserFunction = "accuracy",
    on_stage: Callable[[str], None] = lambda text: None,
    on_progress: OnProgress = lambda done, total, running: None,
    **options: Any,
) -> Comparison:
    """Trains a network under every normaliser, batch size, learning rate and seed, and judges them.

    Each is judged at its own best learning rate, by the validation split; the test set is used once, at
    the end, for the runs at that rate. A winner is named where three seeds or more tell it from every
    other; else the verdict says who was highest, and why that is no win. An accuracy must also be above
    what guessing gets, and its lead, taken sample by sample, above the luck of the test set, which for a
    user's metric is not counted. Finished runs are kept in `out`: the same call goes on where an earlier
    one was stopped, and trains nothing twice.

    Args:
        network: `mlp`, `lenet`, `vgg`, `resnet20`, `lstm`, or a user's: a function at the top level of a
            file, or its name, `package.module:function` or `path/to/file.py:function`. The normalisers
            that a user's network holds are the ones replaced; its weights stay as its code made them,
            unless `initialisation` is given.
        data: `digits`, `fashion-mnist`, `mnist`, `cifar10`, `images:DIR`, or a user's function.
        norms: of none, batch, layer, group, instance, rms, lrn, renorm, ghost, whitening, frn
            (filter response), dyt (dynamic tanh), weight, ws (weight standardisation, and group norm),
            recurrent-batch and recurrent-layer (these two inside of LSTMs).
        batch_sizes: samples per training step.
        lrs: learning rates.
        seeds: runs of each; the intervals are over these.
        epochs: passes over the training split.
        target: value of the metric that steps are counted to, on the validation split.
        jobs: processes that train at once; None takes one per core on the CPU, one on a GPU, and over Ray
            as many as the cluster has room for.
        ray: a Ray cluster that trains: `auto`, the one that this machine belongs to, or HOST:PORT of its
            head. Each run takes `threads` CPUs, and on `cuda` a GPU, of a machine there, and a process
            here. `out` and the data stay here; every machine needs the same normwright and PyTorch.
        device: `auto`, `cpu` or `cuda`.
        out: folder of the experiment.
        data_dir: where data files are looked for first.
        loss, metric: see `TrainingRecipe`, or a user's function.
        on_stage: called with a sentence at the beginning of each part of the work.
        on_progress: called about five times a second while training.
        options: any other field of `NetworkRecipe`, `DataRecipe` or `TrainingRecipe`, save those that a
            comparison has several of; one that this network, data or choice would ignore is refused.
    Returns:
        The rows of the table, the verdicts, who leads and whether it wins, and the curves.
    Raises:
        OptionError, DataError, UserCodeError: something does not hold; nothing was trained.
        MissingExtraError: `ray` is given and Ray not installed, or a data set's package.
        RunError: an exception in a run or in a user's code; what was finished is kept.
        StoreError: `out` cannot be read or written.
    Usage, not run as a test because it trains for minutes:
        comparison = nw.compare("mlp", "digits", norms=("none", "batch"), lrs=(0.1, 1.0), epochs=2, out="run")
        for row in comparison.rows:
            print(row.norm, row.lr, row.test.mean)
    """
    not_while_importing()
    if jobs is not None and not (isinstance(jobs, int) and jobs >= 1):
        raise OptionError(f"jobs must be at least 1 and a whole number, or None, but is {jobs!r}")
    if not (isinstance(target, int | float) and math.isfinite(target)):
        raise OptionError(f"target must be a finite number, but is {target!r}")
    _check_options(options)
    norms = _several("norms", norms, "('none', 'batch')")
    batch_sizes = _several("batch_sizes", batch_sizes, "(32, 256)")
    lrs = _several("lrs", lrs, "(0.1, 1)")
    network_name, given = _named(network), tuple(options)
    options.setdefault("initialisation", _initialisation(network_name))
    options |= {"norm": norms[0], "batch_size": batch_sizes[0], "lr": lrs[0], "epochs": epochs}
    options |= {"loss": _named(loss), "metric": _named(metric), "device": device_of(device)}
    base = make_base(network_name, _named(data), **options)
    grid = Grid(base, norms, batch_sizes, lrs, seeds)
    check_heard(base, norms, given)
    cluster = None if ray is None else cluster_at(ray)
    directory = None if data_dir is None else Path(data_dir)
    on_stage(f"reading {base.data.name}")
    with naming_the_run(base):
        loaded = load_once(base.data, directory)
    grid = dataclasses.replace(grid, base=_with_digests(base, loaded))
    check_grid(grid, loaded)
    comparing = _Comparing(grid, loaded, Path(out), target, cluster, directory)
    return comparing.run(jobs, on_stage, on_progress)


class _Comparing:
    """One comparison, once it is known to be possible."""

    def __init__(
        self,
        grid: Grid,
        data: Data,
        out: Path,
        target: float,
        cluster: Cluster | None,
        directory: Path | None,
    ) -> None:
        self.grid, self.data, self.out, self.target, self.cluster = grid, data, out, target, cluster
        self.directory = directory
        self.recipes = grid.recipes()

    def run(
        self,
        jobs: int | None,
        on_stage: Callable[[str], None],
        on_progress: OnProgress,
    ) -> Comparison:
        most = self._default_jobs()  # in any case, because it tells where no machine has room for a run
        workers = most if jobs is None else jobs
        with Store.open(self.out) as store:
            self._reopen_lost(store)
            done = len(store.finished([recipe.hash for recipe in self.recipes]))
            self._note_other_versions(store, done, on_stage)
        left = f", {done} of them done already" if done else ""
        at_once = f"{workers} at a time" + (" over Ray" if self.cluster else "")
        on_stage(f"training {how_many(len(self.recipes), 'run')}{left}, {at_once}")
        ray = self.cluster.address if self.cluster else None
        run_all(
            self.out,
            self.recipes,
            jobs=workers,
            directory=self.directory,
            ray=ray,
            on_progress=on_progress,
        )
        with Store.open(self.out) as store:
            results = self._results(store)
            choices = choose(self.grid, results)
            self._note_other_clocks(choices, results, on_stage)
            on_stage("testing each normaliser at its best learning rate")
            tests = self._test(store, choices, results)
        return self._comparison(choices, results, tests, at_once)

    def _default_jobs(self) -> int:
        training, runs = self.grid.base.training, len(self.recipes)
        return self.cluster.jobs(training, runs) if self.cluster else default_jobs(training.device, runs)

    def _note_other_versions(self, store: Store, done: int, on_stage: Callable[[str], None]) -> None:
        """Runs of another PyTorch count, but the user is told."""
        now, before = f"PyTorch {torch.__version__}", store.meta("software")
        if done and before not in (None, now):
            on_stage(f"note: runs in {self.out} were done with {before}, and count beside those of {now}")
        store.set_meta("software", now)

    def _note_other_clocks(
        self, choices: Sequence[Choice], results: Results, on_stage: Callable[[str], None]
    ) -> None:
        """Runs that were timed by another clock count, but not in a time of a step."""
        runs = [run.hash for choice in choices for run in choice.runs]
        others = sum(results[run].clock != self.grid.clock for run in runs)
        if others:
            on_stage(
                f"note: {others} of the {how_many(len(runs), 'run')} at the best learning rates timed by "
                "another clock than runs are now, and their times are left out: another --out times them anew"
            )

    def _reopen_lost(self, store: Store) -> None:
        """A finished run whose checkpoint is gone is done again, unless its test is known already."""
        for run in store.finished([recipe.hash for recipe in self.recipes]):
            if not store.checkpoint_path(run).exists() and store.test(run) is None:
                store.reopen(run)

    def _results(self, store: Store) -> Results:
        results = {}
        for recipe in self.recipes:
            result = store.result(recipe.hash)
            assert result is not None
            results[recipe.hash] = result
        return results

    def _test(self, store: Store, choices: Sequence[Choice], results: Results) -> Tests:
        """The test of every chosen run that did not diverge."""
        runs = (run for choice in choices for run in choice.runs)
        finished = (run for run in runs if final_metric(results[run.hash]) is not None)
        return {run.hash: take_test(store, run, self.data) for run in finished}

    def _comparison(
        self, choices: Sequence[Choice], results: Results, tests: Tests, at_once: str
    ) -> Comparison:
        grid, base = self.grid, self.grid.base
        none = {choice.batch_size: choice for choice in choices if choice.norm == "none"}
        rows = tuple(
            make_row(
                grid,
                choice,
                none.get(choice.batch_size),
                results,
                self.target,
                lambda run: tests[run.hash].metric,
            )
            for choice in choices
        )
        leads = tuple(self._lead(size, rows, choices, tests) for size in grid.batch_sizes)
        return Comparison(
            network=base.network.name,
            data=base.data.name,
            metric=base.training.metric,
            target=self.target,
            command=command_line(grid, self.target, self.out, self.directory),
            machine=f"{machine_in_words(base.training.device)}, {at_once}",
            epochs=base.training.epochs,
            runs=len(self.recipes),
            rows=rows,
            verdicts=tuple(
                (found.batch_size, self._verdict(found, rows, choices, results)) for found in leads
            ),
            leads=leads,
            learning=tuple(make_learning(choice, results) for choice in choices),
            rate_maps=tuple(make_rate_map(grid, norm, results) for norm in grid.norms),
            ribbons=tuple(ribbon for choice in choices for ribbon in make_ribbons(choice, results)),
            gradients=tuple(profile for choice in choices for profile in make_gradients(choice, results)),
            max_steps=base.training.max_steps,
        )

    def _lead(self, size: int, rows: Sequence[Row], choices: Sequence[Choice], tests: Tests) -> Lead:
        taken = {
            choice.norm: {run.training.seed: tests[run.hash] for run in choice.runs if run.hash in tests}
            for choice in choices
            if choice.batch_size == size
        }
        metrics = {norm: {seed: test.metric for seed, test in own.items()} for norm, own in taken.items()}
        answers = {
            norm: {seed: test.right for seed, test in own.items() if test.right is not None}
            for norm, own in taken.items()
        }
        here = [row for row in rows if row.batch_size == size]
        return lead(here, metrics, self._chance(), answers=answers)

    def _chance(self) -> Guessing | None:
        return guessing(self.data.test_y) if self.grid.base.training.metric == "accuracy" else None

    def _verdict(self, found: Lead, rows: Sequence[Row], choices: Sequence[Choice], results: Results) -> str:
        here = [choice for choice in choices if choice.batch_size == found.batch_size]
        return verdict(
            [row for row in rows if row.batch_size == found.batch_size],
            found,
            {choice.norm: steps_by_seed(choice, results, self.target) for choice in here},
            target=self.target,
            metric=self.grid.base.training.metric,
            chance=self._chance(),
            edges={choice.norm: edge_of(self.grid, choice, results) for choice in here},
        )


def command_line(grid: Grid, target: float, out: Path, directory: Path | None = None) -> str:
    """The command that makes a comparison again; options at their default are left out.

    Args:
        grid, target, out: as they were compared.
        directory: where data files were looked for first.

    Example:
        >>> base = make_base("mlp", "digits", norm="none", batch_size=32, lr=0.1, depth=9)
        >>> command_line(Grid(base, ("none", "batch"), (32,), (0.1,), 3), 0.85, Path("here"))
        'normwright compare mlp --data digits --norm none,batch --batch-size 32 --lr 0.1 --seeds 3 \
--epochs 10 --target 0.85 --depth 9 --out here'
    """
    network, training = grid.base.network, grid.base.training
    said = {"name", "digest", "norm", "batch_size", "lr", "seed", "epochs"}
    own = {"initialisation": _initialisation(network.name)}
    words = ["normwright", "compare", network.name, "--data", grid.base.data.name]
    words += ["--norm", ",".join(grid.norms), "--batch-size", ",".join(map(str, grid.batch_sizes))]
    words += ["--lr", ",".join(map(_number, grid.lrs)), "--seeds", str(grid.seeds)]
    words += ["--epochs", str(training.epochs), "--target", _number(target)]
    for part in (network, grid.base.data, training):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.name not in said and value != own.get(field.name, field.default):
                words += _option(field.name.replace("_", "-"), value)
    words += [] if directory is None else ["--data-dir", str(directory)]
    return shlex.join([*words, "--out", str(out)])


def _option(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


def _check_options(options: Mapping[str, object]) -> None:
    for option in options:
        if option in _SEVERAL:
            raise OptionError(f"a comparison has no {option}=: give {_SEVERAL[option]}= instead")
        if option not in OPTIONS:
            offered = sorted({*OPTIONS, *_SEVERAL.values()} - set(_SEVERAL))
            raise unknown_name("option", option, offered)


def _several(what: str, values: Sequence[Any], example: str) -> tuple[Any, ...]:
    """The values as a tuple; one value alone, or none at all, is an error."""
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise OptionError(f"{what} must be a sequence, such as {example}, but is {values!r}")
    if not len(values):
        raise OptionError(f"{what} must hold at least one value, such as {example}, but is empty")
    return tuple(value.item() if hasattr(value, "item") else value for value in values)


def _number(value: float) -> str:
    """As short as it can be and still be read back as the same number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _initialisation(network: str) -> str:
    """The default: a user's network keeps the weights that its code gave it."""
    return "own" if is_user_code(network) else "xavier"


def _named(code: str | UserFunction) -> str:
    return code if isinstance(code, str) else name_of(code)


def _with_digests(base: Recipe, data: Data) -> Recipe:
    """The recipe with what its data and the user's code are, so that a change makes another recipe."""
    own = [name for name in (base.training.loss, base.training.metric) if is_user_code(name)]
    network = digest(base.network.name) if is_user_code(base.network.name) else ""
    return dataclasses.replace(
        base,
        network=dataclasses.replace(base.network, digest=network),
        data=dataclasses.replace(base.data, digest=data.digest),
        training=dataclasses.replace(base.training, digest="+".join(digest(name) for name in own)),
    )
