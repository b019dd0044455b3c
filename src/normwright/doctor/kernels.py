"""Which fused kernel would serve each normaliser, and why none would."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KernelFacts:
    """What `nw.accelerate` says of one normaliser.

    Args:
        name: qualified.
        kind: its class's name.
        served: a fused kernel serves it, or would after `nw.accelerate`.
        fused: what is computed with it: "relu", "residual + relu".
        backend: that serves the network's device: "native", "triton" or "eager".
        reason: why no fused kernel serves it, or why nothing is computed with it; or "".
    """

    name: str
    kind: str
    served: bool
    fused: tuple[str, ...]
    backend: str
    reason: str
