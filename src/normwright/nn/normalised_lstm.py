"""What the normalised LSTMs have in common: layers, directions, and every form of a batch of sequences."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from normwright.errors import OptionError, ShapeError
from normwright.functional.arguments import is_number
from normwright.functional.autocasting import is_autocast
from normwright.functional.lstm.inputs import LstmInputs, LstmNorms
from normwright.functional.lstm.layer import lstm_layer
from normwright.functional.lstm.step_norm import StepNorm
from normwright.functional.sharded import check_not_sharded
from normwright.nn.sequences import Steps, lengths_of, packed_steps, padded, padded_steps

Hidden = tuple[Tensor, Tensor]

# Its place among the arguments of `torch.nn.LSTM`.
_PROJ_SIZE = 7


class NormalisedLSTM(torch.nn.LSTM):
    """An LSTM with a normaliser of the input path, of the hidden path and of the cell, in each layer.

    Weights have the names and shapes of `torch.nn.LSTM`'s; the normalisers of layer k are the modules
    norm_ih_lk, norm_hh_lk and norm_c_lk, with _reverse for the way back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args[_PROJ_SIZE] if len(args) > _PROJ_SIZE else kwargs.get("proj_size"):
            raise OptionError(
                "proj_size must be 0: a normalised LSTM has no projection of its hidden state. Put a "
                "torch.nn.Linear behind it"
            )
        super().__init__(*args, **kwargs)
        made = {"device": self.weight_ih_l0.device, "dtype": self.weight_ih_l0.dtype}
        for suffix in self._suffixes():
            for name, norm in self._new_norms(**made).items():
                self.add_module(f"{name}_{suffix}", norm)

    def _new_norms(self, **made: Any) -> dict[str, torch.nn.Module]:
        """norm_ih, norm_hh and norm_c of one layer and direction."""
        raise NotImplementedError

    def _step_norm(self, norm: Any, sequences: int) -> StepNorm:
        """The normaliser for one pass over the time steps of so many sequences, which may be none."""
        raise NotImplementedError

    def _check_steps(self, steps: int) -> None:
        """Raises where the normalisers cannot take that many steps."""

    def _suffixes(self) -> list[str]:
        directions = ("", "_reverse") if self.bidirectional else ("",)
        return [f"l{layer}{direction}" for layer in range(self.num_layers) for direction in directions]

    def reset_parameters(self) -> None:
        """The weights as `torch.nn.LSTM`'s, the normalisers as they start."""
        stdv = self.hidden_size**-0.5
        for weight in self._parameters.values():
            if weight is not None:
                torch.nn.init.uniform_(weight, -stdv, stdv)
        for norm in self.children():
            norm.reset_parameters()  # type: ignore[operator]

    def forward(  # type: ignore[override]
        self,
        input: Tensor | PackedSequence,
        hx: Hidden | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Hidden]:
        """Runs the layers over a batch of sequences.

        Args:
            input: (T, N, C), (N, T, C) with `batch_first`, (T, C) for a single sequence, or packed.
            hx: (h, c) before the first step, each (layers·directions, N, H), or (…, H) with a single
                sequence; None for 0.
            lengths: (N,), how long each sequence of a padded batch is; a tensor or a list.
            mask: (T, N), or (N, T) with `batch_first`: True where a step counts, from the first one on.
                Instead of lengths.
        Returns:
            h of the last layer at every step, in input's form, 0 where a sequence has ended; and (h, c) of
            each sequence's own last step.
        Raises:
            ShapeError: a shape that does not fit, a mask with a hole or without a step, or what the
                normalisers cannot take.
            OptionError: lengths and mask, or one of them with a packed or single sequence; an input that is
                neither a tensor nor packed, or an hx that is no pair of tensors.
        """
        _check_tensors(input, hx)
        if isinstance(input, PackedSequence):
            self._refuse_lengths(lengths, mask, "a packed batch knows its lengths")
            steps = packed_steps(input)
            rows, last = self._run(steps, self._hidden(steps, hx))
            return PackedSequence(rows, input.batch_sizes, steps.order, steps.back), last
        single = input.dim() == 2
        if single:
            self._refuse_lengths(lengths, mask, "a single sequence is as long as it is")
            if hx is not None and any(tensor.dim() != 2 for tensor in hx):
                raise ShapeError(
                    "hx must be two tensors (layers·directions, H) with an unbatched input, but has "
                    f"{[tensor.dim() for tensor in hx]} axes"
                )
            batch_first, x = False, input.unsqueeze(1)
            hx = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        else:
            batch_first, x = self.batch_first, input
        _check_padded(x, batch_first)
        steps = padded_steps(x, lengths_of(x, lengths, mask, batch_first), batch_first)
        rows, (h, c) = self._run(steps, self._hidden(steps, hx))
        output = padded(rows, steps, x.shape[1] if batch_first else x.shape[0], batch_first)
        if single:
            return output.squeeze(1), (h.squeeze(1), c.squeeze(1))
        return output, (h, c)

    def _run(self, steps: Steps, hx: Hidden) -> tuple[Tensor, Hidden]:
        """Rows of the last layer's h, and the last (h, c), in the order that the batch came in."""
        self._check_steps(len(steps.sizes))
        rows = steps.rows
        if is_autocast(rows.device):
            rows = rows.to(torch.get_autocast_dtype(rows.device.type))
        dtype = rows.dtype
        back = steps.reversed_rows() if self.bidirectional else None
        directions = 2 if self.bidirectional else 1
        last: list[Hidden] = []
        # off even where it is off: `torch.export` makes a graph of its own of that, as a fold expects it
        meta = rows.is_meta
        with contextlib.nullcontext() if meta else torch.autocast(rows.device.type, enabled=False):
            for layer in range(self.num_layers):
                ways = []
                for direction in range(directions):
                    suffix = f"l{layer}_reverse" if direction else f"l{layer}"
                    h, c = (tensor[layer * directions + direction].to(dtype) for tensor in hx)
                    given = rows.index_select(0, back) if direction and back is not None else rows
                    inputs, norms = self._inputs(suffix, given, h, c), self._norms(suffix, h.shape[0])
                    out, h, c = lstm_layer(inputs, steps.sizes, norms)
                    ways.append(out.index_select(0, back) if direction and back is not None else out)
                    last.append((h, c))
                rows = torch.cat(ways, 1) if len(ways) > 1 else ways[0]
                if self.dropout and layer < self.num_layers - 1:
                    rows = torch.nn.functional.dropout(rows, self.dropout, self.training)
        h, c = (torch.stack(parts) for parts in zip(*last, strict=True))
        if steps.back is not None:
            h, c = h.index_select(1, steps.back), c.index_select(1, steps.back)
        return rows, (h, c)

    def _inputs(self, suffix: str, x: Tensor, h: Tensor, c: Tensor) -> LstmInputs:
        weight_ih, weight_hh = (getattr(self, f"{name}_{suffix}") for name in ("weight_ih", "weight_hh"))
        bias = getattr(self, f"bias_ih_{suffix}") + getattr(self, f"bias_hh_{suffix}") if self.bias else None
        of_input, of_hidden, of_cell = self._norms_of(suffix)
        gains = (of_input.weight, of_hidden.weight, of_cell.weight)
        return LstmInputs(x, h, c, weight_ih.to(x.dtype), weight_hh.to(x.dtype), bias, *gains, of_cell.bias)

    def _norms(self, suffix: str, sequences: int) -> LstmNorms:
        return LstmNorms(*(self._step_norm(norm, sequences) for norm in self._norms_of(suffix)))

    def _norms_of(self, suffix: str) -> list[Any]:
        return [getattr(self, f"{name}_{suffix}") for name in ("norm_ih", "norm_hh", "norm_c")]

    def _hidden(self, steps: Steps, hx: Hidden | None) -> Hidden:
        """(h, c) before the first step, in the order of the steps."""
        if not steps.sizes:
            raise _without_steps(steps.rows)
        # Of sizes it asks whether there are any; a tensor of them would fix those of an exported graph.
        self.check_input(steps.rows, batch_sizes=steps.rows)
        layers = self.num_layers * (2 if self.bidirectional else 1)
        shape = (layers, steps.sizes[0], self.hidden_size)
        if hx is None:
            zeros = steps.rows.new_zeros(shape)
            return zeros, zeros
        for name, tensor in zip(("h", "c"), hx, strict=True):
            if tensor.shape != shape:
                raise ShapeError(f"Expected hidden size {shape}, got {list(tensor.shape)}: {name} of hx")
        if steps.order is None:
            return hx
        return hx[0].index_select(1, steps.order), hx[1].index_select(1, steps.order)

    def _refuse_lengths(self, lengths: Any, mask: Tensor | None, why: str) -> None:
        if lengths is not None or mask is not None:
            raise OptionError(f"lengths= and mask= are for padded batches: {why}")


def _check_padded(x: Tensor, batch_first: bool) -> None:
    if x.dim() != 3:
        raise ShapeError(
            f"LSTM: Expected input to be 2D or 3D, got {x.dim()}D instead: a batch of sequences, or one"
        )
    if not x.shape[1 if batch_first else 0]:
        raise _without_steps(x)


def _without_steps(x: Tensor) -> ShapeError:
    return ShapeError(
        f"Expected sequence length to be larger than 0 in RNN, got input of size {list(x.shape)}: a batch "
        "may be without sequences, but not without a step"
    )


def check_eps(eps: Any) -> None:
    """The eps of a layer can be added to a variance."""
    if not is_number(eps) or not eps >= 0:
        raise OptionError(f"eps must be a number of at least 0, which is added to a variance, but is {eps!r}")


def _check_tensors(input: Any, hx: Any) -> None:
    if not isinstance(input, Tensor | PackedSequence):
        raise OptionError(
            "input must be a tensor or a torch.nn.utils.rnn.PackedSequence, but is a "
            f"{type(input).__name__}: torch.as_tensor makes a tensor of an array or a list"
        )
    if isinstance(input, Tensor):
        check_not_sharded("a normalised LSTM", input)
    if hx is None:
        return
    if not isinstance(hx, tuple | list) or len(hx) != 2 or not all(isinstance(t, Tensor) for t in hx):
        kinds = f" of {len(hx)}" if isinstance(hx, tuple | list) else ""
        raise OptionError(f"hx must be a pair of tensors (h, c), but is a {type(hx).__name__}{kinds}")
