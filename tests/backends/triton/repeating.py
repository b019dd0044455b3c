"""Repeats calls as on a GPU, with Triton's interpreter in place of what it compiles where there is no GPU."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor

from normwright.backends.triton import interprets, replay
from normwright.backends.triton.interpreter import quietly
from normwright.backends.triton.launch import Launch
from normwright.backends.triton.recording import Address, Recording


def _at(pointer: int, address: Address) -> Tensor:
    """The tensor that a pointer stands for."""
    last = sum((size - 1) * stride for size, stride in zip(address.shape, address.strides, strict=True))
    memory = (ctypes.c_byte * ((last + 1) * address.dtype.itemsize)).from_address(pointer)
    return torch.frombuffer(memory, dtype=address.dtype).as_strided(address.shape, address.strides)


class Interpreted:
    """What a launch of the interpreter leaves in place of Triton's CompiledKernel: it takes pointers, too."""

    function = packed_metadata = None

    def __init__(self, launch: Launch) -> None:
        self.launch = launch

    def run(self, x, y, z, stream, function, metadata, launch_metadata, enter, leave, *arguments) -> None:
        """As Triton's."""
        kernel, _, _, num_warps, _ = self.launch
        places = zip(arguments, self.launch.arguments, strict=True)
        values = [_at(value, place) if isinstance(place, Address) else value for value, place in places]
        with quietly():
            kernel[x, y, z](*values, num_warps=num_warps)


class Repeater:
    """Prepares recordings, and counts how often each way is gone."""

    def __init__(self, monkeypatch) -> None:
        self.ordinary = self.recorded = self.repeated = 0
        if interprets():
            active = SimpleNamespace(get_current_device=lambda: None, get_current_stream=lambda device: 0)
            monkeypatch.setattr(replay, "driver", SimpleNamespace(active=active))
            monkeypatch.setattr(replay, "_is_repeatable", lambda launch: True)

    def operator(self, ordinary, tensors):
        """The operator, repeated."""

        def counted(*call):
            self.ordinary += 1
            return ordinary(*call)

        return replay.replayed(counted, tensors, self._prepare)

    def _prepare(self, recording: Recording, given: int, device: torch.device):
        self.recorded += 1
        if interprets():
            launches = [launch._replace(compiled=Interpreted(launch)) for launch in recording.launches]
            recording = replace(recording, launches=tuple(launches))
        prepared = replay.compiled_replay(recording, given, device)

        def repeat(addresses):
            self.repeated += 1
            return prepared(addresses)

        return repeat
