"""Reads the weights that a checkpoint holds, and runs nothing that it holds."""

from __future__ import annotations

import difflib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from normwright.errors import CheckpointError, OptionError
from normwright.lab.store.irregular import irregular

ENDINGS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_LONGEST_HEADER = 100_000_000  # bytes; what safetensors itself allows
_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds of a network.

    Args:
        path: the file.
        tensors: by name, on the CPU, as they were saved.
        left_out: names of what else the file holds, such as an optimiser's state.
    """

    path: Path
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...]


def read_weights(path: Path, *, key: str | None = None) -> Weights:
    """Reads a safetensors file, or what `torch.save` wrote, whichever it is: its name does not count.

    Pickled code is never run: what `torch.save` wrote is read by `torch.load(weights_only=True)`.

    Args:
        path: the file.
        key: which state dict to take, where the file holds several.
    Returns:
        The only state dict in the file: the whole, or the only one of its entries that is one.
    Raises:
        CheckpointError: there is no such file, or it is cut off, holds code, is of another kind, or holds no
            state dict or several.
        OptionError: the file has no entry `key`, or this is no state dict.
    """
    check_is_there(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as fault:
        raise _unreadable(path, fault) from fault
    if not start:
        raise CheckpointError(f"{path} must hold the weights of a network, but is empty: {_AGAIN}")
    if start.startswith((_ZIP, _PICKLE)):
        return _state_dict(path, _unpickled(path), key)
    if _begins_as_safetensors(start):
        return _state_dict(path, _safe(path), key)
    raise CheckpointError(
        f"{path} must be a safetensors file or what torch.save wrote, but is neither (it begins with "
        f"{start!r}): save the weights by torch.save(network.state_dict(), ...) or by safetensors"
    )


def check_is_there(path: Path) -> None:
    """Raises CheckpointError where there is no such file, or it is none; it is not opened."""
    try:
        _look_at(path)
    except OSError as fault:
        raise _unreadable(path, fault) from fault


def _unreadable(path: Path, fault: OSError) -> CheckpointError:
    return CheckpointError(f"{path} must be readable, but is not: {fault.strerror or fault}")


def _look_at(path: Path) -> None:
    kind = irregular(path)
    if kind is not None:
        raise CheckpointError(
            f"{path} must be a file, but is {kind}, and a checkpoint is read more than once: save it to a "
            "file"
        )
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.suffix in ENDINGS)
        raise CheckpointError(
            f"{path} must be a file, but is a folder: name the checkpoint in it "
            f"({', '.join(files[:10]) or 'it holds none'})"
        )
    if not path.exists():
        folder = path.parent
        there = folder.iterdir() if folder.is_dir() else ()
        near = {file.stem: file.name for file in there if file.suffix in ENDINGS}
        guess = [near[stem] for stem in difflib.get_close_matches(path.stem, near, n=3)]
        raise CheckpointError(
            f"{path} must be a checkpoint, but does not exist"
            + (f": did you mean {' or '.join(guess)}?" if guess else "")
        )


def _begins_as_safetensors(start: bytes) -> bool:
    """Eight bytes say how long the header is, and the header is JSON."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def _safe(path: Path) -> dict[str, Tensor]:
    try:
        # From memory and not by its mapping: the output may take this file's place.
        tensors: dict[str, Tensor] = load_safetensors(path.read_bytes())
    except (OSError, SafetensorError) as fault:
        raise CheckpointError(f"{path} is cut off or damaged ({fault}): {_AGAIN}") from fault
    return tensors


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old protocols, and of TorchScript, which is refused below
            # The open file and not its path, whose ending torch.load would go by.
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        raise CheckpointError(_holds_code(path)) from fault
    # A damaged file makes the reader raise nearly anything: RuntimeError, EOFError, KeyError, …
    except Exception as fault:
        if _is_program(path):
            raise CheckpointError(
                f"{path} must hold weights, but holds a compiled program (TorchScript, torch.export or "
                "torch.package): save the state dict of the network that it was made from"
            ) from fault
        found = str(fault).partition(". ")[0].partition("\n")[0] or type(fault).__name__
        raise CheckpointError(
            f"{path} is cut off or damaged, or not what torch.save wrote ({found:.150}): {_AGAIN}"
        ) from fault


def _holds_code(path: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # an old format, which it does not list
        names = []
    what = f": {', '.join(sorted(names)[:5])}" if names else ""
    return (
        f"{path} must hold tensors only, but holds pickled code{what}, which is never run: save the "
        "state dict alone, by torch.save(network.state_dict(), ...); where you trust the file, a script of "
        "your own can load it by torch.load(..., weights_only=False)"
    )


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return any(part.startswith(("code/", "models/", ".data/extern_modules")) for part in parts)


def _state_dict(path: Path, held: Any, key: str | None) -> Weights:
    entries = held if isinstance(held, Mapping) else {}
    if key is not None:
        return _entry(path, entries, key)
    if _is_state_dict(entries):
        return Weights(path, dict(entries), ())
    found = [str(name) for name, value in entries.items() if _is_state_dict(value)]
    if len(found) == 1:
        return _entry(path, entries, found[0])
    if found:
        raise CheckpointError(
            f"{path} must hold one state dict, but holds {len(found)}: choose one by --key "
            f"({', '.join(found)})"
        )
    _check_are_tensors(path, entries)
    holds = (
        f"the entries {', '.join(map(str, list(entries)[:10]))}" if entries else f"a {type(held).__name__}"
    )
    raise CheckpointError(
        f"{path} must hold a state dict, tensors by name, but holds {holds}: save network.state_dict()"
    )


def _entry(path: Path, entries: Mapping[str, Any], key: str) -> Weights:
    if not _is_state_dict(entries.get(key)):
        offered = [str(name) for name, value in entries.items() if _is_state_dict(value)]
        raise OptionError(
            f"{path} must have a state dict under the key {key!r}, but has none there: "
            + (f"it has {', '.join(offered)}" if offered else "leave --key out")
        )
    return Weights(path, dict(entries[key]), tuple(str(name) for name in entries if name != key))


def _check_are_tensors(path: Path, entries: Mapping[Any, Any]) -> None:
    """Names what keeps a state dict from being one, as the extra state of a module does."""
    others = [name for name, value in entries.items() if not isinstance(value, Tensor)]
    if others and len(others) < len(entries):
        raise CheckpointError(
            f"{path} must hold a state dict, tensors by name, but {str(others[0])!r} in it is of type "
            f"{type(entries[others[0]]).__name__}: save the tensors alone"
        )


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )
