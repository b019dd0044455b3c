"""Runs a folded network at other sizes than the example's, of which a trace at the example's tells nothing.

Amounts of padding, numbers of elements and branches that a forward computes from its input's size are
numbers in a trace, such as a padding of 0. So the folded network is compared once more, on drawn inputs.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from normwright.errors import FoldError, OptionError
from normwright.network.calling import Call, tensors_of
from normwright.network.folding.difference import compare, outputs

_Shape = tuple[int, ...]

# Rounding is judged at the example. What is looked for here is a wrong fold, as by a border, and far off.
_MARGIN = 8.0


def check_other_sizes(
    unfolded: nn.Module,
    folded: nn.Module,
    call: Call,
    tolerance: float | None,
    free: Sequence[Sequence[int]] | None = None,
) -> str:
    """Compares at other sizes, where the unfolded network takes any; copies are run.

    Args:
        unfolded: the network.
        folded: the folded one.
        call: the example.
        tolerance: see `compare`.
        free: for each tensor of the example the axes that may have other sizes; None for all.
    Returns:
        What was checked, in words.
    Raises:
        FoldError: the folded network is wrong at other sizes.
    """
    for shapes in _other_shapes(call, free):
        sizes = ", ".join(str(shape) for shape in dict.fromkeys(shapes))
        other = _drawn(call, shapes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the network's own, about sizes that nobody asked for
            if not _takes(unfolded, other):
                continue
            try:
                compare(copy.deepcopy(unfolded), copy.deepcopy(folded), other, tolerance, margin=_MARGIN)
            except (OptionError, torch.cuda.OutOfMemoryError):
                continue  # no float64 at this size
            except Exception as error:
                raise FoldError(
                    "the folded network must compute what the unfolded one does at other sizes than the "
                    f"example's too, but at {sizes} it does not ({type(error).__name__}: {error}): what the "
                    "network computes depends on its input's size in a way that the trace at the example's "
                    "size does not show, and the network is left as it was; fold what is inside it alone"
                ) from error
        return f"Checked at {sizes} too."
    return "Holds for inputs of the example's sizes: the network takes none of the others that were tried."


def _takes(network: nn.Module, call: Call) -> bool:
    try:
        outputs(copy.deepcopy(network), call)
    except Exception:  # whatever a network raises at a size that it does not take
        return False
    return True


def _other_shapes(call: Call, free: Sequence[Sequence[int]] | None) -> Iterator[list[_Shape]]:
    """Shapes for the tensors of a call: with a larger batch and space, the space alone, the batch alone."""
    tensors = tensors_of([call.args, call.named])
    if free is not None and len(free) != len(tensors):
        return
    batch = next((tensor.shape[0] for tensor in tensors if tensor.dim()), 0)
    axes = [range(tensor.dim()) for tensor in tensors] if free is None else free
    known = [[tuple(tensor.shape) for tensor in tensors]]
    for ways in ((_more_batch(batch), _more_space), (_more_space,), (_more_batch(batch),)):
        shapes = []
        for tensor, changeable in zip(tensors, axes, strict=True):
            sizes = list(tensor.shape)
            for axis in changeable:
                for way in ways:
                    sizes[axis] = way(tensor, axis, sizes[axis])
            shapes.append(tuple(sizes))
        if shapes not in known:
            known.append(shapes)
            yield shapes


def _more_batch(batch: int) -> Callable[[Tensor, int, int], int]:
    return lambda tensor, axis, size: 2 * size if axis == 0 and size == batch else size


def _more_space(tensor: Tensor, axis: int, size: int) -> int:
    if axis < 2 or not tensor.is_floating_point():
        return size
    return size + (1 if axis == tensor.dim() - 1 else 3)


def _drawn(call: Call, shapes: Sequence[_Shape]) -> Call:
    """A call with tensors of other shapes: of the example's mean and deviation, or its own values again."""
    generator = torch.Generator().manual_seed(1)
    remaining = iter(shapes)

    def drawn(value: Tensor) -> Tensor:
        shape = next(remaining)
        if not value.is_floating_point():
            repeats = [-(-size // max(old, 1)) for size, old in zip(shape, value.shape, strict=True)]
            return value.repeat(repeats) if repeats else value
        finite = value[value.isfinite()].double()
        mean, deviation = (float(finite.mean()), float(finite.std(False))) if finite.numel() else (0.0, 0.0)
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (mean + (deviation or 1.0) * numbers).to(value.device, value.dtype)

    return call.map(drawn)
