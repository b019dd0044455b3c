"""Checkpoints: safetensors files, which hold tensors and nothing that could run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from normwright.errors import StoreError
from normwright.lab.store.file import fault


def save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a checkpoint so that the file under its name is whole or absent, whenever the process dies.

    Raises:
        StoreError: the disk is full or refuses; what was half-written is removed.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(part, serialise(_apart(tensors), metadata={"format": "pt"}))
        os.replace(part, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise fault(path, error) from error
    finally:
        _remove(part)


def load(path: Path) -> dict[str, Tensor]:
    """Reads a checkpoint.

    Raises:
        StoreError: it is missing, half-written or unreadable.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError as error:
        raise StoreError(
            f"{path}: the checkpoint is missing; run the same command again to train it"
        ) from error
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{path}: the checkpoint is half-written or unreadable ({error}); "
            "delete it and run the same command again"
        ) from error
    return tensors


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on the CPU, each in memory of its own: safetensors refuses tied weights and views."""
    apart: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != plain.nbytes:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        apart[name] = plain
    return apart


def _write(part: Path, content: bytes) -> None:
    # Not by safetensors' save_file: killed, it leaves a file of a random name, which no later save replaces.
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Waits until the folder's list of files is on the disk."""
    if os.name == "nt":
        return  # Windows opens no folder
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:
        return  # the folder is gone or unwritable, which the first error already says
