"""The C++ library is loaded where it should be, and says exactly why where it is not."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import normwright
from normwright.backends import native

SOURCES = Path(__file__).parents[2] / "csrc"

REQUIRED = "native" in os.environ.get("NORMWRIGHT_REQUIRE", "").split(",")


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch):
    monkeypatch.delenv(native.SWITCH, raising=False)


def library() -> Path:
    found = [path for folder in normwright.__path__ if (path := Path(folder, native.LIBRARY)).exists()]
    if not found:
        assert not REQUIRED, "NORMWRIGHT_REQUIRE names native, but the C++ library was not built"
        pytest.skip("normwright was installed without its C++ library")
    return found[0]


def tool(*names: str) -> str:
    found = [path for name in names if (path := shutil.which(name))]
    if not found:
        assert not REQUIRED, f"NORMWRIGHT_REQUIRE names native, but none of {names} is there"
        pytest.skip(f"none of {names} is installed")
    return found[0]


def refusal(*folders: Path) -> str:
    with pytest.warns(RuntimeWarning, match="without its C\\+\\+ kernels") as caught:
        loaded, reason = native.load([str(folder) for folder in folders])
    assert not loaded
    assert reason in str(caught[0].message)
    return reason


def test_it_is_loaded():
    library()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded, reason = native.load()
    assert loaded
    assert reason.removeprefix("C++, compiled for ") in {"baseline", "x86_64_v3", "x86_64_v4"}


def test_backends_say_that_it_is_loaded():
    library()
    code = "import normwright; print(normwright.backends()[0].loaded)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_it_is_switched_off_without_a_warning():
    code = "import normwright; native, *_ = normwright.backends(); print(native.loaded, native.reason)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, native.SWITCH: "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False switched off: NORMWRIGHT_NATIVE=0 in the environment"


@pytest.mark.parametrize("setting", ["off", "false", "2"])
def test_a_setting_that_means_nothing_is_named(setting, monkeypatch, tmp_path):
    monkeypatch.setenv(native.SWITCH, setting)
    assert refusal(tmp_path) == f"NORMWRIGHT_NATIVE must be 0 or 1, but is {setting!r} in the environment"


def test_not_built(tmp_path):
    assert "NORMWRIGHT_NATIVE=1" in refusal(tmp_path)


def test_not_built_and_the_build_said_why(tmp_path):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / native.NOT_BUILT).write_text("no C++ compiler was found\n")
    reason = refusal(tmp_path / "sources", tmp_path / "built")
    assert reason.startswith(
        "no C++ compiler was found. Once that is mended, install normwright again with pip's"
    )


def test_a_library_for_another_platform(tmp_path):
    (tmp_path / native.LIBRARY).write_bytes(b"MZ" + bytes(100))
    assert "invalid ELF header" in refusal(tmp_path) or sys.platform != "linux"


def test_a_library_that_pytorch_lacks_symbols_for(tmp_path):
    source = tmp_path / "library.cpp"
    source.write_text("void not_in_pytorch(); void here() { not_in_pytorch(); }")
    compiler = tool("c++", "g++", "clang++")
    command = [compiler, "-shared", "-fPIC", str(source), "-o", str(tmp_path / native.LIBRARY)]
    subprocess.run(command, check=True)
    reason = refusal(tmp_path)
    assert "not_in_pytorch" in reason
    assert f"PyTorch {torch.__version__}" in reason
    assert reason.endswith("install normwright again with pip's --force-reinstall --no-deps --no-cache-dir")


def test_the_library_is_of_these_sources():
    assert native.stamp(SOURCES).encode() in library().read_bytes()


def changed_header(sources: Path) -> None:
    with (sources / "calls.h").open("a") as header:
        header.write("// edited\n")


EDITS = {
    "a header": changed_header,
    "a new file": lambda sources: (sources / "new.cpp").touch(),
    "a file gone": lambda sources: (sources / "pages.h").unlink(),
    "a file renamed": lambda sources: (sources / "pages.h").rename(sources / "sheets.h"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_library_of_other_sources(edit, tmp_path):
    folder = tmp_path / "src" / "normwright"
    folder.mkdir(parents=True)
    shutil.copy(library(), folder)
    edit(Path(shutil.copytree(SOURCES, tmp_path / "csrc")))
    reason = refusal(tmp_path / "elsewhere", folder)
    assert f"built from other sources than those in {tmp_path / 'csrc'}." in reason
    assert reason.endswith(f"pip install --no-deps --editable {tmp_path}")


def test_what_the_library_is_not_made_from_may_change(tmp_path):
    sources = Path(shutil.copytree(SOURCES, tmp_path / "csrc"))
    (sources / "tests" / "fuzz.cpp").unlink()
    (sources / ".calls.h.swp").touch()
    besides_sources(sources)
    os.utime(sources / "calls.h", (0, 0))
    assert native.stamp(sources) == native.stamp(SOURCES)


def besides_sources(folder: Path) -> None:
    """What editors and people leave: a lock, which links to nothing; a hidden file; folders."""
    (folder / ".#cells.cpp").symlink_to("somebody@somewhere.1234")
    (folder / ".hidden.h").touch()
    (folder / "old.h").mkdir()


def test_the_build_s_stamp_is_the_same(tmp_path):
    shutil.copytree(SOURCES, tmp_path, dirs_exist_ok=True)
    besides_sources(tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18...4.4)\nproject(stamp LANGUAGES NONE)\n"
        "include(cmake/stamp.cmake)\nnormwright_stamp_of_sources(hash)\nfile(WRITE hash ${hash})\n"
    )
    cmake = tool(str(Path(sys.executable).with_name("cmake")), "cmake")
    command = [cmake, "-S", tmp_path, "-B", tmp_path / "build"]
    subprocess.run(command, capture_output=True, check=True)
    assert native.stamp(tmp_path) == f"normwright sources {(tmp_path / 'hash').read_text()}"


def test_the_command_that_builds_again_takes_any_path(tmp_path):
    folder = tmp_path / "with a space" / "src" / "normwright"
    folder.mkdir(parents=True)
    shutil.copy(library(), folder)
    changed_header(Path(shutil.copytree(SOURCES, tmp_path / "with a space" / "csrc")))
    assert shlex.split(refusal(folder))[-1] == str(tmp_path / "with a space")


def test_a_library_that_is_not_normwrights(tmp_path):
    source = tmp_path / "library.cpp"
    source.write_text("void here() {}")
    compiler = tool("c++", "g++", "clang++")
    command = [compiler, "-shared", "-fPIC", str(source), "-o", str(tmp_path / native.LIBRARY)]
    subprocess.run(command, check=True)
    assert "normwright_instruction_set" in refusal(tmp_path)


def test_pytorch_is_too_old(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    assert refusal() == "the C++ kernels need PyTorch 2.10 or later; this is 2.9.1+cpu"


def test_the_library_exports_one_function_and_needs_no_python():
    # Whatever else it exported could be taken for another library's, or replace it.
    command = [tool("nm"), "--dynamic", "--defined-only", str(library())]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    functions = [line.split()[-1] for line in symbols if line.split()[-2] in "TWi"]
    assert [name for name in functions if not name.startswith("_")] == ["normwright_instruction_set"]
    assert not [name for name in functions if "normwright" in name and name.startswith("_Z")]
    command = [tool("nm"), "--dynamic", "--undefined-only", str(library())]
    needed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "aoti_torch" in needed
    assert " Py" not in needed


def test_an_lstm_cell_that_would_write_over_something_else_that_it_reads():
    library()
    memory, z = torch.rand(60), torch.rand(2, 12)
    gates, before, cell = memory[:24].view(2, 12), memory[20:26].view(2, 3), memory[40:46].view(2, 3)
    for call in ((z, before, gates, cell), (z, cell, gates, before), (gates, cell, z, before)):
        copies = [tensor.clone() for tensor in call]
        with pytest.raises(RuntimeError, match="apart"):
            torch.ops.normwright.lstm_cell(*call)
        assert all(map(torch.equal, call, copies))
