"""Batches of sequences as recurrent layers take them: packed, padded, or of one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from normwright.errors import DeviceError, OptionError, ShapeError
from normwright.functional.masked_batch_norm import check_mask


@dataclass(frozen=True, eq=False)
class Steps:
    """Sequences laid out step after step, the longest first in each.

    Args:
        rows: (S, C), S elements in all.
        sizes: how many sequences have each step.
        order: (N,), the sequences' places before they were sorted; None where they were not.
        back: (N,), the way back.
        places: (S,), the elements' places in a padded batch; None where they are all of it, or it was packed.
    """

    rows: Tensor
    sizes: tuple[int, ...]
    order: Tensor | None = None
    back: Tensor | None = None
    places: Tensor | None = None

    def reversed_rows(self) -> Tensor:
        """(S,), which of `rows` each becomes in sequences read from their ends; its own inverse."""
        device = self.rows.device
        if self.sizes[0] == self.sizes[-1]:
            whole = torch.arange(self.rows.shape[0], device=device).view(len(self.sizes), self.sizes[0])
            return whole.flip(0).flatten()
        sizes = torch.tensor(self.sizes, device="cpu")
        begins = sizes.cumsum(0) - sizes
        lengths = (sizes > torch.arange(self.sizes[0], device="cpu").unsqueeze(1)).sum(1)
        step = torch.arange(len(sizes), device="cpu").repeat_interleave(sizes)
        row = torch.arange(len(step), device="cpu") - begins[step]
        return (begins[lengths[row] - 1 - step] + row).to(device)


def packed_steps(packed: PackedSequence) -> Steps:
    """The steps of a packed batch."""
    sizes = tuple(packed.batch_sizes.tolist())
    return Steps(packed.data, sizes, packed.sorted_indices, packed.unsorted_indices)


def padded_steps(x: Tensor, lengths: Tensor | None, batch_first: bool) -> Steps:
    """The steps of a padded batch (T, N, C), or (N, T, C) with `batch_first`."""
    batch, length = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
    if lengths is None:
        by_step = x.transpose(0, 1) if batch_first else x
        return Steps(by_step.reshape(-1, x.shape[2]), (batch,) * length)
    # As `pack_padded_sequence` does, which knows no forward-mode derivative.
    longest_first, order = lengths.cpu().sort(descending=True)
    going_on = torch.arange(length, device="cpu").unsqueeze(1) < longest_first
    step, row = going_on.nonzero().unbind(1)
    sequence = order[row]
    places = (sequence * length + step if batch_first else step * batch + sequence).to(x.device)
    sizes = tuple(size for size in going_on.sum(1).tolist() if size)
    rows = x.reshape(-1, x.shape[2]).index_select(0, places)
    order = order.to(x.device)
    return Steps(rows, sizes, order, order.argsort(), places)


def padded(rows: Tensor, steps: Steps, length: int, batch_first: bool) -> Tensor:
    """Rows of the steps as (length, N, C), or (N, length, C); 0 where a sequence has no such step."""
    batch, features = steps.sizes[0], rows.shape[1]
    if steps.places is None:
        whole = rows.view(length, batch, features)
        return whole.transpose(0, 1) if batch_first else whole
    filled = rows.new_zeros(batch * length, features).index_copy(0, steps.places, rows)
    return filled.view(batch, length, features) if batch_first else filled.view(length, batch, features)


def lengths_of(
    x: Tensor, lengths: Tensor | Sequence[int] | None, mask: Tensor | None, batch_first: bool
) -> Tensor | None:
    """(N,), how long each sequence of a padded batch is; None where all are as long as the batch.

    None also where they lie on the device "meta": the shapes of all results are those of the padded batch.

    Args:
        x: (T, N, C), or (N, T, C) with `batch_first`.
        lengths: (N,), integers from 1 to T, or a list of them.
        mask: (T, N), or (N, T) with `batch_first`; True where a step counts, from the first one on.
    Raises:
        OptionError: both lengths and mask.
        ShapeError: one of another shape, a sequence without a step, or a mask with a hole.
        DeviceError: one on the device "meta" with x elsewhere.
    """
    if lengths is not None and mask is not None:
        raise OptionError("lengths= and mask= say the same: pass one of them")
    for given in (lengths, mask):
        if isinstance(given, Tensor) and given.is_meta and not x.is_meta:
            raise DeviceError(
                f'lengths and masks must hold values, but one is on the device "meta" and x on {x.device}'
            )
    batch, steps = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
    if mask is not None:
        known = _lengths_of_mask(mask, batch, steps, batch_first)
    elif lengths is not None:
        known = _checked(lengths, batch)
    else:
        return None
    if torch.compiler.is_compiling():
        return known
    if not batch or known.is_meta:
        return None
    if not (int(known.min()) >= 1 and int(known.max()) <= steps):
        raise ShapeError(
            f"every sequence must have from 1 to {steps} steps, but lengths reach from {int(known.min())} "
            f"to {int(known.max())}: leave sequences without a step out of the batch"
        )
    return known


def _checked(lengths: Tensor | Sequence[int], batch: int) -> Tensor:
    # Of a tensor, `as_tensor` would make another on a default device.
    known = lengths if isinstance(lengths, Tensor) else torch.as_tensor(lengths, device="cpu")
    whole = not batch or not (known.is_floating_point() or known.dtype == torch.bool)
    if known.shape != (batch,) or not whole:
        raise ShapeError(
            f"lengths must be ({batch},), an integer for each sequence, but is {known.dtype} of shape "
            f"{list(known.shape)}"
        )
    return known


def _lengths_of_mask(mask: Tensor, batch: int, steps: int, batch_first: bool) -> Tensor:
    axes, shape = ("batch by steps", (batch, steps)) if batch_first else ("steps by batch", (steps, batch))
    check_mask(mask, shape, axes)
    by_sequence = mask if batch_first else mask.t()
    lengths = by_sequence.sum(1)
    whole = torch.arange(steps, device=mask.device) < lengths.unsqueeze(1)
    if mask.is_meta or torch.compiler.is_compiling():
        return lengths
    if not torch.equal(whole, by_sequence):
        raise ShapeError(
            "a sequence's steps must count from its first one on without a hole, but the mask of sequence "
            f"{int((whole != by_sequence).any(1).nonzero()[0])} does not: put padding at the end"
        )
    return lengths
