"""Running statistics that are moved under the transforms of `torch.func`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from normwright.backends.moments import move_running_statistics
from normwright.errors import OptionError

_functorch = torch._C._functorch

# running_mean, running_var and num_batches_tracked.
Running = tuple[Tensor | None, Tensor | None, Tensor | None]


def move_under_transforms(
    move: Callable[..., None], statistics: tuple[Tensor | None, ...], *moments: Tensor
) -> None:
    """Calls move(*moments), which moves the statistics, outside of `grad`, `vjp` and `jvp`.

    To these it is an error to change in place what they were not given, but by operators such as PyTorch's
    batch norm. Of statistics that they were given PyTorch says what it has to say.

    Raises:
        OptionError: under `vmap`, the moments are several and a statistic is not.
    """
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return move(*moments)
    plain = [_unwrapped(moment) for moment in moments]
    kept = [statistic for statistic in statistics if statistic is not None]
    if any(map(_functorch.is_batchedtensor, plain)):
        check_several(*kept)
    if any(map(_functorch.is_functorch_wrapped_tensor, (*kept, *plain))):
        return move(*moments)
    with torch._C._DisableFuncTorch():
        return move(*plain)


@torch.no_grad()
def move_towards(
    x: Tensor, mean: Tensor, variance: Tensor, count: int, running: Running, momentum: float | None
) -> None:
    """`move_running_statistics`, under transforms too."""

    def move(mean: Tensor, variance: Tensor) -> None:
        move_running_statistics(x, mean, variance, count, *running, momentum)

    move_under_transforms(move, running, mean, variance)


def stands_for_several(*tensors: Tensor | None) -> bool:
    """Whether `vmap` maps over one of them."""
    if torch.compiler.is_compiling():
        return False
    return any(t is not None and _functorch.is_batchedtensor(_unwrapped(t)) for t in tensors)


def check_several(*statistics: Tensor | None) -> None:
    """Each running statistic is as many as the batches that are to move it."""
    for statistic in statistics:
        if statistic is not None and not _functorch.is_batchedtensor(_unwrapped(statistic)):
            raise OptionError(
                "running statistics must be mapped over too where vmap maps over what they are taken from, "
                "but are one for all, which several batches cannot move at once: call eval() to use them, "
                "set track_running_stats=False (running_mean=None) to do without, take a normaliser that "
                "keeps none (group or layer norm), or pass stacked buffers with in_dims=0 "
                "(torch.func.stack_module_state)"
            )


def _unwrapped(tensor: Tensor) -> Tensor:
    while _functorch.is_gradtrackingtensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor
