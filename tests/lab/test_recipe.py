"""A recipe checks itself, and its hash names what it says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from normwright.errors import OptionError
from normwright.lab.recipe import DataRecipe, NetworkRecipe, Recipe, TrainingRecipe


def make(**training):
    defaults = {"norm": "batch", "batch_size": 8, "lr": 0.1}
    return Recipe(
        network=NetworkRecipe(name="mlp"),
        data=DataRecipe(name="digits"),
        training=TrainingRecipe(**{**defaults, **training}),
    )


def test_the_hash_changes_with_every_field():
    base = make()
    other = {str: "other", int: 7, float: 0.07, bool: False}
    named = {
        "activation": "tanh",
        "place": "after",
        "initialisation": "own",
        "norm": "layer",
        "optimiser": "adamw",
        "schedule": "cosine",
    }
    hashes = {base.hash}
    count = 1
    for part in ("network", "data", "training"):
        for field in dataclasses.fields(getattr(base, part)):
            value = named.get(field.name, other[type(getattr(getattr(base, part), field.name))])
            changed = dataclasses.replace(getattr(base, part), **{field.name: value})
            hashes.add(dataclasses.replace(base, **{part: changed}).hash)
            count += 1
    assert len(hashes) == count


def test_a_field_at_its_default_leaves_the_name_that_a_run_had_before_it_came():
    assert (
        make().hash == make(shuffle=True, samples=0, max_steps=0, label_noise=0.0).hash == "c21b5129ad5274a2"
    )


def test_one_is_one_point_nought():
    assert make(lr=1, momentum=0).hash == make(lr=1.0, momentum=0.0).hash


def test_numbers_of_numpy_are_numbers():
    recipe = make(lr=np.float32(0.5), batch_size=np.int64(8))
    assert recipe.hash == make(lr=0.5, batch_size=8).hash
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_json_round_trip():
    recipe = make(lr=0.1 + 0.2, seed=3, shuffle=False, max_steps=5)
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        (NetworkRecipe, "depth", 0, "depth must be at least 1 and a whole number, but is 0"),
        (NetworkRecipe, "width", -3, "width must be at least 1 and a whole number, but is -3"),
        (NetworkRecipe, "dropout", 1.0, r"dropout must be in \[0, 1\), but is 1.0"),
        (NetworkRecipe, "activation", "sigmod", "did you mean 'sigmoid'"),
        (NetworkRecipe, "init_std", 0.0, "init_std must be above zero"),
        (DataRecipe, "image_size", 0, "image_size must be at least 1"),
        (DataRecipe, "validation", 1.5, "validation must be a share"),
        (TrainingRecipe, "epochs", 0, "epochs must be at least 1"),
        (TrainingRecipe, "batch_size", -1, "batch_size must be at least 1 and a whole number, but is -1"),
        (TrainingRecipe, "lr", float("nan"), "lr must be a finite number, but is nan"),
        (TrainingRecipe, "momentum", -0.1, "momentum must be in"),
        (TrainingRecipe, "weight_decay", -1.0, "weight_decay must be at least 0"),
        (TrainingRecipe, "records", -1, "records must be at least 0"),
        (TrainingRecipe, "epochs", 1.5, "epochs must be at least 1 and a whole number, but is 1.5"),
        (TrainingRecipe, "seed", True, "seed must be at least 0 and a whole number, but is True"),
        (TrainingRecipe, "lr", "0.1", "lr must be a finite number, but is '0.1' of type str"),
        (NetworkRecipe, "affine", 0, "affine must be True or False, but is 0"),
        (TrainingRecipe, "shuffle", "no", "shuffle must be True or False, but is 'no' of type str"),
        (TrainingRecipe, "samples", -1, "samples must be at least 0"),
        (TrainingRecipe, "max_steps", 0.5, "max_steps must be at least 0 and a whole number"),
        (TrainingRecipe, "label_noise", 1.0, r"label_noise must be in \[0, 1\), but is 1.0"),
        (TrainingRecipe, "optimiser", "adam", "did you mean 'adamw'"),
    ],
)
def test_a_value_that_is_not_allowed(part, field, value, message):
    required = {"norm": "none", "batch_size": 1, "lr": 1.0} if part is TrainingRecipe else {"name": "x"}
    with pytest.raises(OptionError, match=message):
        part(**{**required, field: value})
