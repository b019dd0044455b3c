"""Two users' files of the same name are two modules, each with its own neighbours, in every process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import ConcatDataset, DataLoader

from normwright.lab.user_code import digest, resolve
from normwright.lab.user_files import is_moved, module_name

pytestmark = pytest.mark.usefixtures("restored_imports")

NETS = """
import parts.depth as depth
import widths
from shapes import *

class Data:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return build()

def build():
    import later
    from parts import depth as again
    assert again is depth
    return [widths.WIDTH, later.NUMBER, depth.DEPTH, SHAPE]

def around():
    return widths.again()
"""


WIDTHS = """
from shapes import SHAPE as WIDTH

def again():
    import nets
    return nets.build()
"""


def write(folder: Path, number: int, nets: str = NETS) -> Path:
    """A user's folder whose numbers all are `number`; it returns its file."""
    files = {
        "nets.py": nets,
        "widths.py": WIDTHS,
        "shapes.py": f"SHAPE = {number}",
        "later.py": "from widths import WIDTH as NUMBER",
        "parts/__init__.py": "",
        "parts/depth.py": "from shapes import SHAPE as DEPTH",
    }
    write_all(folder, files)
    return folder / "nets.py"


def write_all(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")


def run(folder: Path, *arguments: str, **variables: str) -> None:
    """Runs Python in the folder; it must end well."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(autouse=True)
def no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that another test has left has these names."""
    for name in ("nets", "widths", "shapes", "later", "parts", "parts.depth"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    kept = [entry for entry in sys.path if not (Path(entry) / "nets.py").exists()]
    monkeypatch.setattr(sys, "path", kept)
    importlib.invalidate_caches()


def test_each_folder_has_its_own_neighbours(tmp_path: Path) -> None:
    files = [write(tmp_path / name, number) for number, name in enumerate(("a", "b", "a/b"))]
    builders = [resolve(f"{file}:build") for file in files]
    # called after all are resolved, so that what is imported late would be another's
    assert [build() for build in builders] == [[0] * 4, [1] * 4, [2] * 4]
    assert resolve(f"{files[1]}:around")() == [1] * 4, "a neighbour imports the file itself"


def test_neighbours_of_one_folder_have_their_plain_names(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    resolve(f"{first}:build")
    assert sys.modules["widths"].__file__ == str(tmp_path / "a/widths.py")
    assert not is_moved("widths", tmp_path / "a")
    resolve(f"{second}:build")
    assert sys.modules["widths"].__file__ == str(tmp_path / "a/widths.py")
    assert sys.modules[f"{module_name(tmp_path / 'b')}.widths"].WIDTH == 2


def test_a_folder_beside_the_script_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "script", 1)
    monkeypatch.syspath_prepend(tmp_path / "script")
    importlib.import_module("widths")
    assert resolve(f"{write(tmp_path / 'nets', 2)}:build")() == [2] * 4


def test_a_module_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("a", "b")):
        write(tmp_path / name, number)
        monkeypatch.chdir(tmp_path / name)
        assert resolve("nets:build")() == [number] * 4
    assert (
        digest("nets:build") == digest(f"{tmp_path}/b/nets.py:build") != digest(f"{tmp_path}/a/nets.py:build")
    )


@pytest.mark.parametrize("package", ["blocks", "blocks.inner"])
def test_folders_without_an_init(package: str, tmp_path: Path) -> None:
    found = []
    for number, name in enumerate(("a", "b")):
        file = write(
            tmp_path / name, number, f"from {package}.wide import WIDTH\ndef build(): return WIDTH\n"
        )
        write_all(file.parent, {f"{package.replace('.', '/')}/wide.py": f"WIDTH = {number}"})
        found.append(resolve(f"{file}:build")())
    assert found == [0, 1]


def test_what_is_installed_is_never_hidden(tmp_path: Path) -> None:
    nets = "import json\nimport numpy\n\ndef build():\n    return json.__file__, numpy.__file__\n"
    write(tmp_path / "a", 1, nets)
    for name in ("json", "numpy"):
        (tmp_path / f"b/{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"b/{name}.py").write_text("1 / 0\n")
    second = write(tmp_path / "b", 2, nets)
    resolve(f"{tmp_path}/a/nets.py:build")
    importlib.import_module("shapes")
    assert [is_moved(name, tmp_path / "b") for name in ("json", "numpy", "shapes")] == [False, False, True]
    assert resolve(f"{second}:build")() == (sys.modules["json"].__file__, sys.modules["numpy"].__file__)


def test_only_what_leads_to_a_hidden_module_is_moved(tmp_path: Path) -> None:
    """`parts` does so by its `depth`, `later` by `widths`; `space` gives way to another folder's."""
    write(tmp_path / "b", 1)
    others = {
        "a/shapes.py": "SHAPE = 0",
        "a/space.py": "",
        "b/space/inner.py": "import shapes",
        "b/alone.py": "import single",
        "b/single.py": "import alone",
        "b/pack/__init__.py": "from .shapes import SHAPE",
        "b/pack/shapes.py": "SHAPE = 1",
    }
    write_all(tmp_path, others)
    sys.path += [str(tmp_path / "a"), str(tmp_path / "b")]
    names = ("shapes", "widths", "later", "parts", "nets", "alone", "single", "pack", "space", "absent")
    moved = [name for name in names if is_moved(name, tmp_path / "b")]
    assert moved == ["shapes", "widths", "later", "parts", "nets"]


def test_a_module_that_was_imported_by_its_plain_name_stays(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", 1), write(tmp_path / "b", 2)
    sys.path.append(str(second.parent))
    widths = importlib.import_module("widths")
    sys.path.remove(str(second.parent))
    del sys.modules["shapes"]
    resolve(f"{first}:build")
    widths.WIDTH = 7
    assert resolve(f"{second}:build")() == [7, 7, 2, 2]


def test_a_test_of_pytest_shares_the_modules_of_a_file(tmp_path: Path) -> None:
    """Though pytest has imported another conftest.py."""
    files = {
        "conftest.py": "",
        "layers.py": "class Block: pass",
        "nets.py": "from layers import Block\ndef build(): return Block()",
        "tests/conftest.py": "",
        "tests/test_it.py": "from layers import Block\nfrom normwright.lab.user_code import resolve\n"
        "def test():\n    assert isinstance(resolve('nets.py:build')(), Block)",
    }
    write_all(tmp_path, files)
    run(tmp_path, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", ".", "-p", "no:cacheprovider", ".")


def test_a_script_sets_what_a_file_of_another_folder_reads(tmp_path: Path) -> None:
    """Though that folder has a file of the script's name."""
    script = """
import sys
sys.path.append("exp")
import layers
from normwright.lab.user_code import resolve
layers.WIDTH = 8
assert resolve("exp/nets.py:build")() == 8
"""
    files = {
        "run.py": script,
        "exp/run.py": "1 / 0",
        "exp/layers.py": "WIDTH = 1",
        "exp/nets.py": "import layers\ndef build(): return layers.WIDTH",
    }
    write_all(tmp_path, files)
    run(tmp_path, "run.py")


def test_a_script_registers_in_a_package_of_the_current_folder(tmp_path: Path) -> None:
    """Though the current folder, which is on PYTHONPATH, has a file of the script's name."""
    script = """
from normwright.lab.user_code import resolve
from pkg import registry
registry.NAMES.append("mine")
assert resolve("pkg.nets:build")() == ["mine"]
"""
    files = {
        "a/run.py": script,
        "b/run.py": "1 / 0",
        "b/pkg/__init__.py": "",
        "b/pkg/registry.py": "NAMES = []",
        "b/pkg/nets.py": "from pkg import registry\ndef build(): return registry.NAMES",
    }
    write_all(tmp_path, files)
    run(tmp_path / "b", "../a/run.py", PYTHONPATH=str(tmp_path / "b"))


def test_a_folder_of_data_hides_nothing(tmp_path: Path) -> None:
    """Python takes it for a part of the package of another folder's code."""
    files = {
        "a/data/loading.py": "NUMBER = 3",
        "a/nets.py": "from data.loading import NUMBER\ndef build(): return NUMBER",
        "b/data/images/one/1.png": "",
        "b/nets.py": "from data.loading import NUMBER\ndef build(): return NUMBER",
    }
    write_all(tmp_path, files)
    assert [resolve(f"{tmp_path}/{name}/nets.py:build")() for name in ("a", "b")] == [3, 3]


def test_a_relative_import_is_pythons_own_error(tmp_path: Path) -> None:
    """As in `python nets.py`, and so without a module of normwright's that has the name by chance."""
    (tmp_path / "shapes.py").write_text("SHAPE = 3\n")
    for number, line in enumerate(
        ("from .shapes import SHAPE", "from ..data import Data", "from . import os")
    ):
        (tmp_path / f"file{number}.py").write_text(f"{line}\ndef build(): pass\n")
        with pytest.raises(ImportError, match="attempted relative import with no known parent package"):
            resolve(f"{tmp_path}/file{number}.py:build")
    both = """
def build():
    try:
        from .shapes import SHAPE
    except ImportError:
        from shapes import SHAPE
    return SHAPE
"""
    (tmp_path / "both.py").write_text(both)
    assert resolve(f"{tmp_path}/both.py:build")() == 3


@pytest.mark.parametrize("name", ["_zz", "data", "user_code", "_2", "_2F", "_2fa_", "_é", "_2e_2fdata"])
def test_a_name_that_is_no_path_has_no_module(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert importlib.util.find_spec(f"normwright.lab.user_files.{name}") is None


def test_an_edited_neighbour_of_a_hidden_folder_runs_anew(tmp_path: Path) -> None:
    files = [write(tmp_path / name, number) for number, name in enumerate(("a", "b"))]
    assert [resolve(f"{file}:build")() for file in files] == [[0] * 4, [1] * 4]
    (tmp_path / "b/shapes.py").write_text("SHAPE = 5\n")
    assert [resolve(f"{file}:build")() for file in files] == [[0] * 4, [5] * 4]


def test_an_edit_is_seen_by_another_file_that_imports_it(tmp_path: Path) -> None:
    first = write(tmp_path, 1)
    second = first.with_name("other.py")
    second.write_text("import shapes\n\ndef build():\n    return shapes.SHAPE\n")
    assert resolve(f"{first}:build")() == [1] * 4
    first.with_name("shapes.py").write_text("SHAPE = 22\n")
    assert resolve(f"{second}:build")() == 22
    assert resolve(f"{first}:build")() == [22] * 4


def test_an_absent_module_is_named_as_it_was_imported(tmp_path: Path) -> None:
    write(tmp_path / "a", 1)
    resolve(f"{tmp_path}/a/nets.py:build")
    second = write(tmp_path / "b", 2, "import no_such_neighbour\n")
    with pytest.raises(ModuleNotFoundError, match="'no_such_neighbour'"):
        resolve(f"{second}:build")


def test_odd_paths(tmp_path: Path) -> None:
    for number, name in enumerate(("v1.2 é/my nets.py", "v1.2 é/my_nets.py", "_/x.y.py")):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"def build(): return {number}\n")
        build = resolve(f"{file}:build")
        assert build() == number
        assert pickle.loads(pickle.dumps(build)) is build


def test_a_spawned_loader_finds_both(tmp_path: Path) -> None:
    """Its process inherits nothing but the search path, as any does where there is no fork."""
    files = [write(tmp_path / name, number) for number, name in enumerate(("a", "b"))]
    both = ConcatDataset([resolve(f"{file}:Data")() for file in files])
    loader = DataLoader(both, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert list(loader) == [[0] * 4, [1] * 4]
