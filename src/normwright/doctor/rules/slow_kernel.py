"""A normaliser that no fused kernel serves."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser without a kernel; one for the network where the device has none."""
    for kernel in evidence.kernels:
        if kernel.without:
            message = f"plain PyTorch serves every normaliser on {kernel.device}: {kernel.without}"
            yield Fault("", message)
            return
    where = {normaliser.name: normaliser.where for normaliser in evidence.normalisers}
    for kernel in evidence.kernels:
        if not kernel.served:
            message = f"no fused kernel serves it: {kernel.reason}"
            yield Fault(kernel.name, message, where=where.get(kernel.name, ""))


def healthy() -> Subject:
    """Normalisers of PyTorch's own classes."""
    return _subject(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.ReLU())


def sick() -> Subject:
    """Local response norm, and a batch norm that does its own arithmetic."""
    return _subject(nn.LocalResponseNorm(2), _ByHand(4))


class _ByHand(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.eps)


def _subject(*norms: nn.Module) -> Subject:
    return Subject(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), *norms), (torch.randn(4, 3, 8, 8),))


RULE = Rule(
    name="slow_kernel",
    what="No fused kernel serves a normaliser.",
    why="A normaliser is bound by memory: each pass over its input that a fused kernel would save costs "
    "about as much as a copy of it.",
    advice="Use the class or function of PyTorch or normwright that does the same, then nw.accelerate.",
    references=("nw.accelerate", "nw.backends"),
    severity="note",
    check=check,
    healthy=healthy,
    sick=sick,
    static=True,
)
