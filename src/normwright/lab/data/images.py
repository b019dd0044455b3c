"""Images in folders, a folder per class: `images:DIR`.

DIR/train/<class>/…, DIR/test/<class>/…     the test split as given; other folders of DIR are not read
DIR/<class>/…                               a fifth of each class is held out as the test split
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import torch

from normwright.errors import DataError, MissingExtraError
from normwright.lab.data.dataset import Raw
from normwright.lab.data.split import stratified

TEST_SHARE = 0.2
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Pillow's modes of 16 and 32 bits a channel, which it would clip at 255 in silence.
DEEP = ("I", "F")


def read_images(folder: Path, *, size: int) -> Raw:
    """The images below a folder, scaled whole (bilinear) to size × size pixels.

    All become RGB, unless every pixel of every image is grey; then they have one channel. A file counts as
    an image by its ending (`ENDINGS`), however deep below its class folder; hidden ones are passed over.

    Args:
        folder: holds a folder per class, or `train` and `test` that do.
        size: height and width, in pixels.
    Raises:
        DataError: a folder is missing or empty, the classes differ, or an image cannot be read.
        MissingExtraError: Pillow is not installed.
    """
    _require_pillow()
    if not folder.is_dir():
        raise DataError(
            f"images:{folder} must name a folder, but there is none; give a folder of class folders"
        )
    name = f"images:{folder}"
    if any(_subfolders(folder / part) for part in ("train", "test")):
        return _read_splits(name, folder, size)
    classes = _classes(folder)
    x, y = _read_classes(folder, classes, size)
    train, test = stratified(y, TEST_SHARE)
    if len(test) == 0:
        raise DataError(
            f"{name}: some class must have at least two images, so that one can be held out to test"
        )
    x = _grey_if_all(x)
    return Raw(name, x[train], y[train], x[test], y[test], classes)


def _require_pillow() -> None:
    try:
        importlib.import_module("PIL.Image")
    except ImportError as fault:
        raise MissingExtraError(
            f"reading images needs Pillow, which cannot be imported ({fault}); "
            "install it with: pip install 'normwright[images]'"
        ) from fault


def _read_splits(name: str, folder: Path, size: int) -> Raw:
    for part in ("train", "test"):
        if not _subfolders(folder / part):
            raise DataError(
                f"{name}: beside train and test class folders there must be both, but {folder / part} "
                "holds no class folder; add it, or put the class folders right into the folder"
            )
    classes, tested = _classes(folder / "train"), _classes(folder / "test")
    if classes != tested:
        raise DataError(
            f"{name}: train and test must have the same class folders, but these are in one of them only: "
            f"{', '.join(sorted(set(classes) ^ set(tested)))}"
        )
    train_x, train_y = _read_classes(folder / "train", classes, size)
    test_x, test_y = _read_classes(folder / "test", classes, size)
    x = _grey_if_all(torch.cat((train_x, test_x)))
    return Raw(name, x[: len(train_y)], train_y, x[len(train_y) :], test_y, classes)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(path.name for path in _subfolders(folder))
    if len(classes) < 2:
        raise DataError(
            f"{folder} must hold a folder for each of two classes or more, but holds "
            f"{', '.join(classes) or 'none'}"
        )
    return classes


def _read_classes(folder: Path, classes: tuple[str, ...], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    files = [_files(folder / name) for name in classes]
    x = torch.empty((sum(map(len, files)), 3, size, size), dtype=torch.uint8)
    for sample, path in enumerate(path for paths in files for path in paths):
        x[sample] = _read(path, size)
    y = torch.repeat_interleave(torch.tensor([len(paths) for paths in files]))
    return x, y


def _files(folder: Path) -> list[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(
            f"the class folder {folder} must hold images ({', '.join(ENDINGS)}), but holds none; "
            "add some, or take the folder away"
        )
    return files


def _read(path: Path, size: int) -> torch.Tensor:
    """(3, size, size), uint8."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            mode = image.mode
            upright = ImageOps.exif_transpose(image)
            # Pillow warns of a palette with transparency unless the transparency is made explicit first.
            opaque = upright.convert("RGBA") if "transparency" in upright.info else upright
            scaled = opaque.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    # A broken file makes Pillow's readers raise nearly anything: OSError, SyntaxError, struct.error, …
    except Exception as fault:
        raise DataError(
            f"{path} must be an image that can be read, but is not: {fault}; "
            "replace it or take it out of the folder"
        ) from fault
    if mode.startswith(DEEP):
        raise DataError(
            f"{path} must have 8 bits a channel, but has more (Pillow's mode {mode}); "
            "convert it first, or load the set by a function of your own"
        )
    return torch.from_numpy(np.array(scaled)).permute(2, 0, 1)


def _grey_if_all(x: torch.Tensor) -> torch.Tensor:
    red, green, blue = x.unbind(1)
    grey = torch.equal(red, green) and torch.equal(red, blue)
    return x[:, :1].contiguous() if grey else x
