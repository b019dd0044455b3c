"""Folders of images, whole and broken."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from normwright.errors import DataError, MissingExtraError
from normwright.lab.data import load
from normwright.lab.data.images import read_images
from normwright.lab.recipe import DataRecipe

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install 'normwright[images]'")


def write(path: Path, mode: str = "RGB", *, shade: int = 0, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.random.RandomState(shade).randint(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten RGB images of each of two classes."""
    for number in range(10):
        write(tmp_path / "set/cat" / f"{number}.png", shade=number)
        write(tmp_path / "set/dog" / f"{number}.PNG", shade=number + 100)
    return tmp_path / "set"


def test_plain_class_folders(folder: Path) -> None:
    data = load(DataRecipe(name=f"images:{folder}", image_size=8))
    assert data.sample_shape == (3, 8, 8)
    assert data.classes == ("cat", "dog")
    assert torch.bincount(data.test_y).tolist() == [2, 2]
    assert torch.bincount(data.validation_y).tolist() == [1, 1]


def test_train_and_test_folders(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    folder.rename(tmp_path / "both/train")
    write(tmp_path / "both/test/cat/a.jpg")
    write(tmp_path / "both/test/dog/deep/below/b.jpg")
    raw = read_images(tmp_path / "both", size=8)
    assert (len(raw.train_x), len(raw.test_x)) == (20, 2)
    assert raw.test_y.tolist() == [0, 1]


def test_pixels_and_labels_belong_together(folder: Path) -> None:
    raw = read_images(folder, size=4)
    for x, y in zip(raw.train_x, raw.train_y, strict=True):
        shades = range(10) if y == 0 else range(100, 110)
        candidates = [
            Image.open(folder / f"cat/{s}.png" if s < 100 else folder / f"dog/{s - 100}.PNG") for s in shades
        ]
        scaled = [np.array(image.resize((4, 4), Image.Resampling.BILINEAR)) for image in candidates]
        assert any(np.array_equal(x.permute(1, 2, 0).numpy(), image) for image in scaled)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_all_grey_has_one_channel(tmp_path: Path, mode: str) -> None:
    for number in range(4):
        write(tmp_path / "a" / f"{number}.png", mode, shade=number)
        write(tmp_path / "b" / f"{number}.png", mode, shade=number + 9)
    assert read_images(tmp_path, size=4).train_x.shape == (6, 1, 4, 4)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_mixed_modes_become_rgb(folder: Path, mode: str) -> None:
    write(folder / "cat/other.png", mode)
    assert read_images(folder, size=4).train_x.shape[1] == 3


def test_palette_with_transparency_raises_no_warning(folder: Path) -> None:
    image = Image.new("P", (4, 4))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(folder / "cat/transparent.png", transparency=b"\x80\x40")
    raw = read_images(folder, size=4)
    assert len(raw.train_x) + len(raw.test_x) == 21


def test_hidden_files_and_other_endings_are_passed_over(folder: Path) -> None:
    (folder / "cat/notes.txt").write_text("no image")
    (folder / "cat/._0.png").write_bytes(b"\0")
    write(folder / "cat/.ipynb_checkpoints/0.png")
    write(folder / ".thumbnails/0.png")
    raw = read_images(folder, size=4)
    assert len(raw.train_x) + len(raw.test_x) == 20


@pytest.mark.parametrize("ending", [".png", ".jpg", ".gif", ".bmp", ".tiff", ".webp", ".ppm"])
def test_truncated_image_is_named(folder: Path, ending: str) -> None:
    path = write(folder / f"dog/broken{ending}", size=(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{path} must be an image that can be read"):
        read_images(folder, size=4)


def test_file_that_is_no_image_is_named(folder: Path) -> None:
    (folder / "dog/text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"dog/text\.jpg must be an image"):
        read_images(folder, size=4)


def test_sixteen_bits_are_refused_rather_than_clipped(folder: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(folder / "cat/deep.png")
    with pytest.raises(DataError, match=r"deep.png must have 8 bits a channel"):
        read_images(folder, size=4)


def test_upright_as_the_camera_says(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png", exif=exif)
    x = read_images(tmp_path, size=4).train_x
    assert x[0, 0, 0].eq(0).all()
    assert x[0, 0, 3].eq(255).all()


def test_empty_class_folder(folder: Path) -> None:
    (folder / "bird").mkdir()
    with pytest.raises(DataError, match=r"class folder .*bird must hold images .* holds none"):
        read_images(folder, size=4)


def test_one_class_only(tmp_path: Path) -> None:
    write(tmp_path / "cat/0.png")
    with pytest.raises(DataError, match="two classes or more, but holds cat"):
        read_images(tmp_path, size=4)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must name a folder, but there is none"):
        read_images(tmp_path / "none", size=4)


def test_no_folder_named() -> None:
    with pytest.raises(DataError, match="must be followed by a folder"):
        load(DataRecipe(name="images:"))


def test_train_without_test(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    folder.rename(tmp_path / "both/train")
    write(tmp_path / "both/val/cat/a.png")
    with pytest.raises(DataError, match="both/test holds no class folder"):
        read_images(tmp_path / "both", size=4)


def test_classes_differ_between_train_and_test(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    folder.rename(tmp_path / "both/train")
    write(tmp_path / "both/test/cat/a.png")
    write(tmp_path / "both/test/bird/a.png")
    with pytest.raises(DataError, match="in one of them only: bird, dog"):
        read_images(tmp_path / "both", size=4)


def test_one_image_of_each_class(tmp_path: Path) -> None:
    write(tmp_path / "a/0.png")
    write(tmp_path / "b/0.png")
    with pytest.raises(DataError, match="at least two images"):
        read_images(tmp_path, size=4)


@pytest.mark.parametrize("blocked", ["PIL", "PIL.Image"])
def test_without_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch, blocked: str) -> None:
    monkeypatch.setitem(sys.modules, blocked, None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False) if blocked == "PIL" else None
    with pytest.raises(MissingExtraError, match=r"pip install 'normwright\[images\]'"):
        read_images(folder, size=4)
