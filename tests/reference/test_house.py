"""The reference stands on NumPy alone, and shows exactly what it means to show."""

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest

from normwright import reference

FILES = sorted(Path(reference.__file__).parent.glob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be read here"
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports(path):
    for name in imported(path):
        below = name == "normwright.errors" or name.startswith("normwright.reference")
        assert below or name.split(".")[0] in {"numpy", *sys.stdlib_module_names}, name


def test_the_chapter_names_its_files():
    contents = {path.name for path in FILES} - {"__init__.py", "arrays.py"}
    assert [name for name in sorted(contents) if f"    {name} " not in reference.__doc__] == []


def test_every_public_name_is_exported():
    public = {
        name
        for name, value in vars(reference).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(reference.__all__)
    assert all(getattr(reference, name).__doc__ for name in public)
