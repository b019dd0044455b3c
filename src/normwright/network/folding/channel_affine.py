"""What is left of a normaliser that nothing took in: one multiply-add per element."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normwright.backends.activation import ACTIVATIONS
from normwright.functional import batch_norm
from normwright.functional.arguments import HALF_DTYPES
from normwright.network.folding.affine import Affine
from normwright.nn.activation import known_activation, with_activation


class ChannelAffine(nn.Module):
    """y = activation(weight·x + bias + residual), channel by channel, of (N, C) or (N, C, *space).

    State: weight and bias (C,). It is one pass of memory, and exports as a multiplication and a sum.

    Args:
        num_features: C.
        activation: as in `normwright.functional`.
        device: of weight and bias, which start at 1 and 0.
        dtype: of weight and bias.
    Example:
        >>> affine = ChannelAffine(2)
        >>> affine(torch.ones(1, 2))
        tensor([[1., 1.]], grad_fn=<PlainBackward>)
    """

    def __init__(
        self,
        num_features: int,
        *,
        activation: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.activation = known_activation(activation)
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))
        # The operator's moments, such that it multiplies by 1 and subtracts 0.
        self._mean: Tensor
        self._variance: Tensor
        self.register_buffer("_mean", torch.zeros(num_features, device=device, dtype=dtype), persistent=False)
        self.register_buffer(
            "_variance", torch.ones(num_features, device=device, dtype=dtype), persistent=False
        )

    @classmethod
    def of(
        cls,
        affine: Affine,
        *,
        activation: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> ChannelAffine:
        """The module that computes an affine map, rounded once to dtype."""
        module = cls(affine.channels, activation=activation, device=device, dtype=dtype)
        with torch.no_grad():
            module.weight.copy_(affine.scale)
            module.bias.copy_(affine.shift)
        return module

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        # Compilers, exporters and subclasses of Tensor see plain operations, which fuse, and which ONNX has.
        if type(input) is not Tensor or torch.compiler.is_compiling() or torch._C._get_tracing_state():
            return self._in_plain_operations(input, residual)
        settings = (self._mean, self._variance, self.weight, self.bias, False, None, 0.0)
        return batch_norm(input, *settings, residual=residual, activation=self.activation)

    def _in_plain_operations(self, x: Tensor, residual: Tensor | None) -> Tensor:
        along = (-1, *[1] * (x.dim() - 2))
        weight, bias = self.weight.view(along), self.bias.view(along)
        half = x.dtype in HALF_DTYPES  # a half type would round the product too
        y = (x.float() * weight.float() + bias.float()) if half else x * weight + bias
        if residual is not None:
            y = y + residual
        if self.activation is not None:
            y = ACTIVATIONS[self.activation].value(y)
        return y.to(x.dtype) if half else y

    def extra_repr(self) -> str:
        """The number of channels, and the activation where there is one."""
        return with_activation(str(self.num_features), self.activation)
