"""Claims 6, 7, 17, 20 and 23: differences of test accuracies that are written by hand."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from normwright.lab.book.batch_sizes import at_best_rates, rates_at
from normwright.lab.book.bench import NeedsRunsError, make
from normwright.lab.claims import flat_group_norm, no_local_response, regularises, reshuffling, small_batches
from normwright.lab.claims.no_local_response import Responses
from normwright.lab.training import run_recipe


def test_regularises_compares_with_the_side_that_was_better_alone():
    accuracy = {"none": 80.0, "dropout": 83.0, "batch": 82.0, "both": 84.5}
    against_dropout = regularises.measures(accuracy, "dropout")
    assert against_dropout == {"batch_gains": 2.0, "dropout_can_go": -1.0, "both_gain": 1.5}
    assert regularises.measures(accuracy, "batch")["both_gain"] == 2.5


def test_a_seed_in_which_dropout_gains_nothing_says_that_it_cannot_tell():
    gained = regularises.control(3, {"none": 74.0, "dropout": 76.5})
    assert gained == "Control, seed 3: dropout alone adds +2.50 points to neither."
    nothing = regularises.control(4, {"none": 74.0, "dropout": 74.4})
    assert nothing.endswith(
        "adds +0.40 points to neither; so little that this seed cannot tell what regularises."
    )


def test_a_network_that_did_not_fit_its_training_images_is_named():
    fitted = SimpleNamespace(loss=np.array([2.0] * 100 + [0.01] * 40))
    unfitted = SimpleNamespace(loss=np.array([0.01] * 100 + [0.2] * 40))
    results = {"none": unfitted, "dropout": unfitted, "batch": fitted, "both": unfitted}
    assert regularises.unfitted(results) == ("Not fitted to the training images at the end: neither.",)
    assert regularises.unfitted(dict.fromkeys(results, fitted)) == ()


def test_small_batches_measures_what_is_lost_from_the_large_batch():
    accuracy = {("batch", 32): 80.0, ("batch", 2): 45.0, ("group", 32): 79.0, ("group", 2): 81.0}
    accuracy |= {("layer", 32): 78.0, ("layer", 2): 77.5}
    assert small_batches.losses(accuracy) == {"batch_loses": 35.0, "group_loses": -2.0, "layer_loses": 0.5}


def test_flat_group_norm_measures_what_each_smaller_batch_adds_to_the_error():
    assert flat_group_norm.rises({2: 22.0, 8: 19.5, 32: 20.0}) == {"rise_at_2": 2.0, "rise_at_8": -0.5}


def test_no_local_response_measures_what_it_adds_and_whether_batch_norm_is_worse_alone():
    accuracy = {"none": 80.0, "response": 82.0, "batch": 85.0, "both": 84.0}
    assert no_local_response.measures(accuracy) == {"response_adds": -1.0, "batch_is_no_worse": 3.0}


def test_reshuffling_measures_the_gain_with_batch_norm_and_beyond_that_without():
    accuracy = {("batch", False): 80.0, ("batch", True): 82.0, ("none", False): 79.0, ("none", True): 79.5}
    assert reshuffling.gains(accuracy) == {"gain": 2.0, "beyond_none": 1.5}


class Asked:
    """A bench without any run; it keeps what it was asked for."""

    quick = False

    def size(self, full, quick):
        return full

    def train(self, *recipes):
        raise NeedsRunsError(recipes)

    def best_rates(self, recipes, rates):
        self.train(*recipes)


def test_all_batch_sizes_see_the_same_images_equally_often():
    with pytest.raises(NeedsRunsError) as asked:
        at_best_rates(Asked(), [("batch", 32), ("batch", 2), ("group", 8)])
    recipes = asked.value.recipes
    assert {(r.training.norm, r.training.batch_size) for r in recipes} == {
        ("batch", 32),
        ("batch", 2),
        ("group", 8),
    }
    assert len(recipes) == 4 + 3 + 3
    assert len({(r.training.samples, r.training.epochs, r.data) for r in recipes}) == 1
    assert all(r.training.samples % r.training.batch_size != 1 for r in recipes)


@pytest.mark.parametrize("size", flat_group_norm.SIZES)
def test_every_place_has_at_least_three_rates_a_factor_of_four_apart(size):
    for norm in small_batches.NORMS:
        rates = rates_at(norm, size)
        assert len(rates) >= 3
        assert [high / low for low, high in pairwise(rates)] == pytest.approx([4.0] * (len(rates) - 1))


def test_local_responses_are_those_of_pytorch_and_stay_beside_the_normaliser():
    x = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.LocalResponseNorm(5, alpha=1.0, beta=0.75)(x)
    torch.testing.assert_close(Responses()(x), expected)
    name = "normwright.lab.claims.no_local_response:lenet_with_responses"
    recipe = make(name, "digits", norm="batch", batch_size=32, lr=0.1, max_steps=2, evaluations=1)
    trained = run_recipe(recipe)
    assert trained.result.places == 4
    assert trained.result.left_out == 0
    plain = run_recipe(
        make("lenet", "digits", norm="batch", activation="relu", batch_size=32, lr=0.1, max_steps=2)
    )
    assert set(trained.weights) == set(plain.weights)
    assert not torch.equal(trained.weights["output.weight"], plain.weights["output.weight"])
