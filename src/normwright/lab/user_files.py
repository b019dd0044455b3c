"""A user's files as modules: one for each path, under a name that leads back to it in any process.

The module of `/home/me/nets.py` is `normwright.lab.user_files._2fhome_2fme_2fnets_2epy`. So two files named
`nets.py` are two modules, and what is pickled of either is found again by a process that was just spawned.

What a file imports from beside it is a module under its plain name (`layers`), as in `python nets.py`, as
long as that name means the file's neighbour. In a folder of which a module is hidden by one elsewhere, such
as `b/layers.py` after `a/layers.py`, all neighbours are modules of the folder instead:
`normwright.lab.user_files._2fb.layers`.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

# What makes this module a package, whose modules the finder below finds.
__path__: list[str] = []

_INSTALLED = {"site-packages", "dist-packages"}


def module_name(path: Path) -> str:
    """The name of the module that a file is, or of the package that a folder is.

    Example:
        >>> module_name(Path("/b/my nets.py"))
        'normwright.lab.user_files._2fb_2fmy_20nets_2epy'
    """
    quoted = re.sub(rb"[^0-9A-Za-z]", lambda found: b"_%02x" % found[0][0], os.fsencode(path))
    return f"{__name__}.{quoted.decode()}"


def name_in(folder: Path, name: str) -> str:
    """The name under which a folder's files import a module: the same, or that in the folder's package."""
    return f"{module_name(folder)}.{name}" if is_hidden(folder) and _is_own(name, folder) else name


def is_hidden(folder: Path) -> bool:
    """Whether some module of a folder is not what its plain name means in this process.

    What is installed hides nothing: a user's file never stands in for it.
    """
    try:
        names = {entry.name.partition(".")[0] for entry in folder.iterdir()}
    except OSError:
        return False  # one that cannot be listed: its files may be imported by name still
    return any(_is_hidden(name, folder) for name in sorted(names) if name.isidentifier())


def _is_hidden(name: str, folder: Path) -> bool:
    own = PathFinder.find_spec(name, [str(folder)])
    there = None if own is None else _plain_spec(name)
    if own is None or there is None or _places(own) == _places(there) or _is_installed(there):
        return False
    if own.origin is None and not any(Path(place).glob("*.py") for place in _places(own)):
        return False  # a folder such as data/, whose name Python takes for a package too
    # A folder without __init__.py gives way to a module, as in Python's own search.
    return own.origin is not None or there.origin is None


def _is_own(name: str, folder: Path) -> bool:
    """Whether a module is the folder's, for a file in it."""
    first = name.partition(".")[0]
    there = _plain_spec(first)
    installed = there is not None and _is_installed(there)
    return not installed and PathFinder.find_spec(first, [str(folder)]) is not None


def _plain_spec(name: str) -> ModuleSpec | None:
    """What a plain name means; None where nothing has it, or a module that says not where it came from."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:
        return None


def _places(spec: ModuleSpec) -> set[str]:
    """The file of a module, or of a folder without a file the first place that it is looked up in."""
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())[:1]
    return {os.path.realpath(place) for place in places}


def _is_installed(spec: ModuleSpec) -> bool:
    """Whether a module comes with Python, or lies where packages are installed."""
    if not spec.has_location and not spec.submodule_search_locations:
        return True
    library = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    return any(
        _INSTALLED & set(Path(place).parts) or any(Path(place).is_relative_to(root) for root in library)
        for place in _places(spec)
    )


class _FreshSource(SourceFileLoader):
    """Compiles the file as it is now.

    Python's own cache of compiled files goes by size and whole seconds, so it misses a quick small edit.
    """

    def __init__(self, name: str, path: str, beside: Path) -> None:
        super().__init__(name, path)
        self._beside = beside

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        if not is_hidden(self._beside):
            return self._compiled(source)
        tree = ast.parse(source, self.path)
        return self._compiled(ast.fix_missing_locations(_Neighbours(self._beside).visit(tree)))

    def _compiled(self, source: Any) -> CodeType:
        code: CodeType = self.source_to_code(source, self.path)
        return code


class _Neighbours(ast.NodeTransformer):
    """Has imports of a folder's modules name its package: in the statement, which `torch.compile` reads."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._package = folder, module_name(folder)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if not node.level and node.module and _is_own(node.module, self._folder):
            node.module = f"{self._package}.{node.module}"
        return node

    def visit_Import(self, node: ast.Import) -> ast.Import:
        node.names = [new for alias in node.names for new in self._named(alias)]
        return node

    def _named(self, alias: ast.alias) -> list[ast.alias]:
        if not _is_own(alias.name, self._folder):
            return [alias]
        first = alias.name.partition(".")[0]
        names = [ast.alias(f"{self._package}.{alias.name}", alias.asname or first)]
        if alias.asname is None and first != alias.name:
            # `import a.b` has b imported, and a bound.
            names.append(ast.alias(f"{self._package}.{first}", first))
        return [ast.copy_location(name, alias) for name in names]


class _Finder(MetaPathFinder):
    """Finds the modules of the names above."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        first, _, inside = fullname.removeprefix(f"{__name__}.").partition(".")
        root = Path(_unquoted(first))
        if not inside:
            return _folder(fullname, root) if root.is_dir() else _file(fullname, root)
        spec = PathFinder.find_spec(fullname, list(path or ()))
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _FreshSource(fullname, spec.loader.path, root)
        return spec


def _unquoted(name: str) -> str:
    return os.fsdecode(re.sub(rb"_(..)", lambda found: bytes([int(found[1], 16)]), os.fsencode(name)))


def _folder(name: str, path: Path) -> ModuleSpec:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(path)]
    return spec


def _file(name: str, path: Path) -> ModuleSpec | None:
    if not path.is_file():
        return None
    return importlib.util.spec_from_file_location(
        name, path, loader=_FreshSource(name, str(path), path.parent)
    )


# At import, because a spawned process that unpickles a user's object imports this module and calls nothing;
# at the front, because Python's own would find what is inside a folder, and load it as any other module.
_FINDER: Any = _Finder()
sys.meta_path.insert(0, _FINDER)
