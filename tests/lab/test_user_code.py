"""Functions of the user's own: found, run once, and every fault named."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from pathlib import Path

import pytest

from normwright.errors import UserCodeError
from normwright.lab.user_code import digest, is_user_code, resolve

SOURCE = """
import dataclasses
from blocks import BLOCKS

number = 3

@dataclasses.dataclass
class Settings:
    width: "int" = 4

def wide_network():
    return Settings().width * BLOCKS

def deep_network():
    return 7
"""


pytestmark = pytest.mark.usefixtures("restored_imports")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's working folder: `nets.py` and beside it what it imports; `pack/inner.py`."""
    monkeypatch.chdir(tmp_path)
    # What another test has left: its own modules of these names, and their folders.
    for module in ("nets", "blocks", "pack"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    elsewhere = [entry for entry in sys.path if (Path(entry) / "nets.py").exists()]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in elsewhere])
    (tmp_path / "nets.py").write_text(SOURCE)
    (tmp_path / "blocks.py").write_text("BLOCKS = 2\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").touch()
    (tmp_path / "pack/inner.py").write_text("def network(): return 5\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("a.b:f", True),
        ("path/to/file.py:f", True),
        (":", True),
        ("digits", False),
        ("images:DIR", False),
        ("images:C:/photos", False),
    ],
)
def test_is_user_code(name: str, own: bool) -> None:
    assert is_user_code(name) is own


def test_file_by_relative_absolute_and_home_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    functions = [
        resolve(f"{path}:wide_network") for path in ("nets.py", "./nets.py", folder / "nets.py", "~/nets.py")
    ]
    assert functions[0]() == 8
    assert len(set(functions)) == 1, "one path is run once"


def test_module_of_the_current_folder(folder: Path) -> None:
    assert resolve("nets:wide_network")() == 8
    assert resolve("pack.inner:network")() == 5


def test_path_with_a_colon(folder: Path) -> None:
    (folder / "a:b.py").write_text("def f(): return 1\n")
    assert resolve("./a:b.py:f")() == 1


def test_objects_of_a_file_can_be_pickled(folder: Path) -> None:
    function = resolve("nets.py:deep_network")
    assert pickle.loads(pickle.dumps(function)) is function


def test_edited_file_is_run_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of equal length and within the same second: Python's own cache would not see it.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (folder / "quick.py").write_text("def f(): return 1\n")
    stamp = (folder / "quick.py").stat()
    assert resolve("quick.py:f")() == 1
    before = digest("quick.py:f")
    (folder / "quick.py").write_text("def f(): return 2\n")
    os.utime(folder / "quick.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert resolve("quick.py:f")() == 2
    assert digest("quick.py:f") != before
    assert not list(folder.rglob("quick*.pyc"))


def test_an_edited_import_runs_anew(folder: Path) -> None:
    assert resolve("nets.py:wide_network")() == 8
    before = digest("nets.py:wide_network")
    (folder / "blocks.py").write_text("BLOCKS = 20\n")
    assert resolve("nets.py:wide_network")() == 80
    assert digest("nets.py:wide_network") != before


def test_digest_is_sha256_of_the_sources(folder: Path) -> None:
    sources = [(folder / name).read_bytes() for name in ("blocks.py", "nets.py")]
    expected = hashlib.sha256(b"\0".join(sources)).hexdigest()
    assert digest("nets.py:wide_network") == digest("nets:wide_network") == expected
    (folder / "pack/other.py").write_text("changes nothing")
    inner = hashlib.sha256((folder / "pack/inner.py").read_bytes()).hexdigest()
    assert digest("pack.inner:network") == inner


def test_digest_of_a_module_without_a_file() -> None:
    with pytest.raises(UserCodeError, match="builtins must have a source file"):
        digest("builtins:print")


@pytest.mark.parametrize("name", ["nets.py:", ":f", "nets.py:not a name", "a-b:f", "..:f", "plain"])
def test_malformed_name(folder: Path, name: str) -> None:
    with pytest.raises(
        UserCodeError, match=r"must be named package.module:function or path/to/file.py:function"
    ):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "net.py:f",
            r"net.py must be a file, but does not exist; did you mean 'nets.py'\? .*blocks.py, nets.py",
        ),
        ("nowhere/nets.py:f", "the folder .*nowhere does not exist"),
        ("./pack:f", "must be a file, but is a folder"),
        ("netz:f", r"module 'netz' must exist, but 'netz' was not found; did you mean 'nets'"),
        ("pack.iner:f", r"'pack.iner' was not found; did you mean 'pack.inner'\?"),
        ("pakc.inner:f", r"'pakc.inner' must exist, but 'pakc' was not found; did you mean 'pack'"),
        ("nets.deeper:f", "'nets.deeper' was not found"),
        ("nets.py:wide_netwrk", r"must define 'wide_netwrk', but does not; did you mean 'wide_network'"),
        ("nets:deep", r"must define 'deep', but does not; .*it defines: BLOCKS, Settings"),
        ("nets.py:number", "must be a function, but is of type int"),
    ],
)
def test_every_fault_is_named(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        resolve(name)


@pytest.mark.parametrize("name", ["net.py:f", "netz:f"])
def test_digest_names_the_same_faults(folder: Path, name: str) -> None:
    with pytest.raises(UserCodeError, match="did you mean"):
        digest(name)


@pytest.mark.parametrize("name", ["broken.py:f", "broken:f"])
@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("1 / 0", ZeroDivisionError),
        ("def f(:", SyntaxError),
        ("import no_such_package_here", ModuleNotFoundError),
        ("raise SystemExit(3)", SystemExit),
    ],
)
def test_the_users_own_exception_passes_unchanged(
    folder: Path, name: str, source: str, error: type[BaseException]
) -> None:
    (folder / "broken.py").write_text(source + "\n")
    before = set(sys.modules)
    with pytest.raises(error) as caught:
        resolve(name)
    assert not isinstance(caught.value, UserCodeError)
    assert not [
        module for module in set(sys.modules) - before if module.startswith("normwright.lab.user_files.")
    ]
