"""The operators on parts in plain PyTorch: each part's positions are gathered as rows (M, C), and put back.

As in `eager.py`, backward functions use differentiable operations only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.backends.gradients import DRESIDUAL, DX
from normwright.backends.layout import channels_layout
from normwright.backends.moments import compute_dtype, textbook_moments
from normwright.backends.normalised import Gradients, differentiate, like, normalise


class _Places(NamedTuple):
    """The positions of each part, and where among those of all parts each position of x is."""

    of_parts: Sequence[Tensor]
    inverse: Tensor  # the number of all where a position is in no part

    def take(self, x: Tensor) -> list[Tensor]:
        """The rows (M, C) of each part."""
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])
        return [rows.index_select(0, places) for places in self.of_parts]

    def take_if(self, x: Tensor | None) -> Sequence[Tensor | None]:
        """The same, or None for each."""
        return [None] * len(self.of_parts) if x is None else self.take(x)

    def put(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        """The rows of all parts in their places, in the likeness of x; 0 where no part has any."""
        rows = torch.cat([*parts, x.new_zeros(1, x.shape[1])]).index_select(0, self.inverse)
        return like(rows.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1), x)


def _places(x: Tensor, spans: Tensor, parts: int) -> _Places:
    part, first, length = spans[spans[:, 0].argsort(stable=True)].unbind(1)
    before = length.cumsum(0) - length
    numbers = torch.arange(int(length.sum()))
    places = numbers + (first - before).repeat_interleave(length)
    sizes = torch.zeros(parts, dtype=torch.long).index_add(0, part, length)
    inverse = torch.full((x.shape[0] * x.shape[2:].numel(),), len(numbers))
    inverse[places] = numbers
    return _Places(places.to(x.device).split(sizes.tolist()), inverse.to(x.device))


def parts_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    spans: Tensor,
    parts: int,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `schema.py`."""
    places, shape = _places(x, spans, parts), x.shape[1:2]
    ys, moments, variances = [], [], []
    for rows, beside in zip(places.take(x), places.take_if(residual), strict=True):
        found = normalise(rows, beside, weight, bias, channels_layout(rows), eps, activation)
        y, mean_and_rstd = found.results(shape)
        ys.append(y)
        moments.append(mean_and_rstd)
        variances.append(found.moments.variance.reshape(shape))
    return places.put(ys, x), torch.stack(moments, 1), torch.stack(variances)


def parts_moments(x: Tensor, spans: Tensor, parts: int, eps: float) -> Tensor:
    """`parts_forward`'s moments as a differentiable function of x."""
    found = [textbook_moments(rows, [0], eps, center=True) for rows in _places(x, spans, parts).take(x)]
    return torch.cat([torch.stack([mean, rstd]) for mean, _, rstd in found if mean is not None], 1)


def parts_backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    moments: Tensor,
    spans: Tensor,
    parts: int,
    activation: str | None,
    wanted: int,
) -> Gradients:
    """See `schema.py`."""
    places, dtype = _places(x, spans, parts), compute_dtype(x)
    # Parameters' gradients are rounded to their dtype once, after they have been added up.
    wide = [None if parameter is None else parameter.to(dtype) for parameter in (weight, bias)]
    found = []
    cuts = (places.take(dy), places.take(x), places.take_if(residual), moments.unbind(1))
    for dy_rows, rows, beside, (mean, rstd) in zip(*cuts, strict=True):
        call = (dy_rows, rows, beside, *wide, mean, rstd, channels_layout(rows), activation, wanted)
        found.append(differentiate(*call))
    dxs, dresiduals, dweights, dbiases = zip(*found, strict=True)
    return (
        places.put(dxs, x) if wanted & DX else None,
        places.put(dresiduals, x if residual is None else residual) if wanted & DRESIDUAL else None,
        None if dweights[0] is None else torch.stack(dweights).sum(0).to(weight.dtype),
        None if dbiases[0] is None else torch.stack(dbiases).sum(0).to(bias.dtype),
    )
