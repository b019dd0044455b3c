"""Convolutions that add, at each place, what a shift of their input would have added there. See `border`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from normwright.errors import OptionError, ShapeError


def _shifted(layer: Any, convolve: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    space = len(layer.kernel_size)
    ones = torch.ones_like(x.narrow(-1 - space, 0, 1)[:1])  # (1, 1, *space), or (1, *space) without a batch
    settings = (layer.stride, layer.padding, layer.dilation)
    y: Tensor = convolve(x, weight, None, *settings, layer.groups)
    return y.add_(convolve(ones, layer.shift, bias, *settings))


class ShiftedConv1d(nn.Conv1d):
    """`torch.nn.Conv1d` that adds its convolution of ones with another weight, shift.

    State: weight and bias, and shift (C out, 1, *kernel), a buffer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("shift", self.weight.new_zeros((self.out_channels, 1, *self.kernel_size)))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        return _shifted(self, F.conv1d, input, weight, bias)


class ShiftedConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that adds its convolution of ones with another weight, shift.

    State: weight and bias, and shift (C out, 1, *kernel), a buffer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("shift", self.weight.new_zeros((self.out_channels, 1, *self.kernel_size)))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        return _shifted(self, F.conv2d, input, weight, bias)


class ShiftedConv3d(nn.Conv3d):
    """`torch.nn.Conv3d` that adds its convolution of ones with another weight, shift.

    State: weight and bias, and shift (C out, 1, *kernel), a buffer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("shift", self.weight.new_zeros((self.out_channels, 1, *self.kernel_size)))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        return _shifted(self, F.conv3d, input, weight, bias)


_SHIFTED: dict[type[nn.Module], type[_ConvNd]] = {
    nn.Conv1d: ShiftedConv1d,
    nn.Conv2d: ShiftedConv2d,
    nn.Conv3d: ShiftedConv3d,
}


def shift_by(convolution: nn.Module, shift: Tensor) -> None:
    """Makes a convolution add what a shift of its input adds, in place.

    It takes another class and one buffer, shift; weight, bias, hooks and every reference to it stay.

    Args:
        convolution: of exactly torch's class, padding with zeros.
        shift: (C out, 1, *kernel), as `border.shift_of` gives it; rounded to the weight's dtype.
    Raises:
        OptionError: another class or padding mode, or a value beyond the dtype's range; nothing was changed.
        ShapeError: not one value for each channel out and place in the kernel.
    Example:
        >>> convolution = nn.Conv1d(2, 4, 3, padding=1)
        >>> shift_by(convolution, torch.ones(4, 1, 3))
        >>> convolution
        ShiftedConv1d(2, 4, kernel_size=(3,), stride=(1,), padding=(1,))
    """
    kind = _SHIFTED.get(type(convolution))
    if kind is None:
        offered = ", ".join(f"torch.nn.{plain.__name__}" for plain in _SHIFTED)
        raise OptionError(
            f"what is shifted must be exactly one of {offered}, but is {type(convolution).__name__}, "
            "which may pad in its own way"
        )
    assert isinstance(convolution, _ConvNd)
    if convolution.padding_mode != "zeros":
        raise OptionError(
            f"the padding mode must be 'zeros', but is {convolution.padding_mode!r}, which pads with the "
            "input's own values: a shift of its input is a bias"
        )
    expected = (convolution.out_channels, 1, *convolution.kernel_size)
    if shift.shape != expected:
        raise ShapeError(f"the shift must be {expected}, but has the shape {tuple(shift.shape)}")
    rounded = shift.detach().to(convolution.weight.device, convolution.weight.dtype)
    if not rounded.isfinite().all():
        raise OptionError(
            f"the shift must fit in {rounded.dtype}, but its largest value is "
            f"{float(shift.abs().max()):.3g}: convert the layer to a wider dtype first"
        )
    object.__setattr__(convolution, "__class__", kind)
    convolution.register_buffer("shift", rounded)
