"""A user's files as modules: one for each path, under a name that leads back to it in any process.

The module of `/home/me/nets.py` is `normwright.lab.user_files._2fhome_2fme_2fnets_2epy`. So two files named
`nets.py` are two modules, and what is pickled of either is found again by a process that was just spawned.

What a file imports from beside it is a module under its plain name (`layers`), as in `python nets.py`, as
long as that name means the file's neighbour. A neighbour that is hidden by a module elsewhere, such as
`b/layers.py` after `a/layers.py`, is a module of the folder instead, and so is every neighbour that imports
a hidden one: `normwright.lab.user_files._2fb.layers`.

This is done to import statements. `importlib.import_module("layers")` and `__import__("layers")` get what the
plain name means, which may be the other folder's: a file that may share a process with such another should
use an import statement, in a function where it must be late.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Set
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from normwright.errors import UserCodeError
from normwright.lab.sources import parsed

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
    return f"{module_name(folder)}.{name}" if is_moved(name.partition(".")[0], folder) else name


def is_moved(name: str, folder: Path) -> bool:
    """Whether a module is the folder's package's, for a file in the folder.

    It is where its plain name means another user's file, or where it imports such a module of the folder,
    itself or through others: by its plain name it would find that other file. A module that was imported by
    its plain name already stays what it is, so that there is one of it.

    What is installed hides nothing: a user's file never stands in for it.

    Args:
        name: without a dot.
        folder: whose file imports it.
    """
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        own = None if name in seen else _own_spec(name, folder)
        seen.add(name)
        if own is None or _is_imported(own):
            continue
        if _is_hidden(own):
            return True
        waiting += [name for file in _sources(own) for name in _imports_of(file)]
    return False


def _is_hidden(own: ModuleSpec) -> bool:
    there = _plain_spec(own.name)
    return there is not None and _places(own) != _places(there)


def _is_imported(own: ModuleSpec) -> bool:
    """Whether the module of this very file was imported by its plain name."""
    module = sys.modules.get(own.name)
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return place is not None and os.path.realpath(place) in _places(own)


def _own_spec(name: str, folder: Path) -> ModuleSpec | None:
    """A module of the folder, if that is what a file in it may mean by the name."""
    there = _plain_spec(name)
    if there is not None and _is_installed(there):
        return None
    own = PathFinder.find_spec(name, [str(folder)])
    if own is None or own.origin is not None:
        return own
    # A folder without __init__.py gives way to a module, as in Python's own search; one without any source,
    # such as data/, is no package for its author.
    gives_way = there is not None and there.origin is not None
    return None if gives_way or not any(_sources(own)) else own


def _sources(own: ModuleSpec) -> Iterator[Path]:
    """The Python files of a module, or of all modules of a package."""
    if own.submodule_search_locations is None:
        yield from (Path(place) for place in _places(own) if place.endswith(".py"))
        return
    top = next(iter(own.submodule_search_locations))
    for folder, inner, files in os.walk(top):
        sources = [Path(folder, file) for file in files if file.endswith(".py")]
        if not sources and folder != top:
            inner.clear()  # it may hold a million images
        yield from sources


def _imports_of(file: Path) -> Set[str]:
    try:
        return _imported(file.read_bytes())
    except OSError:
        return frozenset()


# By content: each file is asked about whenever one that leads to it is imported.
@functools.lru_cache(maxsize=1024)
def _imported(source: bytes) -> Set[str]:
    """The first parts of the names in a source's import statements, relative ones aside."""
    names: set[str] = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return frozenset(name.partition(".")[0] for name in names)


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
    return any(is_installed(Path(place)) for place in _places(spec))


def is_installed(path: Path) -> bool:
    """Whether a file comes with Python, or lies where packages are installed."""
    return bool(_INSTALLED & set(path.parts)) or any(path.is_relative_to(root) for root in _library())


@functools.cache
def _library() -> list[Path]:
    return [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]


class _FreshSource(SourceFileLoader):
    """Compiles the file as it is now.

    Python's own cache of compiled files goes by size and whole seconds, so it misses a quick small edit.
    """

    def __init__(self, name: str, path: str, beside: Path) -> None:
        super().__init__(name, path)
        self._beside = beside

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        if b"\0" in source:  # of which Python's own words do not name the file
            raise UserCodeError(
                f"{self.path} must be Python source, but holds a NUL byte: see what file it is"
            )
        moved = {name for name in _imported(source) if is_moved(name, self._beside)}
        if not moved:
            return self._compiled(source)
        tree = ast.parse(source, self.path)
        named = _Neighbours(module_name(self._beside), moved).visit(tree)
        return self._compiled(ast.fix_missing_locations(named))

    def _compiled(self, source: Any) -> CodeType:
        code: CodeType = self.source_to_code(source, self.path)
        return code


class _Neighbours(ast.NodeTransformer):
    """Has imports of moved modules name their package: in the statement, which `torch.compile` reads."""

    def __init__(self, package: str, moved: Set[str]) -> None:
        self._package, self._moved = package, moved

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if not node.level and node.module and node.module.partition(".")[0] in self._moved:
            node.module = f"{self._package}.{node.module}"
        return node

    def visit_Import(self, node: ast.Import) -> ast.Import:
        node.names = [new for alias in node.names for new in self._named(alias)]
        return node

    def _named(self, alias: ast.alias) -> list[ast.alias]:
        first = alias.name.partition(".")[0]
        if first not in self._moved:
            return [alias]
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
        root = _unquoted(first)
        if root is None:
            return None
        if not inside:
            return _folder(fullname, root) if root.is_dir() else _file(fullname, root)
        spec = PathFinder.find_spec(fullname, list(path or ()))
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _FreshSource(fullname, spec.loader.path, root)
        return spec


def _unquoted(name: str) -> Path | None:
    """The absolute path that the last part of a module's name leads back to, if it is such a name."""
    if not re.fullmatch("([0-9A-Za-z]|_[0-9a-f]{2})+", name):
        return None
    path = Path(os.fsdecode(re.sub(rb"_(..)", lambda found: bytes([int(found[1], 16)]), name.encode())))
    return path if path.is_absolute() else None


def _folder(name: str, path: Path) -> ModuleSpec:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(path)]
    return spec


def _file(name: str, path: Path) -> ModuleSpec | None:
    if not path.is_file():
        return None
    spec = _FileSpec(name, _FreshSource(name, str(path), path.parent), origin=str(path))
    spec.has_location = True
    return spec


class _FileSpec(ModuleSpec):
    """Of a file that is in no package for its author, so that a relative import is Python's own error.

    Python compares a module's `__package__` with this, and warns where they differ.
    """

    @property
    def parent(self) -> str:
        return ""


# At import, because a spawned process that unpickles a user's object imports this module and calls nothing;
# at the front, because Python's own would find what is inside a folder, and load it as any other module.
_FINDER: Any = _Finder()
sys.meta_path.insert(0, _FINDER)
