"""A user's files on another machine: the sources of what a recipe names, sent as text, written down there."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from normwright.lab.recipe import Recipe
from normwright.lab.sources import own_sources
from normwright.lab.user_code import is_user_code, source_of
from normwright.lab.user_files import is_installed


@dataclass(frozen=True)
class Shipment:
    """The sources of a user's networks, losses and metrics, with what they import from beside themselves.

    Those are the files of which `user_code.digest` is made, and the `__init__.py` of their packages. What is
    installed is left where it is: the other machine must have it, as what the code reads besides.

    Args:
        files: content by path; paths are relative to any folder that stands for the root of this machine.
        names: by the name of each function that stands in a file, the file and the function there.
        roots: folders in which modules are looked up there.
        current: the current folder, in which they are looked up as well.
    """

    files: dict[str, bytes]
    names: dict[str, tuple[str, str]]
    roots: tuple[str, ...]
    current: str

    @classmethod
    def of(cls, recipes: Iterable[Recipe]) -> Shipment:
        """What the runs of these recipes need.

        Raises:
            UserCodeError: a file or module is missing.
        """
        files: dict[str, bytes] = {}
        names: dict[str, tuple[str, str]] = {}
        roots: dict[str, None] = {}
        for name in dict.fromkeys(name for recipe in recipes for name in _named(recipe)):
            path, root, is_file = source_of(name)
            if not is_file and is_installed(path):
                continue
            files |= {_below(file): file.read_bytes() for file in _with_packages(path, root)}
            if is_file:
                names[name] = _below(path), name.rpartition(":")[2]
            else:
                roots[_below(root)] = None
        return cls(files, names, tuple(roots), _below(Path.cwd()))

    def unpack(self, folder: Path) -> None:
        """Writes the files below a folder, and has this process find the modules there first.

        The machine may have other files, older ones, at the paths that the files have here. Python would find
        them before: Ray has its processes look into the folders of the script and of the shell that call it.
        """
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if not self.roots:
            return
        own = {*self.roots, self.current}
        theirs = [entry for entry in sys.path if _below(Path(entry).absolute()) in own]
        # At the end, so that a user's file never hides an installed package.
        sys.path[:] = [entry for entry in sys.path if entry not in theirs]
        sys.path += [*(str(folder / root) for root in self.roots), *theirs]
        current = folder / self.current
        current.mkdir(parents=True, exist_ok=True)
        os.chdir(current)

    def at(self, folder: Path, recipe: Recipe) -> Recipe:
        """The same recipe with its names led to the files below the folder."""

        def led(name: str) -> str:
            if name not in self.names:
                return name
            file, function = self.names[name]
            return f"{folder / file}:{function}"

        network, training = recipe.network, recipe.training
        return dataclasses.replace(
            recipe,
            network=dataclasses.replace(network, name=led(network.name)),
            training=dataclasses.replace(training, loss=led(training.loss), metric=led(training.metric)),
        )


def _named(recipe: Recipe) -> list[str]:
    names = (recipe.network.name, recipe.training.loss, recipe.training.metric)
    return [name for name in names if is_user_code(name)]


def _with_packages(path: Path, root: Path) -> set[Path]:
    """The file's own sources, and the `__init__.py` of every package that one of them lies in."""
    files: set[Path] = set()
    waiting = {path}
    while waiting:
        files |= {source for file in waiting for source in own_sources(file, root)}
        packages = {
            folder / "__init__.py"
            for file in files
            for folder in file.parents
            if folder != root and folder.is_relative_to(root)
        }
        waiting = {package for package in packages if package.is_file()} - files
    return files


def _below(path: Path) -> str:
    return path.relative_to(path.anchor).as_posix()
