"""From recipe to data: names, digests, determinism."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from normwright.errors import DataError, OptionError
from normwright.lab.data import Data, load
from normwright.lab.data.load import READERS
from normwright.lab.recipe import DataRecipe

MNIST = DataRecipe(name="mnist", validation=0.25)
WriteMnist = Callable[..., Path]


def tensors(data: Data) -> list[torch.Tensor]:
    return [value for value in vars(data).values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize(
    ("name", "nearest"), [("fasion-mnist", "fashion-mnist"), ("cifar", "cifar10"), ("digit", "digits")]
)
def test_unknown_name_suggests_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(OptionError, match=f"unknown data set '{name}': did you mean '{nearest}'.*images:DIR"):
        load(DataRecipe(name=name))


def test_the_offered_names() -> None:
    assert list(READERS) == ["digits", "fashion-mnist", "mnist", "cifar10"]


def test_the_same_to_the_bit_with_one_thread_and_with_more(tmp_path: Path, write_mnist: WriteMnist) -> None:
    write_mnist(tmp_path)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = load(MNIST, directory=tmp_path)
        torch.set_num_threads(4)
        four = load(MNIST, directory=tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert one.digest == four.digest
    assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(four), strict=True))


def test_global_seeds_do_not_matter(tmp_path: Path, write_mnist: WriteMnist) -> None:
    write_mnist(tmp_path)
    torch.manual_seed(0)
    first = load(MNIST, directory=tmp_path)
    torch.manual_seed(1)
    second = load(MNIST, directory=tmp_path)
    assert torch.equal(first.validation_x, second.validation_x)


def test_recipe_with_its_digest_loads_again(tmp_path: Path, write_mnist: WriteMnist) -> None:
    write_mnist(tmp_path)
    digest = load(MNIST, directory=tmp_path).digest
    assert load(dataclasses.replace(MNIST, digest=digest), directory=tmp_path).digest == digest


def test_digest_does_not_depend_on_compression_or_validation_share(
    tmp_path: Path, write_mnist: WriteMnist
) -> None:
    packed = load(MNIST, directory=write_mnist(tmp_path / "packed", ending=".gz"))
    plain = load(
        DataRecipe(name="mnist", validation=0.5), directory=write_mnist(tmp_path / "plain", ending="")
    )
    assert packed.digest == plain.digest


def test_one_changed_pixel_is_other_data(tmp_path: Path, write_mnist: WriteMnist) -> None:
    write_mnist(tmp_path, ending="")
    digest = load(MNIST, directory=tmp_path).digest
    path = tmp_path / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="the data changed since"):
        load(dataclasses.replace(MNIST, digest=digest), directory=tmp_path)


def test_train_is_standardised_by_itself_alone(tmp_path: Path, write_mnist: WriteMnist) -> None:
    data = load(MNIST, directory=write_mnist(tmp_path))
    train = data.train_x.double()
    # Pixels of mean/deviation below 2 and |z| below 2: each element is off by at most 2⁻²⁴·(2 + 3·2) = 2⁻²¹.
    assert abs(float(train.mean())) <= 2**-21
    assert abs(float(train.std(correction=0)) - 1) <= 2**-21
    assert abs(float(data.validation_x.double().mean())) > 2**-21, "validation has a mean of its own"
