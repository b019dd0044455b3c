"""The gradients of a plain formula as functions of its inputs, for a derivative of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def differentiable_gradients(
    formula: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    wanted: Sequence[bool],
    given: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """What a backward returns where its gradients are themselves to be differentiated.

    They are taken by aliases of the inputs. By the inputs themselves they would hold what comes along the
    caller's own graph, from one input to another that was made from it, and the whole sum for each of two
    that are the same tensor; autograd, which goes along that graph after this backward, would add it again.

    Args:
        formula: of the inputs, in differentiable operations; gives one result or more.
        inputs: as they were given to the forward, so that a second derivative finds its way to them.
        wanted: whether a gradient by each is asked for.
        given: the gradients by each result; None for none, also for results of which there are more.
    Returns:
        A gradient for each input that is wanted, 0 where no result depends on it; None for the others.
    """
    again = torch.is_grad_enabled()  # not where several gradients are given as one
    aliases = [_alias(part, want) for part, want in zip(inputs, wanted, strict=True)]
    sources = [alias for alias, want in zip(aliases, wanted, strict=True) if want and alias is not None]
    with torch.enable_grad():
        results = formula(*aliases)
    used = [
        (result, gradient)
        for result, gradient in zip(results, given, strict=False)
        if gradient is not None and result.requires_grad
    ]
    outputs, gradients = zip(*used, strict=True) if used else ((), ())
    settings = {"create_graph": again, "allow_unused": True, "materialize_grads": True}
    found = iter(torch.autograd.grad(outputs, sources, gradients, **settings))
    return [next(found) if want else None for want in wanted]


def _alias(part: Tensor | None, wanted: bool) -> Tensor | None:
    if part is None or not wanted:
        return part
    # One that required a gradient in the forward is still asked for it, whatever it has been told since.
    return part.view_as(part).requires_grad_()
