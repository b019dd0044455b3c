"""Functions of the user's own, named `package.module:function` or `path/to/file.py:function`.

A module's folder is looked up as `python -m` would, so the current folder counts; a file's own folder counts
for what the file imports, as it would in `python file.py`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from normwright.errors import UserCodeError
from normwright.lab.sources import own_sources
from normwright.lab.user_files import module_name, name_in

IMAGES = "images:"

_being_run: list[Path] = []
# What the sources were, by path: of each file when its module ran, and of all when they were last imported.
_as_run: dict[str, dict[str, bytes]] = {}
_as_imported: dict[str, bytes] = {}


def is_user_code(name: str) -> bool:
    """Whether the name means a function of the user's own, and nothing that normwright offers.

    Example:
        >>> is_user_code("my/nets.py:wide"), is_user_code("lenet"), is_user_code("images:photos")
        (True, False, False)
    """
    return ":" in name and not name.startswith(IMAGES)


def resolve(name: str) -> Callable[..., Any]:
    """The function that the name means; its module is imported, or its file run, once.

    Args:
        name: `package.module:function` or `path/to/file.py:function`.
    Returns:
        The function, as the user's code made it.
    Raises:
        UserCodeError: there is no such file, module or function, or it cannot be called.
        Exception: whatever the user's code raises while it is imported, unchanged.
    Example:
        >>> resolve("math:sqrt")(9.0)
        3.0
    """
    where, function = _parts(name)
    module = _module(where)
    missing = object()
    found = getattr(module, function, missing)
    if found is missing:
        public = [n for n in vars(module) if not n.startswith("_")]
        raise UserCodeError(
            f"{where} must define {function!r}, but does not{_nearest(function, public, 'it defines')}"
        )
    if not callable(found):
        raise UserCodeError(
            f"{name} must be a function, but is of type {type(found).__name__}; "
            "name the function that makes it"
        )
    named: Callable[..., Any] = found
    return named


def digest(name: str) -> str:
    """SHA-256 of the source that the name's file or module part is made of, in hexadecimal.

    That is the file and what it imports from its own folder, or from beside its package (see `own_sources`);
    what is installed elsewhere does not count.

    Raises:
        UserCodeError: there is no such file or module, or the module has no file (one built into Python).
    """
    path, root, _ = source_of(name)
    return hashlib.sha256(b"\0".join(_read(file) for file in own_sources(path, root))).hexdigest()


def source_of(name: str) -> tuple[Path, Path, bool]:
    """The file of the name's file or module part, and the folder that its imports are looked up in.

    Returns:
        (path, folder, whether the name is that of a file and not of a module).
    Raises:
        UserCodeError: as of `digest`.
    """
    where, _ = _parts(name)
    if _is_path(where):
        path = _existing_file(where)
        return path, path.parent, True
    source: str | None = getattr(_module(where), "__file__", None)
    if source is None:
        raise UserCodeError(
            f"{where} must have a source file, so that a changed function is seen, but has none; "
            "define a function in a file of your own that calls it"
        )
    path = Path(source)
    return path, path.parents[where.count(".") + (path.name == "__init__.py")], False


def name_of(function: Callable[..., Any]) -> str:
    """The name by which `resolve` finds a function again, here and in other processes.

    Args:
        function: defined at the top level of a file.
    Returns:
        `path/to/file.py:function`, with the whole path.
    Raises:
        UserCodeError: a lambda, a function inside another, or one without a file.
    """
    qualified = getattr(function, "__qualname__", None)
    if qualified is None:
        raise UserCodeError(
            f"a network or data set of your own must be a function that makes it, but came as a "
            f"{type(function).__name__}: write a function at the top level of a file that returns it"
        )
    try:
        path = inspect.getsourcefile(function)
    except TypeError:
        path = None
    if path is None or not Path(path).is_file() or not qualified.isidentifier():
        raise UserCodeError(
            f"a function of your own must stand at the top level of a file, so that every process finds it "
            f"again, but {qualified} does not: move it there, or name it as path/to/file.py:function"
        )
    return f"{Path(path).resolve()}:{qualified}"


def not_while_importing() -> None:
    """Stops a script that would start its own experiment again while its functions are imported.

    Raises:
        UserCodeError: called from the top level of a file that `resolve` is running.
    """
    if _being_run:
        raise UserCodeError(
            f"{_being_run[-1]} starts an experiment while it is imported for its functions: put the call "
            'under `if __name__ == "__main__":`'
        )


def _parts(name: str) -> tuple[str, str]:
    # From the right, because a path on Windows begins with a drive and a colon.
    where, _, function = name.rpartition(":")
    dotted = _is_path(where) or all(part.isidentifier() for part in where.split("."))
    if not (where and dotted and function.isidentifier()):
        raise UserCodeError(
            "a function of your own must be named package.module:function or path/to/file.py:function, "
            f"but came {name!r}"
        )
    return where, function


def _is_path(where: str) -> bool:
    return where.endswith(".py") or "/" in where or "\\" in where


def _module(where: str) -> ModuleType:
    return _run_file(_existing_file(where)) if _is_path(where) else _import(where)


def _run_file(path: Path) -> ModuleType:
    """The module that the file is: run once, and anew when it or a neighbour that it imports was edited."""
    name = module_name(path)
    sources = {str(source): _read(source) for source in own_sources(path, path.parent)}
    if name in sys.modules and _as_run.get(name) == sources:
        return sys.modules[name]
    edited = {source for source, text in sources.items() if _as_imported.get(source, text) != text}
    if edited:
        _forget({source for run in _as_run.values() if edited & run.keys() for source in run} | edited)
    sys.modules.pop(name, None)
    _as_imported.update(sources)
    _as_run[name] = sources
    _importable_from(path.parent)
    _being_run.append(path)
    try:
        return importlib.import_module(name)
    finally:
        _being_run.pop()


def _forget(paths: Collection[str]) -> None:
    """Has the files imported anew: one of them was edited since they were."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) in paths and name != "__main__":
            del sys.modules[name]
    importlib.invalidate_caches()


def _import(where: str) -> ModuleType:
    here = Path.cwd()
    _importable_from(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name_in(here, where))
    except ModuleNotFoundError as fault:
        missing = (fault.name or "").removeprefix(f"{module_name(here)}.")
        if missing != where and not where.startswith(missing + "."):
            raise
        raise UserCodeError(_no_module(where, missing)) from fault


def _importable_from(folder: Path) -> None:
    # At the end, so that a user's file never hides an installed package.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _no_module(where: str, missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    folders = getattr(sys.modules.get(parent), "__path__", []) if parent else None
    names = [info.name for info in pkgutil.iter_modules(folders)]
    near = difflib.get_close_matches(last, names, n=3, cutoff=0.5)
    guess = (
        f"did you mean {' or '.join(repr(f'{parent}.{n}' if parent else n) for n in near)}? " if near else ""
    )
    return (
        f"the module {where!r} must exist, but {missing!r} was not found; {guess}"
        f"It is looked for in the current folder ({Path.cwd()}) and among the installed packages; "
        "a file may also be named by its path, path/to/file.py:function"
    )


def _existing_file(where: str) -> Path:
    path = Path(where).expanduser().resolve()
    if path.is_file():
        return path
    if not path.parent.is_dir():
        raise UserCodeError(f"{where} must be a file, but the folder {path.parent} does not exist")
    files = sorted(file.name for file in path.parent.iterdir() if file.suffix == ".py" and file.is_file())
    what = "is a folder" if path.is_dir() else "does not exist"
    raise UserCodeError(
        f"{where} must be a file, but {what}{_nearest(path.name, files, f'{path.parent} has')}"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise UserCodeError(
            f"{path} must be readable, but is not: {fault.strerror}; see its permissions"
        ) from fault


def _nearest(name: str, known: Iterable[str], intro: str) -> str:
    """What to try instead: the nearest names, and what there is (ten names at most)."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    guess = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"{guess} ({intro}: {shown or 'nothing'})"
