"""Who competes: normwright, eager PyTorch, and eager PyTorch compiled. And what a run of one is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import normwright.functional
from benchmarks.alternate import Task
from benchmarks.cases import EPS, Case
from benchmarks.inputs import Inputs

Contender = Callable[[Inputs], Tensor]

MOMENTUM = 0.1


def ours(case: Case, **options: object) -> Contender:
    """normwright's function, the residual and the activation folded in; options are the function's."""
    function = partial(getattr(normwright.functional, case.operator), activation=case.activation, **options)
    return lambda inputs: function(*_arguments(case, inputs), residual=inputs.residual)


def eager(case: Case) -> Contender:
    """PyTorch's function, then the addition and the activation, in place where autograd permits."""
    function, activation = getattr(F, case.operator), case.activation

    def run(inputs: Inputs) -> Tensor:
        y: Tensor = function(*_arguments(case, inputs))
        if inputs.residual is not None:
            y = y.add_(inputs.residual)
        return y if activation is None else _activate(y, activation)

    return run


def compiled(case: Case) -> Contender:
    """`torch.compile` of `eager`."""
    torch._dynamo.reset()
    contender: Contender = torch.compile(eager(case), fullgraph=True, dynamic=False)
    return contender


def task(contender: Contender, case: Case, inputs: Inputs) -> Task:
    """One run of a contender, as the case's mode says; nothing that it makes outlives it."""
    leaves, dy = tuple(inputs.leaves.values()), inputs.dy

    def step() -> None:
        torch.autograd.grad(contender(inputs), leaves, dy)

    def forward() -> None:
        contender(inputs)

    def inference() -> None:
        with torch.no_grad():
            contender(inputs)

    return {"step": step, "forward": forward, "inference": inference}[case.mode]


def copy(inputs: Inputs) -> Task:
    """The unit: one read and one write of x, to memory that is there already."""
    source = inputs.x.detach()
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def results(contender: Contender, case: Case, inputs: Inputs) -> dict[str, Tensor]:
    """What a run computes: y, and in a step the gradients."""
    with torch.set_grad_enabled(case.mode != "inference"):
        y = contender(inputs)
    found = {"y": y.detach()}
    if case.mode == "step":
        leaves = inputs.leaves
        found |= zip(leaves, torch.autograd.grad(y, tuple(leaves.values()), inputs.dy), strict=True)
    return found


def _arguments(case: Case, inputs: Inputs) -> tuple[Any, ...]:
    """The positional arguments, which both libraries take alike."""
    x, weight, bias = inputs.x, inputs.weight, inputs.bias
    if case.operator == "batch_norm":
        running = (inputs.running_mean, inputs.running_var)
        return (x, *running, weight, bias, case.mode != "inference", MOMENTUM, EPS)
    if case.operator == "instance_norm":
        return (x, None, None, weight, bias, True, MOMENTUM, EPS)
    if case.operator == "group_norm":
        return (x, case.groups, weight, bias, EPS)
    if case.operator == "layer_norm":
        return (x, case.normalized_shape, weight, bias, EPS)
    return (x, case.normalized_shape, weight, EPS)


def _activate(y: Tensor, activation: str) -> Tensor:
    """PyTorch's activation in place, where its backward can do with the result alone."""
    if activation == "relu":
        return F.relu(y, inplace=True)
    if activation == "leaky_relu":
        return F.leaky_relu(y, 0.01, inplace=True)
    if activation == "silu":
        return F.silu(y, inplace=not torch.is_grad_enabled())
    function: Callable[[Tensor], Tensor] = getattr(F, activation)
    return function(y)
