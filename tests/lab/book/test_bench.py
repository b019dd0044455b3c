"""The bench of an experiment, on results written by hand and on networks that are trained."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch

from normwright.errors import OptionError
from normwright.lab.book.bench import PILOT_SEED, Bench, NeedsRunsError, make, vary
from normwright.lab.jobs import run_all
from normwright.lab.store import Store
from normwright.lab.training import build

RATES = (0.1, 1.0, 10.0)
BASE = make("mlp", "digits", norm="none", depth=1, width=8, batch_size=256, epochs=1)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path) as store:
        yield store


@pytest.fixture
def bench(store):
    return Bench(store)


def finish(store, bench, trained, recipe, rate, *, metric, diverged=False, pilot=0):
    """Keeps the result of a pilot run as if it had been trained, with another validation metric."""
    import dataclasses

    run = bench._named(vary(recipe, lr=rate, seed=PILOT_SEED + pilot))
    made = dataclasses.replace(
        trained, validation=np.full_like(trained.validation, metric), diverged=diverged
    )
    store.finish(run, made)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of one run that was trained, and its result."""
    folder = tmp_path_factory.mktemp("trained")
    with Store.open(folder) as store:
        run = Bench(store)._named(BASE)
        run_all(folder, [run])
        return folder, store.result(run.hash)


def test_all_that_is_missing_is_asked_for_at_once(bench):
    others = [vary(BASE, seed=seed) for seed in (1, 2)]
    with pytest.raises(NeedsRunsError, match="3 runs are to be done first") as asked:
        bench.train(BASE, *others)
    assert [recipe.training.seed for recipe in asked.value.recipes] == [0, 1, 2]
    assert set(bench.used) == {recipe.hash for recipe in asked.value.recipes}


def test_what_is_there_is_not_asked_for_again(bench, store, trained):
    store.finish(bench._named(BASE), trained[1])
    with pytest.raises(NeedsRunsError) as asked:
        bench.train(BASE, vary(BASE, seed=1))
    assert [recipe.training.seed for recipe in asked.value.recipes] == [1]


def test_pilots_of_both_sides_are_asked_for_at_once_with_seeds_of_their_own(bench):
    with pytest.raises(NeedsRunsError) as asked:
        bench.best_rates([BASE, vary(BASE, norm="batch")], RATES, pilots=2)
    asked = [(r.training.norm, r.training.lr, r.training.seed) for r in asked.value.recipes]
    assert asked == [
        (norm, rate, PILOT_SEED + pilot) for norm in ("none", "batch") for rate in RATES for pilot in (0, 1)
    ]


def test_each_side_has_its_own_best_rate(bench, store, trained):
    sides = [BASE, vary(BASE, norm="batch")]
    for side, metrics in zip(sides, [(0.5, 0.9, 0.7), (0.5, 0.6, 0.7)], strict=True):
        for rate, metric in zip(RATES, metrics, strict=True):
            finish(store, bench, trained[1], side, rate, metric=metric)
    chosen = bench.best_rates(sides, RATES)
    assert [(r.training.norm, r.training.lr, r.training.seed) for r in chosen] == [
        ("none", 1.0, 0),
        ("batch", 10.0, 0),
    ]


def test_the_bench_keeps_what_was_chosen_and_from_what(bench, store, trained):
    sides = [BASE, vary(BASE, norm="batch")]
    for side, metrics in zip(sides, [(0.5, 0.9, 0.7), (0.5, 0.6, None)], strict=True):
        for rate, metric in zip(RATES, metrics, strict=True):
            finish(store, bench, trained[1], side, rate, metric=metric or 0.0, diverged=metric is None)
    chosen = bench.best_rates(sides, RATES, purpose="for speed")
    assert [choice.recipe for choice in bench.choices] == chosen
    none, batch = bench.choices
    assert none.scores == {0.1: (1, 0.5), 1.0: (1, 0.9), 10.0: (1, 0.7)}
    assert batch.scores == {0.1: (1, 0.5), 1.0: (1, 0.6), 10.0: (0, -math.inf)}
    assert none.purpose == batch.purpose == "for speed"


def test_a_rate_that_diverges_loses_whatever_its_score(bench, store, trained):
    for rate, metrics in zip(RATES, [(0.5, 0.5), (0.9, None), (None, None)], strict=True):
        for pilot, metric in enumerate(metrics):
            finish(
                store, bench, trained[1], BASE, rate, metric=metric or 1.0, diverged=not metric, pilot=pilot
            )
    (chosen,) = bench.best_rates([BASE], RATES, pilots=2)
    assert chosen.training.lr == 0.1


def test_another_score_chooses_another_rate(bench, store, trained):
    for rate, metric in zip(RATES, (0.5, 0.9, 0.7), strict=True):
        finish(store, bench, trained[1], BASE, rate, metric=metric)
    (chosen,) = bench.best_rates([BASE], RATES, score=lambda result: -float(result.validation[-1]))
    assert chosen.training.lr == 0.1


def test_where_all_diverge_the_first_rate_stands(bench, store, trained):
    for rate in RATES:
        finish(store, bench, trained[1], BASE, rate, metric=0.5, diverged=True)
    (chosen,) = bench.best_rates([BASE], RATES)
    assert chosen.training.lr == RATES[0]


def test_a_recipe_is_named_by_what_its_data_are(bench):
    named = bench._named(BASE)
    assert named.data.digest
    assert bench._named(named).hash == named.hash
    assert bench.data(BASE).digest == named.data.digest


@pytest.fixture
def whole(trained, tmp_path):
    """A bench on a copy of the trained folder."""
    shutil.copytree(trained[0], tmp_path / "copy")
    with Store.open(tmp_path / "copy") as store:
        yield Bench(store), store


def test_a_network_has_the_weights_that_were_trained(whole):
    bench, store = whole
    network = bench.network(BASE)
    start = build(BASE, bench.data(BASE)).module.state_dict()
    kept = store.load_checkpoint(bench._named(BASE).hash)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, kept[name])
    assert any(not torch.equal(value, start[name]) for name, value in kept.items())


@pytest.mark.parametrize("content", [None, b"", b"half"])
def test_a_checkpoint_that_is_lost_is_trained_again(content, whole):
    bench, store = whole
    path = store.checkpoint_path(bench._named(BASE).hash)
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(NeedsRunsError) as asked:
        bench.network(BASE)
    assert len(asked.value.recipes) == 1
    run_all(store.folder, asked.value.recipes)
    bench.network(BASE)
    assert path.read_bytes() == before


def test_the_network_of_a_run_that_diverged_is_there(whole):
    bench, store = whole
    wild = vary(BASE, lr=1e30, activation="relu")
    run_all(store.folder, [bench._named(wild)])
    assert bench.train(wild)[0].diverged
    assert isinstance(bench.network(wild), torch.nn.Module)
    assert math.isnan(bench.test(wild))


def test_a_test_is_taken_once_and_kept(whole):
    bench, store = whole
    value = bench.test(BASE)
    assert 0 < value < 1
    assert store.test(bench._named(BASE).hash) == value
    store.checkpoint_path(bench._named(BASE).hash).unlink()
    assert bench.test(BASE) == value


def test_sizes(store):
    assert Bench(store).size(6, 2) == 6
    assert Bench(store, quick=True).size(6, 2) == 2


def test_an_option_that_no_part_has_is_told():
    with pytest.raises(OptionError, match="unknown option 'depht': did you mean 'depth'"):
        vary(BASE, depht=3)
    changed = vary(BASE, depth=3, validation=0.2, lr=0.5)
    assert (changed.network.depth, changed.data.validation, changed.training.lr) == (3, 0.2, 0.5)
