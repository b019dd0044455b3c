"""What reaches each normaliser of a network: its moments, and those of groups of samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from normwright.network.walk import find_normalisers
from normwright.statistics.accumulator import Accumulator

REFERENCE, CURRENT = 0, 1


class LayerInput:
    """What one normaliser was given, of both sets.

    Everything is taken about the mean of the first batch, so that a mean far from 0 costs no digits.

    Args:
        name: qualified.
        module: the normaliser.
        groups: how many groups of samples each set is cut into.
        size: samples of a group.
    """

    def __init__(self, name: str, module: nn.Module, groups: int, size: int) -> None:
        self.name, self.kind, self.eps = (
            name,
            type(module).__name__,
            float(getattr(module, "eps", 0.0) or 0.0),
        )
        self.reason = ""
        self.moments: list[Accumulator | None] = [None, None]
        self._trailing = len(getattr(module, "normalized_shape", ()))
        self._groups, self._size = groups, size
        self._centre: Tensor | None = None
        self._sums: Tensor | None = None
        self._counts = torch.zeros(2, groups, dtype=torch.float64)

    def see(self, x: Tensor, which: int, begin: int, samples: int) -> None:
        """Takes a batch in.

        Args:
            x: the normaliser's input.
            which: REFERENCE or CURRENT.
            begin: the place of the batch's first sample in its set.
            samples: how many samples the batch holds.
        """
        if self.reason or not x.numel():
            return
        rows = self._rows(x, samples)
        if rows is None:
            return
        if self._centre is None:
            self._centre = rows.mean((0, 2), keepdim=True).nan_to_num(0.0, 0.0, 0.0)
        if rows.shape[1] != self._centre.shape[1]:
            self.reason = "the number of its channels changes from batch to batch"
            return
        variances, means = torch.var_mean(rows - self._centre, 2, correction=0)
        means, variances = means.to("cpu", torch.float64), variances.to("cpu", torch.float64)
        if not (means.isfinite().all() and variances.isfinite().all()):
            self.reason = f"its input holds NaN or infinity in the {('reference', 'current set')[which]}"
            return
        space = rows.shape[2]
        counts = torch.full((len(rows),), float(space))
        seen, before = Accumulator.of_batches(counts, means, variances * space), self.moments[which]
        self.moments[which] = seen if before is None else before.merged(seen)
        self._group(torch.cat([means, variances + means.square()], 1), which, begin)

    @property
    def groups(self) -> Tensor | None:
        """(2·groups, 2·C): for each group, channels' means and mean squares; None where a group is empty."""
        if self._sums is None or not bool((self._counts > 0).all()):
            return None
        return (self._sums / self._counts.unsqueeze(2)).flatten(0, 1)

    def _rows(self, x: Tensor, samples: int) -> Tensor | None:
        """(samples, C, elements), float32 or wider; None where the axes do not say which sample is which."""
        axis = x.dim() - self._trailing if self._trailing else 1
        if not x.is_floating_point() or axis < 1 or x.dim() <= axis or len(x) % samples:
            self.reason = f"the first axis of its input {tuple(x.shape)} is not that of the {samples} samples"
            return None
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32)).movedim(axis, 1)
        # Windows of one sample, as some attention has, are more of its elements.
        windows = wide.reshape(samples, len(x) // samples, x.shape[axis], -1)
        return windows.transpose(1, 2).flatten(2)

    def _group(self, values: Tensor, which: int, begin: int) -> None:
        if self._sums is None:
            self._sums = torch.zeros(2, self._groups, values.shape[1], dtype=torch.float64)
        group = torch.arange(begin, begin + len(values)) // self._size
        kept = group < self._groups
        self._sums[which].index_add_(0, group[kept], values[kept])
        self._counts[which].index_add_(0, group[kept], torch.ones(int(kept.sum()), dtype=torch.float64))


class LayerInputs:
    """Hooks on the normalisers of a network; as a context, it takes them away again.

    Args:
        network: run inside the context.
        groups, size: see `LayerInput`.
    """

    def __init__(self, network: nn.Module, groups: int, size: int) -> None:
        self._modules = find_normalisers(network)
        self._known = {
            module: LayerInput(name, module, groups, size) for name, module in self._modules.items()
        }
        self._order: dict[nn.Module, None] = {}
        self._handles: list[Any] = []
        self.which, self.begin, self.samples = REFERENCE, 0, 0

    def __enter__(self) -> LayerInputs:
        self._handles = [
            module.register_forward_pre_hook(self._see, with_kwargs=True) for module in self._modules.values()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def layers(self) -> list[LayerInput]:
        """Those that were called, in the order of their first call, then the others."""
        called = [self._known[module] for module in self._order]
        others = [known for module, known in self._known.items() if module not in self._order]
        for known in others:
            known.reason = "not called as a module"
        return called + others

    def _see(self, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = next((value for value in (*args, *named.values()) if isinstance(value, Tensor)), None)
        if x is not None:
            self._order.setdefault(module)
            self._known[module].see(x, self.which, self.begin, self.samples)
