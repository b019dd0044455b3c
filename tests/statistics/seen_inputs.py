"""What the normalisers of a network are given, written down by hooks, in float64."""

from __future__ import annotations

import numpy as np
import torch
from tolerances import KERNELS_ARE_TRITONS, UNIT, depth, rounded
from torch import nn

# float64 sums, ours and NumPy's
_SUMMED = 2 * depth(10**5) * 2.0**-53


class Inputs:
    """Inside the context, the inputs of the modules are kept, call by call."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.calls: dict[str, list[np.ndarray]] = {name: [] for name in modules}
        self._modules = modules

    def __enter__(self) -> Inputs:
        self._hooks = [
            module.register_forward_pre_hook(
                lambda module, args, name=name: self.calls[name].append(_channels_first(args[0]))
            )
            for name, module in self._modules.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _channels_first(x: torch.Tensor) -> np.ndarray:
    return x.detach().cpu().double().movedim(1, 0).flatten(1).numpy()


def joined(calls: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of all elements laid end to end."""
    elements = np.concatenate(calls, axis=1)
    return elements.mean(1), elements.var(1)


def assert_statistics(module: nn.Module, mean: np.ndarray, variance: np.ndarray, what: str = "") -> None:
    """The running statistics are these, up to one rounding to float32."""
    # Of a mean, in units of mean|x|, at most |mean| + deviation; of a variance, in units of itself, and of
    # what a rounding of a large mean moves it by.
    deviation = np.sqrt(variance)
    sizes = np.abs(mean) + deviation, variance + np.abs(mean) * deviation
    for name, expected, size in zip(("running_mean", "running_var"), (mean, variance), sizes, strict=True):
        actual = getattr(module, name).cpu().double().numpy()
        bound = rounded(expected, torch.float32) + _SUMMED * size
        if KERNELS_ARE_TRITONS:  # these add deviations in float32
            bound = bound + (depth(10**5) + 4) * UNIT[torch.float32] * (deviation + variance)
        error = np.abs(actual - expected)
        assert (error <= bound).all(), (what, name, float((error / bound).max()))
