"""The members of the family with operators of their own, beside batch norm on the same tensor, on a GPU.

Statistics over parts of a batch read and write what batch norm does: x is read twice and y written in the
forward, dy and x are read twice and dx written in the backward, 4 copies in all; what no part holds is not
read. Dynamic tanh has no moments to wait for, and takes 2.5.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import IO

import torch
from torch import Tensor, nn

from benchmarks.device.clock import clock_of, in_turn
from benchmarks.device.deadline import Deadline
from benchmarks.device.isolated import NotRun, run_jobs
from benchmarks.device.report import Outcome
from benchmarks.device.sections import Section
from benchmarks.family import mixed, padded
from benchmarks.markdown import bullets, figure, table
from normwright import nn as fused

_IMAGES, _DEEP, _SEQUENCES, _TOKENS = (64, 256, 56, 56), (256, 2048, 7, 7), (64, 1024, 800), (64, 512, 1024)
_PARTS, _TANH = 4.0, 2.5


@dataclass(frozen=True)
class Member:
    """A member on a shape.

    Args:
        name: one of `MEMBERS`.
        shape: of x.
        layout: "contiguous" or "channels-last".
        dtype: torch's name of it.
        device: torch's name of it.
        seconds: to spend on the repetitions.
        least: repetitions.
    """

    name: str
    shape: tuple[int, ...]
    layout: str = "contiguous"
    dtype: str = "bfloat16"
    device: str = "cuda"
    seconds: float = 0.25
    least: int = 11

    @property
    def place(self) -> str:
        """All of it on one line."""
        return f"{self.name}, {'×'.join(map(str, self.shape))} {self.layout} {self.dtype}"


@dataclass(frozen=True)
class Measured:
    """Seconds of a step, of "copy", "member" and "batch norm"; whose times hold the host's."""

    member: Member
    seconds: dict[str, float]
    waited: tuple[str, ...]

    @property
    def copies(self) -> float:
        """Of the member."""
        return self.seconds["member"] / self.seconds["copy"]

    @property
    def ratio(self) -> float:
        """To batch norm."""
        return self.seconds["member"] / self.seconds["batch norm"]


def _in_halves(member: Member) -> nn.Module:
    return mixed(member.shape[1], torch.arange(member.shape[0]) * 2 // member.shape[0])


def _in_turn(member: Member) -> nn.Module:
    return mixed(member.shape[1], torch.arange(member.shape[0]) % 2)


# By name: the least copies of a step, and the module.
MEMBERS: dict[str, tuple[float, Callable[[Member], nn.Module]]] = {
    "ghost batch norm, 8": (_PARTS, lambda member: fused.GhostBatchNorm2d(member.shape[1], ghost_size=8)),
    "split batch norm, two halves": (_PARTS, _in_halves),
    "split batch norm, samples in turn": (_PARTS, _in_turn),
    # Half of x and dy are read, twice; y and dx are written whole.
    "masked batch norm, half counts": (0.5 * _PARTS + 0.5, lambda member: padded(member.shape)),
    "dynamic tanh": (_TANH, lambda member: fused.DynamicTanh(member.shape[1], axis=1)),
    "dynamic tanh, last axis": (_TANH, lambda member: fused.DynamicTanh(member.shape[-1])),
}


def members() -> Iterator[Member]:
    """Every member on the shapes that it is used on."""
    sequences, tokens = "masked batch norm, half counts", "dynamic tanh, last axis"
    for name in MEMBERS:
        if name in (sequences, tokens):
            yield Member(name, _SEQUENCES if name == sequences else _TOKENS)
            continue
        for layout in ("channels-last", "contiguous"):
            yield Member(name, _IMAGES, layout)
        yield Member(name, _DEEP)


def family_section(options: argparse.Namespace) -> Section:
    """The section."""
    return Section("family", 20.0, 90.0, partial(_measure, options))


def measure_member(member: Member) -> Measured:
    """A step of the member, of batch norm, and a copy, in turn."""
    device = torch.device(member.device)
    x = torch.randn(member.shape, device=device).to(getattr(torch, member.dtype))
    if member.layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last)
    batch_norm = (fused.BatchNorm2d if x.dim() == 4 else fused.BatchNorm1d)(x.shape[1])
    target, clock = torch.empty_like(x), clock_of(device)
    tasks: dict[str, Callable[[], object]] = {
        "copy": lambda: target.copy_(x),
        "member": _step(MEMBERS[member.name][1](member).to(device), x),
        "batch norm": _step(batch_norm.to(device), x),
    }
    timings = in_turn(tasks, clock, seconds=member.seconds, least=member.least)
    repeats = len(timings["copy"].seconds)
    waited = tuple(name for name in timings if 4 * clock.waited[name] > repeats)
    return Measured(member, {name: timing.median for name, timing in timings.items()}, waited)


def _step(module: nn.Module, x: Tensor) -> Callable[[], object]:
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    leaves, dy = (leaf, *module.parameters()), torch.randn_like(x)
    return lambda: torch.autograd.grad(module(leaf), leaves, dy)


def _rehearsed(member: Member) -> Member:
    shape = (16, 8, *(min(size, 8) for size in member.shape[2:]))
    return replace(member, shape=shape, device="cpu", seconds=0.0, least=2)


def _measure(options: argparse.Namespace, deadline: Deadline, log: IO[str] | None) -> Iterator[Outcome]:
    jobs = [
        _rehearsed(member) if options.rehearse else replace(member, device=options.device)
        for member in members()
    ]
    rows: list[Measured] = []
    trouble: list[str] = []
    for number, result in run_jobs(measure_member, jobs, deadline=deadline, log=log):
        if isinstance(result, Measured):
            rows.append(result)
        else:
            words = "no time was left" if isinstance(result, NotRun) else f"failed: {result.reason}"
            trouble.append(f"{jobs[number].place}: {words}")
        yield _outcome(rows, trouble)


def _outcome(rows: Sequence[Measured], trouble: Sequence[str]) -> Outcome:
    first = f"**{len(rows)} members of the family measured**"
    head = ("member", "shape", "layout", "step, copies", "least", "fraction", "to batch norm", "waited for")
    cells = [
        (
            *(row.member.name, "×".join(map(str, row.member.shape)), row.member.layout),
            *(figure(row.copies), figure(_least(row)), figure(_least(row) / row.copies), figure(row.ratio)),
            ", ".join(row.waited),
        )
        for row in rows
    ]
    lines = [
        f"{row.member.place}: {row.copies:.2f} copies of at least {_least(row):.1f}, "
        f"{row.ratio:.2f} of batch norm's time"
        for row in rows
    ]
    markdown = "\n\n".join(part for part in (first, bullets(trouble), table(head, cells)) if part)
    return Outcome("The family", markdown, {"rows": rows, "trouble": trouble}, [first, *trouble, *lines])


def _least(row: Measured) -> float:
    return MEMBERS[row.member.name][0]
