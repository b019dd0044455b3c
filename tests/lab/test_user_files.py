"""Two users' files of the same name are two modules, each with its own neighbours, in every process."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import pytest
from torch.utils.data import ConcatDataset, DataLoader

from normwright.lab.user_code import digest, resolve
from normwright.lab.user_files import is_hidden, module_name

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
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return folder / "nets.py"


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
    assert not is_hidden(tmp_path / "a")
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


def test_folders_without_an_init(tmp_path: Path) -> None:
    nets = "from blocks.wide import WIDTH\n\ndef build():\n    return WIDTH\n"
    found = []
    for number, name in enumerate(("a", "b")):
        file = write(tmp_path / name, number, nets)
        (file.parent / "blocks").mkdir()
        (file.parent / "blocks/wide.py").write_text(f"WIDTH = {number}\n")
        found.append(resolve(f"{file}:build")())
    assert found == [0, 1]


def test_what_is_installed_is_never_hidden(tmp_path: Path) -> None:
    nets = "import json\nimport numpy\n\ndef build():\n    return json.__file__, numpy.__file__\n"
    write(tmp_path / "a", 1, nets)
    for name in ("json", "numpy"):
        (tmp_path / f"b/{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"b/{name}.py").write_text("1 / 0\n")
    assert not is_hidden(tmp_path / "b")
    second = write(tmp_path / "b", 2, nets)
    resolve(f"{tmp_path}/a/nets.py:build")
    assert is_hidden(tmp_path / "b")
    assert resolve(f"{second}:build")() == (sys.modules["json"].__file__, sys.modules["numpy"].__file__)


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
