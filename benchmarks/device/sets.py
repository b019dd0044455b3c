"""The sets of cases that are measured on a GPU; each entry is cases that differ only in their mode."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.cases import Case, has_channels_last
from benchmarks.device.goals import COMPILED, DEVICE_HEADLINE, MODES
from benchmarks.device.measure import in_modes
from benchmarks.shapes import frozen

Entries = list[tuple[Case, ...]]

# Batches that fill a GPU, in place of those that suit a CPU.
BATCHES = {"resnet50": 256, "unet3d": 8, "diffusion": 64, "transformer": 64, "transformer_rms": 64}


def headline() -> Entries:
    """The rows by which the kernels are judged."""
    steps = [case for case in DEVICE_HEADLINE if case.mode == "step"]
    return [in_modes(case, MODES) for case in steps]


def compiled() -> Entries:
    """Those of them that `torch.compile` takes part in."""
    return [in_modes(case, MODES) for case in COMPILED]


def networks() -> Entries:
    """Every distinct normaliser of the networks in bfloat16, a step; channels-last where there are images."""
    entries: Entries = []
    for case, _ in frozen():
        layout = "channels-last" if has_channels_last(case) and len(case.shape) == 4 else "contiguous"
        shape = (BATCHES[case.source], *case.shape[1:])
        entries.append((replace(case, shape=shape, dtype="bfloat16", layout=layout, mode="step"),))
    return entries
