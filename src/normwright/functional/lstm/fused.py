"""A normalised LSTM layer with its backward derived by hand.

A step is small, and PyTorch's own derivative of it (`plain.py`) is some eighty operators, each of which
costs more to call than to compute. Here a step is five operators forward and seven backward, into buffers
that hold every step; the input path and the weights' gradients are taken over all steps at once. What lies
between the normalisers is one operator, `lstm_cell` (`backends/schema.py`). With dh and dc what comes from
the step after:

    dh += dy,  dq = dh·o,  where s = tanh(q), q = N(c)·gain_c + bias_c
    dz, dc ← lstm_cell_backward(dh, s, N'(dq), gates, c_before, dc),   dh ← N'(dz)·W_hh
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normwright.backends.normalised import is_batched
from normwright.functional.autocasting import without_autocast
from normwright.functional.differentiable_gradients import differentiable_gradients
from normwright.functional.lstm.inputs import LstmInputs, LstmNorms
from normwright.functional.lstm.plain import plain_layer

_lstm_cell = torch.ops.normwright.lstm_cell.default
_lstm_cell_backward = torch.ops.normwright.lstm_cell_backward.default


@dataclass(frozen=True, eq=False)
class Forward:
    """A forward pass, and what its backward needs of it.

    Args:
        results: h of every step (S, H), and h and c of each sequence's last step (N, H).
        from_input, from_hidden: (S, 4H), before they are normalised.
        gates: (S, 4H), i, f, g and o, activated.
        cells: (S, H).
        squashed: (S, H), tanh of the normalised cell.
    """

    results: tuple[Tensor, Tensor, Tensor]
    from_input: Tensor
    from_hidden: Tensor
    gates: Tensor
    cells: Tensor
    squashed: Tensor


def run_forward(inputs: LstmInputs, sizes: Sequence[int], norms: LstmNorms) -> Forward:
    """See `lstm_layer`."""
    x, hidden, cell, weight_ih, weight_hh, bias, gain_ih, gain_hh, gain_c, bias_c = inputs
    steps, units = list(sizes), hidden.shape[1]
    from_input = x.mm(weight_ih.t())
    # What the input path gives to a step is read before the step's gates are known, which take its place.
    gates = norms.of_input.forward_all(steps, from_input, gain_ih, bias)
    from_hidden = torch.empty_like(from_input)
    cells, output, squashed = (x.new_empty(len(x), units) for _ in range(3))
    last_h, last_c = torch.empty_like(hidden), torch.empty_like(cell)
    transposed = weight_hh.t()
    # All views of all steps at once: one at a time they would be a third of the calls.
    wholes = (gates, gates[:, 3 * units :], from_hidden, cells, output)
    rows = zip(steps, [*steps[1:], 0], *(whole.split(steps) for whole in wholes), strict=True)
    h, c = hidden, cell
    kept: list[Tensor] = []
    for step, (size, later, gates_row, o, row, c_row, h_row) in enumerate(rows):
        if size < len(h):
            h, c = h[:size], c[:size]
        torch.mm(h, transposed, out=row)
        z = norms.of_hidden.forward(step, row, gates_row, gain_hh, None, None)
        _lstm_cell(z, c, gates_row, c_row)
        s = norms.of_cell.forward(step, c_row, None, gain_c, bias_c, "tanh")
        kept.append(s)
        torch.mul(o, s, out=h_row)
        h, c = h_row, c_row
        if later < size:
            last_h[later:size], last_c[later:size] = h[later:], c[later:]
    torch.cat(kept, out=squashed)
    return Forward((output, last_h, last_c), from_input, from_hidden, gates, cells, squashed)


class FusedLayer(torch.autograd.Function):
    """`lstm_layer` with the backward at the head of this file."""

    @staticmethod
    def forward(ctx: Any, *call: Any) -> Any:
        """See `lstm_layer`."""
        *tensors, sizes, norms = call
        inputs = LstmInputs(*tensors)
        done = run_forward(inputs, sizes, norms)
        ctx.sizes, ctx.norms = sizes, norms
        kept = (done.from_input, done.from_hidden, done.gates, done.cells, done.squashed)
        ctx.save_for_backward(*inputs, *kept, done.results[0])
        ctx.set_materialize_grads(False)
        return done.results

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Any:
        """The gradients of x, hidden, cell and the seven weights."""
        saved = ctx.saved_tensors
        inputs, kept = LstmInputs(*saved[:10]), saved[10:]
        wanted = ctx.needs_input_grad[:10]
        again = torch.is_grad_enabled() or any(part is not None and is_batched(part) for part in given)
        with without_autocast(inputs.x.device):
            if again:
                gradients = _differentiable(inputs, wanted, ctx.sizes, ctx.norms, given)
            else:
                gradients = _run_backward(inputs, kept, wanted, ctx.sizes, ctx.norms, given)
        return *gradients, None, None


def _differentiable(
    inputs: LstmInputs,
    wanted: Sequence[bool],
    sizes: Sequence[int],
    norms: LstmNorms,
    given: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients as functions of inputs and of what is given, for a derivative of them."""

    def layer(*tensors: Any) -> tuple[Tensor, Tensor, Tensor]:
        return plain_layer(LstmInputs(*tensors), sizes, norms)

    return differentiable_gradients(layer, inputs, wanted, given)


def _run_backward(
    inputs: LstmInputs,
    kept: Sequence[Tensor],
    wanted: Sequence[bool],
    sizes: Sequence[int],
    norms: LstmNorms,
    given: Sequence[Tensor | None],
) -> list[Tensor | None]:
    x, hidden, cell, weight_ih, weight_hh, bias, gain_ih, gain_hh, gain_c, bias_c = inputs
    from_input, from_hidden, gates, cells, squashed, output = kept
    dy, dh_last, dc_last = given
    steps, units = list(sizes), hidden.shape[1]
    dh, dc = (
        torch.zeros_like(hidden) if last is None else last.clone(memory_format=torch.contiguous_format)
        for last in (dh_last, dc_last)
    )
    dz, d_hidden = torch.empty_like(from_input), torch.empty_like(from_input)
    before_h, before_c = (_before(whole, first, steps) for whole, first in ((output, hidden), (cells, cell)))
    wholes = (gates, gates[:, 3 * units :], from_hidden, cells, squashed, d_hidden, dz)
    rows = zip(
        range(len(steps)),
        steps,
        [None] * len(steps) if dy is None else dy.split(steps),
        before_c,
        *(whole.split(steps) for whole in wholes),
        strict=True,
    )
    gains = _Sums()
    for step, size, dy_row, c_before, gates_row, o, row, c, s, d_row, dz_row in reversed(list(rows)):
        dh_row, dc_row = dh[:size], dc[:size]
        if dy_row is not None:
            dh_row.add_(dy_row)
        through, *of_c = norms.of_cell.backward(step, dh_row * o, c, gain_c, bias_c, "tanh")
        _lstm_cell_backward(dh_row, s, through, gates_row, c_before, dc_row, dz_row)
        d_of_row, of_hh, _ = norms.of_hidden.backward(step, dz_row, row, gain_hh, None, None)
        d_row.copy_(d_of_row)
        torch.mm(d_of_row, weight_hh, out=dh_row)
        gains.add(of_hh, *of_c)
    d_gain_hh, d_gain_c, d_bias_c = gains.sums()
    d_from_input, d_gain_ih, d_bias = norms.of_input.backward_all(steps, dz, from_input, gain_ih, bias)
    return [
        d_from_input.mm(weight_ih) if wanted[0] else None,
        dh,
        dc,
        d_from_input.t().mm(x) if wanted[3] else None,
        d_hidden.t().mm(torch.cat(before_h)) if wanted[4] else None,
        d_bias,
        d_gain_ih,
        d_gain_hh,
        d_gain_c,
        d_bias_c,
    ]


def _before(whole: Tensor, first: Tensor, steps: list[int]) -> list[Tensor]:
    """What each step was given: the rows of the step before it that go on."""
    rows = [first, *whole.split(steps)[:-1]]
    return [row[:size] for row, size in zip(rows, steps, strict=True)]


class _Sums:
    """Sums of the parameters' gradients over the steps."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor | None, ...]] = []

    def add(self, *gradients: Tensor | None) -> None:
        """Those of one step."""
        self._parts.append(gradients)

    def sums(self) -> list[Tensor | None]:
        """None where a parameter is."""
        columns = zip(*self._parts, strict=True)
        return [None if column[0] is None else torch.stack(list(column)).sum(0) for column in columns]
