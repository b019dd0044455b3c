"""Says at which module of a network its data stopped, from the traceback of an exception."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import normwright
from normwright.network.calling import tensors_of
from normwright.network.trace import first_line

# By their files: the first place of an editable package's path may be where its compiled parts are.
_TORCH, _OURS = (Path(inspect.getfile(package)).parent for package in (torch, normwright))

# What PyTorch raises where the shape, the dtype or a value of an input is none that a module takes.
_REFUSALS = (RuntimeError, ValueError, IndexError, TypeError)
_OTHER = (NotImplementedError, RecursionError, torch.OutOfMemoryError)


@dataclass(frozen=True)
class Misfit:
    """Where a network's call stopped.

    Args:
        line: which module was given what, and the exception.
        by_torch: PyTorch itself refused what one of its own operators was given; else code of the network
            raised, of which the traceback tells more.
        module: which it is.
    """

    line: str
    by_torch: bool
    module: nn.Module


def misfit_of(error: BaseException) -> Misfit | None:
    """Where a network's call stopped with the exception; None where it was raised outside of one."""
    frames = list(_frames(error))
    calls = [frame for frame in frames if frame.f_code is nn.Module._call_impl.__code__]
    if not calls or not isinstance(error, _REFUSALS) or isinstance(error, _OTHER):
        return None
    network, module = (calls[place].f_locals["self"] for place in (0, -1))
    name = next((name for name, held in network.named_modules() if held is module), "")
    given = tensors_of([calls[-1].f_locals["args"], calls[-1].f_locals["kwargs"]])
    what = ", ".join(map(_in_words, given)) or "no tensor"
    who = f"{name!r}, a {type(module).__name__} of the network," if name else "the network"
    line = f"what the network is given must fit it, but {who} was given {what}: {first_line(error)}"
    raised_in = next((file for frame in reversed(frames) if not _is_in(_OURS, file := _file(frame))), None)
    return Misfit(line, raised_in is not None and _is_in(_TORCH, raised_in), module)


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback: Any = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _file(frame: FrameType) -> Path:
    return Path(frame.f_code.co_filename)


def _is_in(package: Path, file: Path) -> bool:
    return package in file.parents


def _in_words(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype}"
