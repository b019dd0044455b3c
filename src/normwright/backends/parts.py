"""The operators on parts in plain PyTorch: each part's positions are gathered as rows (M, C), and put back.

As in `eager.py`, backward functions use differentiable operations only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.layout import channels_layout
from normwright.backends.moments import Moments, compute_dtype, statistics_dtype, textbook_moments
from normwright.backends.normalised import Gradients, Results, differentiate, like, normalise
from normwright.errors import ShapeError


class _Places(NamedTuple):
    """The positions of each part, and where among those of all parts each position of x is."""

    of_parts: Sequence[Tensor]
    inverse: Tensor  # the number of all where a position is in no part

    def take(self, x: Tensor) -> list[Tensor]:
        """The rows (M, C) of each part."""
        rows = x.movedim(1, -1).reshape(len(self.inverse), x.shape[1])
        return [rows.index_select(0, places) for places in self.of_parts]

    def take_if(self, x: Tensor | None) -> Sequence[Tensor | None]:
        """The same, or None for each."""
        return [None] * len(self.of_parts) if x is None else self.take(x)

    def put(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        """The rows of all parts in their places, in the likeness of x; 0 where no part has any."""
        rows = torch.cat([*parts, x.new_zeros(1, x.shape[1])]).index_select(0, self.inverse)
        return like(rows.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1), x)


def _places(x: Tensor, spans: Tensor, parts: int) -> _Places:
    spans = spans.cpu()
    in_order(spans, parts, x.shape[0] * x.shape[2:].numel())
    part, first, length = spans[spans[:, 0].argsort(stable=True)].unbind(1)
    before = length.cumsum(0) - length
    numbers = torch.arange(int(length.sum()), device="cpu")
    places = numbers + (first - before).repeat_interleave(length)
    sizes = length.new_zeros(parts).index_add(0, part, length)
    inverse = numbers.new_full((x.shape[0] * x.shape[2:].numel(),), len(numbers))
    inverse[places] = numbers
    return _Places(places.to(x.device).split(sizes.tolist()), inverse.to(x.device))


def in_order(spans: Tensor, parts: int, positions: int) -> Tensor:
    """The spans that are not empty, by their first position, once all are known to lie apart within x."""
    part, first, length = spans.unbind(1)
    within = (part >= 0) & (part < parts) & (first >= 0) & (length >= 0) & (length <= positions - first)
    if not bool(within.all()):
        raise ShapeError(
            "a span must lie within the positions of x, and its part be one of those that there are"
        )
    held = spans[length > 0]
    ordered = held[held[:, 1].argsort()]
    _, first, length = ordered.unbind(1)
    if bool((first[1:] < (first + length)[:-1]).any()):
        raise ShapeError("no two spans may overlap")
    return ordered


def parts_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    spans: Tensor,
    parts: int,
    eps: float,
    activation: str | None,
) -> Results:
    """See `schema.py`."""
    places, ys, known = _places(x, spans, parts), [], []
    for rows, beside in zip(places.take(x), places.take_if(residual), strict=True):
        found = normalise(rows, beside, weight, bias, channels_layout(rows), eps, activation)
        ys.append(found.y)
        known.append(found.moments)
    return places.put(ys, x), _stacked(known, x)


def parts_moments(x: Tensor, spans: Tensor, parts: int, eps: float) -> Tensor:
    """`parts_forward`'s moments as a differentiable function of x."""
    taken = _places(x, spans, parts).take(x)
    return _stacked((textbook_moments(rows, [0], eps, center=True) for rows in taken), x)


def _stacked(moments: Iterable[Moments], x: Tensor) -> Tensor:
    parts = [[mean, rstd, variance] for mean, variance, rstd in moments if mean is not None]
    if not parts:
        return x.new_empty(3, 0, x.shape[1], dtype=statistics_dtype(x))
    return torch.stack([torch.cat(part) for part in zip(*parts, strict=True)])


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
    for dy_rows, rows, beside, (mean, rstd, _) in zip(*cuts, strict=True):
        call = (dy_rows, rows, beside, *wide, mean, rstd, channels_layout(rows), activation, wanted)
        found.append(differentiate(*call))
    dxs, dresiduals, dweights, dbiases = zip(*found, strict=True) if found else [()] * 4
    return (
        places.put(dxs, x) if wanted & DX else None,
        places.put(dresiduals, x if residual is None else residual) if wanted & DRESIDUAL else None,
        _total(dweights, weight) if wanted & DWEIGHT else None,
        _total(dbiases, bias) if wanted & DBIAS else None,
    )


def _total(gradients: Sequence[Tensor | None], parameter: Tensor | None) -> Tensor | None:
    if parameter is None:
        return None
    found = [gradient for gradient in gradients if gradient is not None]
    return torch.stack(found).sum(0).to(parameter.dtype) if found else torch.zeros_like(parameter)
