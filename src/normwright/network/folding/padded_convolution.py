"""Convolutions that pad each channel with a value of its own. See `padding`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from normwright.errors import OptionError, ShapeError
from normwright.network.folding.padding import pad_by_channel, padding_amounts


def _padded(convolution: _ConvNd, x: Tensor) -> Tensor:
    value: Any = convolution.padding_value
    return pad_by_channel(x, padding_amounts(convolution), value)


class ChannelPaddedConv1d(nn.Conv1d):
    """`torch.nn.Conv1d` whose padding has a value for each channel.

    State: weight and bias, and padding_value (C in,), a buffer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("padding_value", self.weight.new_zeros(self.in_channels))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        settings = (self.stride, 0, self.dilation, self.groups)
        return F.conv1d(_padded(self, input), weight, bias, *settings)


class ChannelPaddedConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` whose padding has a value for each channel.

    State: weight and bias, and padding_value (C in,), a buffer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("padding_value", self.weight.new_zeros(self.in_channels))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        settings = (self.stride, 0, self.dilation, self.groups)
        return F.conv2d(_padded(self, input), weight, bias, *settings)


class ChannelPaddedConv3d(nn.Conv3d):
    """`torch.nn.Conv3d` whose padding has a value for each channel.

    State: weight and bias, and padding_value (C in,), a buffer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("padding_value", self.weight.new_zeros(self.in_channels))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        settings = (self.stride, 0, self.dilation, self.groups)
        return F.conv3d(_padded(self, input), weight, bias, *settings)


_PADDED: dict[type[nn.Module], type[_ConvNd]] = {
    nn.Conv1d: ChannelPaddedConv1d,
    nn.Conv2d: ChannelPaddedConv2d,
    nn.Conv3d: ChannelPaddedConv3d,
}


def pad_with(convolution: nn.Module, value: Tensor) -> None:
    """Makes a convolution pad each channel with a value of its own, in place.

    It takes another class and one buffer, padding_value; weight, bias, hooks and every reference to it stay.

    Args:
        convolution: of exactly torch's class, padding with zeros.
        value: (C in,), as `padding.zero_points` gives them; rounded to the weight's dtype.
    Raises:
        OptionError: another class or padding mode, or a value beyond the dtype's range; nothing was changed.
        ShapeError: not one value for each channel in.
    Example:
        >>> convolution = nn.Conv1d(2, 4, 3, padding=1)
        >>> pad_with(convolution, torch.tensor([1.0, 2.0]))
        >>> convolution
        ChannelPaddedConv1d(2, 4, kernel_size=(3,), stride=(1,), padding=(1,))
    """
    kind = _PADDED.get(type(convolution))
    if kind is None:
        offered = ", ".join(f"torch.nn.{plain.__name__}" for plain in _PADDED)
        raise OptionError(
            f"what pads each channel must be exactly one of {offered}, but is {type(convolution).__name__}, "
            "which may pad in its own way"
        )
    assert isinstance(convolution, _ConvNd)
    if convolution.padding_mode != "zeros":
        raise OptionError(
            f"the padding mode must be 'zeros', but is {convolution.padding_mode!r}, which pads with the "
            "input's own values: it needs no padding by channel"
        )
    if value.shape != (convolution.in_channels,):
        raise ShapeError(
            f"there must be one value for each of {convolution.in_channels} channels in, but they have the "
            f"shape {list(value.shape)}"
        )
    rounded = value.detach().to(convolution.weight.device, convolution.weight.dtype)
    if not rounded.isfinite().all():
        raise OptionError(
            f"the values of the padding must fit in {rounded.dtype}, but the largest is "
            f"{float(value.abs().max()):.3g}: convert the layer to a wider dtype first"
        )
    object.__setattr__(convolution, "__class__", kind)
    convolution.register_buffer("padding_value", rounded)
