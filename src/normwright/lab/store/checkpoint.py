"""Checkpoints: safetensors files, which hold tensors and nothing that could run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from normwright.errors import StoreError
from normwright.lab.store.file import fault
from normwright.lab.store.whole import write_by_draft


def save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a checkpoint so that the file under its name is whole or absent, whenever the process dies.

    Raises:
        StoreError: the disk is full or refuses; what was half-written is removed.
    """
    # A draft of one name: what a killed run left is replaced by the next, and two never train one run.
    draft = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_by_draft(path, serialised(tensors), draft)
    except (OSError, SafetensorError) as error:
        raise fault(path, error) from error


def serialised(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a safetensors file, with metadata beside the format.

    Raises:
        SafetensorError: a dtype or layout that safetensors does not know.
    """
    return serialise(_apart(tensors), metadata={"format": "pt", **(metadata or {})})


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
