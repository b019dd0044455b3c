"""From a recipe to the data set that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from normwright.errors import DataError, unknown_name
from normwright.lab.data.cifar import read_cifar10
from normwright.lab.data.dataset import Data, Raw, digest_of
from normwright.lab.data.digits import read_digits
from normwright.lab.data.images import read_images
from normwright.lab.data.mnist import read_fashion_mnist, read_mnist
from normwright.lab.data.own import read_own
from normwright.lab.data.split import stratified
from normwright.lab.data.standardise import pixel_moments, standardise
from normwright.lab.recipe import DataRecipe
from normwright.lab.user_code import IMAGES, is_user_code

READERS: dict[str, Callable[[Path | None], Raw]] = {
    "digits": lambda directory: read_digits(),
    "fashion-mnist": read_fashion_mnist,
    "mnist": read_mnist,
    "cifar10": read_cifar10,
}


def load(recipe: DataRecipe, *, directory: Path | None = None) -> Data:
    """The data set that the recipe names, in memory.

    Pixels are standardised by the mean and deviation of each channel over the training split; a user's
    values stay as they are. The validation split is taken from the training set, class by class, by a
    fixed seed.

    Args:
        recipe: which set; its digest, unless empty, must be that of what is loaded.
        directory: where to look first for the files of a published set.
    Returns:
        The data, on the CPU, with its digest.
    Raises:
        OptionError: no data set has that name.
        DataError: it is missing, half-written, inconsistent, or has changed since the recipe was made.
        UserCodeError: the user's function is missing or returns the wrong thing.
        MissingExtraError: it needs a package that is not installed.
    Example:
        >>> load(DataRecipe(name="digits")).sample_shape
        (1, 8, 8)
    """
    return prepared(recipe, read(recipe, directory))


def prepared(recipe: DataRecipe, source: Raw | Data) -> Data:
    """What `load` makes of what `read` found."""
    data = source.to("cpu") if isinstance(source, Data) else _prepared(source, recipe.validation)
    data = dataclasses.replace(data, name=recipe.name, digest=_digest(source))
    if recipe.digest and recipe.digest != data.digest:
        raise DataError(
            f"{recipe.name} must be the data of the recipe, with digest {recipe.digest[:16]}…, but the data "
            f"changed since: the digest is now {data.digest[:16]}…; bring the old data back, or start anew "
            "in another --out (a function of your own that draws at random must fix its seed)"
        )
    return data


def read(recipe: DataRecipe, directory: Path | None) -> Raw | Data:
    """The data set as its source holds it."""
    if is_user_code(recipe.name):
        return read_own(recipe.name)
    if recipe.name.startswith(IMAGES):
        return read_images(_folder(recipe.name), size=recipe.image_size)
    if recipe.name not in READERS:
        offered = [*READERS, "images:DIR", "package.module:function", "path/to/file.py:function"]
        raise unknown_name("data set", recipe.name, offered)
    return READERS[recipe.name](directory)


def _folder(name: str) -> Path:
    folder = name[len(IMAGES) :]
    if not folder:
        raise DataError(f"{IMAGES} must be followed by a folder, as in {IMAGES}photos, but nothing came")
    return Path(folder).expanduser()


def _prepared(raw: Raw, share: float) -> Data:
    stay, held_out = stratified(raw.train_y, share)
    if len(held_out) == 0:
        raise DataError(
            f"{raw.name}: some class must have at least two training samples, so that one can be held out "
            "to choose the learning rate, but each has one; add samples"
        )
    x = {"train": raw.train_x[stay], "validation": raw.train_x[held_out], "test": raw.test_x}
    if not raw.train_x.is_floating_point():
        moments = pixel_moments(x["train"])
        x = {split: standardise(pixels, moments, raw.top) for split, pixels in x.items()}
    return Data(
        name=raw.name,
        train_x=x["train"],
        train_y=raw.train_y[stay],
        validation_x=x["validation"],
        validation_y=raw.train_y[held_out],
        test_x=x["test"],
        test_y=raw.test_y,
        classes=raw.classes,
    )


def _digest(source: Raw | Data) -> str:
    """Over what the source holds, before standardising: whole numbers do not depend on the machine."""
    splits = ("train", "test") if isinstance(source, Raw) else ("train", "validation", "test")
    return digest_of(*(getattr(source, f"{split}_{part}") for split in splits for part in "xy"))
