"""Looking along a run: what is seen is what the book trains, and looking changes nothing."""

from __future__ import annotations

import pytest
import torch

from normwright.lab.book.along import look_along
from normwright.lab.book.bench import Bench, make, vary
from normwright.lab.store import Store
from normwright.lab.training import run_recipe

RECIPE = make("mlp", "digits", norm="batch", batch_size=50, depth=2, width=8, dropout=0.5, max_steps=12)


@pytest.fixture
def bench(tmp_path):
    with Store.open(tmp_path) as store:
        yield Bench(store)


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_it_shows_the_networks_that_shorter_runs_end_with(bench):
    seen = {}

    def look(step, network):
        assert network.training
        seen[step] = weights(network)
        with torch.no_grad():
            network(torch.randn(9, 1, 8, 8))
            for parameter in network.parameters():
                parameter.zero_()

    look_along(bench, RECIPE, (3, 12), look)
    assert list(seen) == [3, 12]
    for step, found in seen.items():
        trained = run_recipe(vary(RECIPE, max_steps=step)).weights
        assert trained.keys() == found.keys()
        assert all(torch.equal(found[name], value) for name, value in trained.items())


def test_it_trains_on_the_samples_of_the_recipe(bench):
    recipe, seen = vary(RECIPE, samples=100, max_steps=2), []
    look_along(bench, recipe, (2,), lambda step, network: seen.append(weights(network)))
    trained = run_recipe(recipe).weights
    assert all(torch.equal(seen[0][name], value) for name, value in trained.items())


def test_step_0_is_the_start_and_nothing_is_trained_after_the_last_look(bench):
    seen = []
    look_along(bench, RECIPE, (0,), lambda step, network: seen.append((step, weights(network))))
    ((step, found),) = seen
    assert step == 0
    assert int(found["hidden1.norm.num_batches_tracked"]) == 0
    steps = []
    look_along(bench, vary(RECIPE, max_steps=0, epochs=1_000_000), (2,), lambda step, _: steps.append(step))
    assert steps == [2]


def test_a_run_that_diverges_is_seen_until_then(bench):
    steps = []
    recipe = vary(RECIPE, lr=1e30, norm="none", activation="relu")
    look_along(bench, recipe, range(13), lambda step, _: steps.append(step))
    assert 0 in steps
    assert 12 not in steps


def test_what_a_look_raises_goes_through_and_random_states_are_kept(bench):
    before = torch.get_rng_state()

    def look(step, network):
        torch.rand(5)
        raise ValueError("seen enough")

    with pytest.raises(ValueError, match="seen enough"):
        look_along(bench, RECIPE, (1,), look)
    assert torch.equal(torch.get_rng_state(), before)
