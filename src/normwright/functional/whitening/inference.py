"""The projection that inference makes of a running covariance.

A root of four matrices of 16 channels takes half a millisecond, as long as a batch of one image takes to be
projected; it is kept until the covariance changes. Whether it changed is seen by its values, at 2 to 8
microseconds: a tensor's count of writes misses what is written through `data`, as averages of weights are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from normwright.backends.devices import is_captured
from normwright.backends.moments import statistics_dtype
from normwright.functional.whitening.autograd import Rule


class _Known(NamedTuple):
    """A projection, and what it was made of."""

    covariance: Tensor
    rule: Rule
    projection: Tensor

    def is_of(self, covariance: Tensor, rule: Rule) -> bool:
        """Whether it is what the same would give now."""
        return (
            self.rule == rule
            and self.covariance.dtype == covariance.dtype
            and self.covariance.device == covariance.device
            and torch.equal(self.covariance, covariance)
        )


# By the buffer itself, and as long as it lives: copies and stored networks hold nothing of it.
_KNOWN = WeakTensorKeyDictionary()


def projection_by(covariance: Tensor, rule: Rule) -> Tensor:
    """(G, d, d), a constant; NaN where the covariance is not finite."""
    if _has_no_values(covariance):
        return rule.projection(covariance.detach().to(statistics_dtype(covariance)))
    known: _Known | None = _KNOWN.get(covariance)
    if known is None or not known.is_of(covariance, rule):
        # A tensor made in inference mode could not serve a later call that is differentiated.
        with torch.inference_mode(False), torch.no_grad():
            own = covariance.detach().clone()
            known = _Known(own, rule, rule.projection(own.to(statistics_dtype(own))))
        _KNOWN[covariance] = known
    return known.projection


def _has_no_values(covariance: Tensor) -> bool:
    """Whether it stands for any, on meta, under a transform of `torch.func` or in a graph that is made.

    What dispatches itself what is called (fake tensors, selective checkpointing) sees the same each time.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or type(covariance) is not Tensor
        or covariance.is_meta
        or is_captured(covariance)
    )
