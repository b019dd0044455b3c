"""Batches of a data set by name, and those that a user's function makes."""

from __future__ import annotations

import pytest
import torch

from normwright.errors import OptionError, UserCodeError
from normwright.lab.batches import open_batches
from normwright.lab.data import load
from normwright.lab.recipe import DataRecipe

OWN = """
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

calls = []

def loader():
    calls.append("loader")
    return DataLoader(TensorDataset(torch.arange(5.0)), batch_size=2)

def generator():
    calls.append("generator")
    yield torch.zeros(2)
    yield torch.ones(2)

class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(2)])

def stream():
    return Stream()

def data():
    calls.append("data")
    x, y = torch.randn(40, 3), torch.arange(40) % 2
    return x, y, x[:7], y[:7]

def tensors():
    return [torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3), torch.ones(1, 3)]

def pairs():
    return [(torch.ones(2, 3), torch.zeros(2)), [torch.ones(1, 3), torch.zeros(1)]]

def mappings():
    return [{"x": torch.ones(2, 3)}]

def nothing():
    return []

def four():
    return list(data())

def train_and_test():
    samples = [(torch.ones(3) * index, index % 2) for index in range(8)]
    return [samples, samples[:3]]

def mixed():
    return [torch.ones(2, 3), 3]

def dataset():
    return TensorDataset(torch.randn(10, 3), torch.arange(10) % 2)
"""


@pytest.fixture
def own(tmp_path):
    """The name of a function in a file of the user's own."""
    (tmp_path / "own.py").write_text(OWN)
    return lambda function: DataRecipe(name=f"{tmp_path / 'own.py'}:{function}")


@pytest.mark.parametrize(
    ("split", "of"), [(None, ("train",)), ("test", ("test",)), ("all", ("train", "validation", "test"))]
)
def test_named_set_comes_in_its_own_order(split, of):
    data = load(DataRecipe(name="digits"))
    batches = open_batches(DataRecipe(name="digits"), split=split, batch_size=100)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(x, torch.cat([getattr(data, f"{part}_x") for part in of]))
    assert torch.equal(y, torch.cat([getattr(data, f"{part}_y") for part in of]))
    assert batches.count == len(list(batches)) == -(-len(y) // 100)
    assert (batches.sample_shape, batches.classes) == ((1, 8, 8), 10)


def test_usual_split_and_size():
    batches = open_batches(DataRecipe(name="digits"), usual_split="test")
    assert sum(len(y) for _, y in batches) == len(load(DataRecipe(name="digits")).test_y)
    assert len(next(iter(batches))[0]) == 64


def test_own_data_set_is_asked_for_once(own):
    batches = open_batches(own("data"), split="test")
    assert sum(len(y) for _, y in batches) == 7
    assert (batches.sample_shape, batches.classes) == ((3,), 2)


@pytest.mark.parametrize(
    ("function", "count", "length"), [("loader", 3, 3), ("generator", None, 2), ("stream", None, 1)]
)
def test_own_batches_come_as_they_are_again_and_again(own, function, count, length):
    batches = open_batches(own(function))
    first, second = list(batches), list(batches)
    assert batches.count == count
    assert len(first) == len(second) == length
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert batches.sample_shape is None


@pytest.mark.parametrize("function", ["loader", "tensors"])
@pytest.mark.parametrize("how", [{"split": "test"}, {"batch_size": 3}])
def test_own_batches_have_no_split_and_no_size(own, how, function):
    with pytest.raises(OptionError, match="leave it out"):
        open_batches(own(function), **how)


@pytest.mark.parametrize(
    ("function", "count"), [("tensors", 4), ("pairs", 2), ("mappings", 1), ("nothing", 0)]
)
def test_a_list_of_batches_is_read_as_it_is(own, function, count):
    batches = open_batches(own(function))
    assert batches.count == len(list(batches)) == len(list(batches)) == count


@pytest.mark.parametrize(("function", "count"), [("four", 7), ("train_and_test", 3)])
def test_a_list_that_is_a_data_set_stays_one(own, function, count):
    assert sum(len(y) for _, y in open_batches(own(function), split="test")) == count


def test_a_list_of_anything_else_is_refused_and_says_what_would_do(own):
    with pytest.raises(
        UserCodeError, match=r"must return batches \(.* a list\), or \(x_train,.* a list of 2"
    ):
        open_batches(own("mixed"))


def test_unknown_split_and_a_size_of_nothing():
    with pytest.raises(OptionError, match="must be one of train, validation, test, all, but is 'tset'"):
        open_batches(DataRecipe(name="digits"), split="tset")
    with pytest.raises(OptionError, match="at least 1, but is 0"):
        open_batches(DataRecipe(name="digits"), batch_size=0)


@pytest.mark.parametrize(("split", "count"), [(None, 40), ("train", 40), ("test", 7), ("all", 47)])
def test_all_of_what_a_function_returns_is_read(own, split, count):
    batches = open_batches(own("data"), split=split)
    assert sum(len(y) for _, y in batches) == count


def test_a_data_set_of_torch_is_cut_into_batches(own):
    batches = open_batches(own("dataset"), batch_size=4)
    assert [len(x) for x, _ in batches] == [4, 4, 2]


@pytest.fixture
def photos(tmp_path):
    """Two folders of the same five grey images in two classes, the second's four times darker."""
    image = pytest.importorskip("PIL.Image")
    for name, darker in (("day", 1), ("night", 4)):
        for index in range(10):
            folder = tmp_path / name / f"class{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = [(40 * index + level) // darker for level in range(0, 160, 10)]
            picture = image.new("L", (4, 4))
            picture.putdata([min(pixel, 255) for pixel in pixels])
            picture.save(folder / f"{index}.png")
    return tmp_path


def pixels_of(photos, name, **options):
    recipe = DataRecipe(name=f"images:{photos / name}", image_size=4)
    return torch.cat([x for x, _ in open_batches(recipe, **options)])


def test_images_are_all_read_and_keep_what_sets_them_apart(photos):
    day, night = pixels_of(photos, "day"), pixels_of(photos, "night")
    assert len(day) == len(night) == 10
    assert 0 <= float(day.min()) < float(day.max()) <= 1
    # Not standardised each by its own moments, which would make them alike.
    assert 3 < float(day.mean() / night.mean()) < 5


def test_images_are_standardised_as_they_were_in_training(photos):
    plain = pixels_of(photos, "day", split="train")
    torch.testing.assert_close(
        pixels_of(photos, "day", split="train", mean=(0.5,), std=(0.25,)), (plain - 0.5) / 0.25
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("day", {"mean": (0.5,)}, "come together"),
        ("day", {"mean": (0.5, 0.5), "std": (1.0,)}, "one for each of 1 channels"),
        ("day", {"mean": (0.5,), "std": (0.0,)}, "above 0"),
        ("day", {"split": "validation"}, "no validation split"),
    ],
)
def test_what_cannot_be_asked_of_images(photos, name, options, message):
    with pytest.raises(OptionError, match=message):
        pixels_of(photos, name, **options)


def test_mean_and_std_are_for_images():
    with pytest.raises(OptionError, match="for images:DIR alone"):
        open_batches(DataRecipe(name="digits"), mean=(0.5,), std=(0.5,))
