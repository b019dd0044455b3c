"""Inverse square roots of covariance matrices, differentiable to any order.

The derivatives are those of the root, not of the eigenvectors that it is computed by: see
`reference/whitening.py`. Matrices are small and float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from normwright.backends.devices import is_captured

# Steps of Newton's iteration that give the root itself. Each scales the smallest directions by 1.5, until
# they are near; the last six square their distance. 42 reach a share of the trace of 1.5^(−84), 2·10^(−15),
# below which a float64 covariance is rounding.
_CONVERGED = 48

_graphs_are_only_read = False  # no context variable: Dynamo reads none, and comes by here in a strict export


@contextmanager
def graphs_that_are_only_read() -> Iterator[None]:
    """Within, an exported program takes eigenvalues as other code does: it is to run nowhere else.

    Newton's iteration is some three hundred operators, which take a second to trace, for each layer.
    """
    global _graphs_are_only_read
    before, _graphs_are_only_read = _graphs_are_only_read, True
    try:
        yield
    finally:
        _graphs_are_only_read = before


def projection_of(covariance: Tensor, eps: float, method: str, iterations: int) -> Tensor:
    """(Σ + eps·I)^(−1/2) of each (…, d, d) symmetric Σ; NaN where Σ is not finite.

    Args:
        covariance: float64.
        eps: above 0; 0 where every eigenvalue is.
        method: "zca", exact, by eigenvalues; "iterative", by Newton and Schulz.
        iterations: of the latter.
    """
    if method == "iterative":
        return _newton_schulz(covariance, eps, iterations)
    if _goes_without_eigenvalues(covariance):
        return _without_eigenvalues(covariance, eps)
    kind = _InverseRoot if torch.compiler.is_compiling() else _InverseRootBothWays
    projection: Tensor = kind.apply(covariance, eps)[0]
    return projection


def _goes_without_eigenvalues(covariance: Tensor) -> bool:
    """ONNX has none, an exported program may run where LAPACK is not, and a CUDA graph waits for nothing."""
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return torch.compiler.is_exporting() and not _graphs_are_only_read
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    return tracing or is_captured(covariance)


class _InverseRoot(torch.autograd.Function):
    """(Σ + eps·I)^(−1/2), and the eigenvectors and roots that it is made of."""

    generate_vmap_rule = True

    @staticmethod
    def forward(covariance: Tensor, eps: float) -> Any:
        known = covariance.isfinite().all(-1).all(-1)[..., None, None]
        identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        # LAPACK fails on NaN, for every matrix of the batch; each group answers for itself alone.
        values, vectors = torch.linalg.eigh(torch.where(known, covariance, identity))
        # A covariance has no eigenvalue below 0; its rounding has.
        roots = (values.clamp_min(0.0) + eps).sqrt()
        projection = (vectors / roots.unsqueeze(-2)) @ vectors.mT
        return torch.where(known, projection, math.nan), vectors, roots

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        covariance, ctx.eps = inputs
        projection, vectors, roots = output
        ctx.mark_non_differentiable(vectors, roots)
        ctx.save_for_backward(covariance, projection, vectors, roots)
        ctx.save_for_forward(covariance, projection, vectors, roots)

    @staticmethod
    def backward(ctx: Any, dprojection: Tensor, *_: Any) -> Any:
        # R·dΣ + dΣ·R = −P·dP·P
        root, projection, vectors, roots = _root(ctx)
        right = -projection @ _symmetric(dprojection) @ projection
        return _solved(root, right, vectors, roots), None


class _InverseRootBothWays(_InverseRoot):
    """With forward mode, which the compiler does not trace."""

    @staticmethod
    def jvp(ctx: Any, dcovariance: Tensor, *_: Any) -> Any:
        # dP = −P·dR·P, where R·dR + dR·R = dΣ
        root, projection, vectors, roots = _root(ctx)
        droot = _solved(root, _symmetric(dcovariance), vectors, roots)
        return -projection @ droot @ projection, None, None


def _root(ctx: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R = P⁻¹ = (Σ + eps·I)·P, as a function of Σ for the next derivative; P, and what they are made of."""
    covariance, projection, vectors, roots = ctx.saved_tensors
    return covariance @ projection + ctx.eps * projection, projection, vectors, roots


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


class _Lyapunov(torch.autograd.Function):
    """The Y of R·Y + Y·R = Q, for R = V·diag(roots)·Vᵀ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(root: Tensor, right: Tensor, vectors: Tensor, roots: Tensor) -> Tensor:
        turned = vectors.mT @ right @ vectors
        return vectors @ (turned / (roots.unsqueeze(-1) + roots.unsqueeze(-2))) @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        root, _, vectors, roots = inputs
        ctx.save_for_backward(root, output, vectors, roots)
        ctx.save_for_forward(root, output, vectors, roots)

    @staticmethod
    def backward(ctx: Any, dsolution: Tensor) -> Any:
        root, solution, vectors, roots = ctx.saved_tensors
        # The map is its own adjoint; and dY solves R·dY + dY·R = dQ − dR·Y − Y·dR.
        dright = _solved(root, dsolution, vectors, roots)
        return -(dright @ solution.mT + solution.mT @ dright), dright, None, None


class _LyapunovBothWays(_Lyapunov):
    """Likewise."""

    @staticmethod
    def jvp(ctx: Any, droot: Tensor, dright: Tensor, *_: Any) -> Tensor:
        root, solution, vectors, roots = ctx.saved_tensors
        right = dright - droot @ solution - solution @ droot
        return _solved(root, right, vectors, roots)


def _solved(*given: Tensor) -> Tensor:
    solution: Tensor = (_Lyapunov if torch.compiler.is_compiling() else _LyapunovBothWays).apply(*given)
    return solution


def _without_eigenvalues(covariance: Tensor, eps: float) -> Tensor:
    """The root by Newton's iteration, which diverges where rounding left an eigenvalue below −eps.

    A covariance that was summed in float32 may have one of its trace's rounding, s. Then the root is taken of
    R = Σ + (eps + s)·I, and what s changed is taken back by the first terms of

        (R − s·I)^(−1/2) = R^(−1/2)·(I + s/2·R^(−1) + 3/8·s²·R^(−2) + 5/16·s³·R^(−3) + …),

    which leave (s/λ)⁴ of a direction of variance λ; those of a variance below s are rounding.
    """
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    tried = _newton_schulz(covariance.detach(), eps, _CONVERGED)
    diverged = (0 * tried).sum((-2, -1), keepdim=True) != 0  # NaN, of NaN and of infinity
    s = torch.where(diverged, trace * torch.finfo(torch.float32).eps, 0.0)
    root = _newton_schulz(covariance, eps + s, _CONVERGED)
    share = s * root @ root
    return root @ (_identity(root) + 0.5 * share + 0.375 * share @ share + 0.3125 * share @ share @ share)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _newton_schulz(covariance: Tensor, eps: float | Tensor, iterations: int) -> Tensor:
    """T steps of P ← (3·P − P³·S)/2 from the identity, S = Σ/tr(Σ), divided by √tr(Σ).

    Written for the pair of P and Y = S·P, Y ← Y·T and P ← T·P with T = (3·I − P·Y)/2: the same steps where
    nothing is rounded, but rounding does not grow in these (Higham 2008, "Functions of Matrices", 6.4).
    """
    identity = _identity(covariance)
    regular = covariance + eps * identity
    trace = regular.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    product, projection = regular / trace, identity.expand_as(regular)
    for _ in range(iterations):
        step = 1.5 * identity - 0.5 * projection @ product
        product, projection = product @ step, step @ projection
    return projection / trace.sqrt()
