"""Where the files of a published data set are looked for, and what is said when they are nowhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from normwright.errors import DataError
from normwright.lab.data.archive import Archive
from normwright.lab.data.cifar import CIFAR10
from normwright.lab.data.find import find
from normwright.lab.data.mnist import FASHION_MNIST, MNIST

WriteMnist = Callable[..., Path]


@pytest.mark.parametrize("layout", [".", "mnist", "MNIST/raw", "mnist/MNIST/raw"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_layouts(tmp_path: Path, write_mnist: WriteMnist, layout: str, ending: str) -> None:
    folder = write_mnist(tmp_path / layout, ending=ending)
    assert find(MNIST, tmp_path) == [folder / f"{name}{ending}" for name in MNIST.files]


@pytest.mark.parametrize("layout", [".", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
def test_cifar_layouts(tmp_path: Path, write_cifar10: Callable[[Path], Path], layout: str) -> None:
    folder = write_cifar10(tmp_path / layout)
    assert find(CIFAR10, tmp_path) == [folder / name for name in CIFAR10.files]


def test_the_sets_own_folder_goes_before_loose_files(tmp_path: Path, write_mnist: WriteMnist) -> None:
    write_mnist(tmp_path)
    own = write_mnist(tmp_path / "mnist")
    assert find(MNIST, tmp_path)[0].parent == own


def test_compressed_goes_before_plain(tmp_path: Path, write_mnist: WriteMnist) -> None:
    write_mnist(tmp_path, ending="")
    write_mnist(tmp_path, ending=".gz")
    assert {path.suffix for path in find(MNIST, tmp_path)} == {".gz"}


def test_order_argument_variable_package_home(
    tmp_path: Path, write_mnist: WriteMnist, monkeypatch: pytest.MonkeyPatch
) -> None:
    argument, variable = write_mnist(tmp_path / "argument"), write_mnist(tmp_path / "variable")
    package, home = write_mnist(tmp_path / "package"), write_mnist(tmp_path / "home/.cache/normwright/mnist")
    packaged = Archive(
        name="mnist", files=MNIST.files, folders=MNIST.folders, downloads=(), installed=package, package="p"
    )

    def found(directory: Path | None) -> Path:
        return find(packaged, directory)[0].parent

    monkeypatch.setenv("NORMWRIGHT_DATA", str(variable))
    assert found(argument) == argument
    assert found(None) == variable
    monkeypatch.delenv("NORMWRIGHT_DATA")
    assert found(None) == package
    assert find(MNIST)[0].parent == home


def test_empty_argument_goes_on_to_the_variable(
    tmp_path: Path, write_mnist: WriteMnist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMWRIGHT_DATA", str(write_mnist(tmp_path / "variable")))
    (tmp_path / "empty").mkdir()
    assert find(MNIST, tmp_path / "empty")[0].parent == tmp_path / "variable"


def test_missing_argument_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no-such is none; correct --data-dir"):
        find(MNIST, tmp_path / "no-such")


def test_half_a_set_names_what_is_missing(tmp_path: Path, write_mnist: WriteMnist) -> None:
    (write_mnist(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=rf"{tmp_path} must hold .* but lacks t10k-labels-idx1-ubyte;"):
        find(MNIST, tmp_path)


def test_nowhere_says_which_files_where_and_every_way(tmp_path: Path) -> None:
    absent = Archive(
        name=FASHION_MNIST.name,
        files=FASHION_MNIST.files,
        folders=FASHION_MNIST.folders,
        downloads=FASHION_MNIST.downloads,
        installed=tmp_path / "package",
        package=FASHION_MNIST.package,
    )
    with pytest.raises(DataError) as caught:
        find(absent, tmp_path)
    message = str(caught.value)
    for part in (
        *FASHION_MNIST.files,
        f"{tmp_path / 'FashionMNIST/raw'};",
        f"{tmp_path / 'package'};",
        f"{tmp_path / 'home/.cache/normwright/fashion-mnist'}.",
        "apt install dataset-fashion-mnist",
        "--data-dir",
        "NORMWRIGHT_DATA",
        "pip install torchvision",
    ):
        assert part in message


# Stands in for torchvision and the network: "downloads" from a local folder, and like the real one prints.
TORCHVISION = """
import pathlib, shutil

def download_and_extract_archive(url, download_root, extract_root=None, filename=None, md5=None,
                                 remove_finished=False):
    print("Downloading", url)
    site = pathlib.Path({site!r})
    if not site.is_dir():
        raise OSError("no route to host")
    assert len(md5) == 32
    pathlib.Path(download_root).mkdir(parents=True, exist_ok=True)
    name = url.rpartition("/")[2].removesuffix(".gz")
    shutil.copy(site / name, download_root)
"""


@pytest.fixture
def torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A torchvision that fetches from the folder given back."""
    monkeypatch.delitem(sys.modules, "torchvision")
    package, site = tmp_path / "packages/torchvision/datasets", tmp_path / "site"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "utils.py").write_text(TORCHVISION.format(site=str(site)))
    before = {name: module for name, module in sys.modules.items() if name.startswith("torchvision")}
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(package.parent.parent))
    yield site
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]


def test_fetched_once_into_the_cache(
    torchvision: Path, tmp_path: Path, write_mnist: WriteMnist, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mnist(torchvision, ending="")
    cache = tmp_path / "home/.cache/normwright"
    fetched = find(MNIST)
    assert fetched == [cache / "mnist" / name for name in MNIST.files]
    assert [path.name for path in cache.iterdir()] == ["mnist"]
    printed = capsys.readouterr()
    assert "Downloading" in printed.err
    assert printed.out == ""
    (torchvision / MNIST.files[0]).unlink()
    assert find(MNIST) == fetched


def test_fetched_into_the_variables_folder(
    torchvision: Path, tmp_path: Path, write_mnist: WriteMnist, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(torchvision, ending="")
    monkeypatch.setenv("NORMWRIGHT_DATA", str(tmp_path / "new"))
    assert find(MNIST)[0] == tmp_path / "new/mnist" / MNIST.files[0]


def test_failed_fetch_leaves_nothing_and_says_why(
    torchvision: Path, tmp_path: Path, write_mnist: WriteMnist
) -> None:
    with pytest.raises(DataError, match=r"mnist must be fetched into .* no route to host"):
        find(MNIST)
    # The second of four files is missing at the site: the first must not stay either.
    (write_mnist(torchvision, ending="") / MNIST.files[1]).unlink()
    with pytest.raises(DataError, match="must be fetched"):
        find(MNIST)
    assert list((tmp_path / "home/.cache/normwright").iterdir()) == []
