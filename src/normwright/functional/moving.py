"""Running statistics that are moved under the transforms of `torch.func`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_functorch = torch._C._functorch


def move_under_transforms(move: Callable[..., None], statistic: Tensor, *moments: Tensor) -> None:
    """Calls move(*moments), outside of `grad`, `vjp` and `jvp`.

    To these it is an error to change in place what they were not given, but by operators such as PyTorch's
    batch norm. Of statistics that they were given, and of `vmap`, PyTorch says what it has to say.
    """
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return move(*moments)
    plain = [_unwrapped(moment) for moment in moments]
    if any(map(_functorch.is_functorch_wrapped_tensor, (statistic, *plain))):
        return move(*moments)
    with torch._C._DisableFuncTorch():
        return move(*plain)


def _unwrapped(tensor: Tensor) -> Tensor:
    while _functorch.is_gradtrackingtensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor
