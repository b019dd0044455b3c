"""Filter response normalisation as a module. See `functional.filter_response_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.errors import OptionError
from normwright.functional import filter_response_norm
from normwright.functional.arguments import is_number
from normwright.nn.activation import known_activation, with_activation

# Singh & Krishnan 2020, section 3.2: where the learned part of eps starts.
_EPS_START = 1e-4


class FilterResponseNorm(torch.nn.Module):
    """Filter response normalisation of (N, C, *space), with its thresholded linear unit.

    State: weight, bias and threshold (C,), and eps_learned () where eps is learned.

    The unit max(y, threshold) takes the place of an activation, and is part of the normaliser as its paper
    has it: without a mean taken away, outputs may lie far from 0, where a ReLU would pass or stop them all.

    Args:
        num_features: C.
        eps: added to the mean square.
        affine: whether there are weight and bias.
        tlu: whether the thresholded linear unit follows.
        learn_eps: adds |eps_learned| to eps, a number that is trained: for few positions, but more than
            one; a single one, as after a global pool, is refused.
        activation: what follows, in the place of the unit or after it.
    Raises:
        OptionError: eps not above 0, or an unknown activation.
    References:
        Singh & Krishnan 2020, arXiv:1911.09737.
    Example:
        >>> FilterResponseNorm(3)(torch.randn(2, 3, 4, 4)).shape
        torch.Size([2, 3, 4, 4])
    """

    weight: Tensor | None
    bias: Tensor | None
    threshold: Tensor | None
    eps_learned: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        tlu: bool = True,
        learn_eps: bool = False,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        if not is_number(eps) or not eps > 0:
            raise OptionError(
                f"eps must be above 0, so that a channel of zeros has an output, but is {eps!r}"
            )
        self.num_features, self.eps = num_features, eps
        self.affine, self.tlu, self.learn_eps = affine, tlu, learn_eps
        self.activation = known_activation(activation)
        shapes = {"weight": affine, "bias": affine, "threshold": tlu}
        for name, wanted in shapes.items():
            vector = torch.empty(num_features, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, None if vector is None else torch.nn.Parameter(vector))
        learned = torch.empty((), device=device, dtype=dtype) if learn_eps else None
        self.register_parameter("eps_learned", None if learned is None else torch.nn.Parameter(learned))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The weight becomes 1, bias and threshold 0."""
        starts = {"weight": 1.0, "bias": 0.0, "threshold": 0.0, "eps_learned": _EPS_START}
        for name, start in starts.items():
            parameter = getattr(self, name)
            if parameter is not None:
                torch.nn.init.constant_(parameter, start)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        eps: float | Tensor = self.eps
        if self.eps_learned is not None:
            learned = self.eps_learned.abs()
            eps = self.eps + learned.to(torch.promote_types(learned.dtype, torch.float32))
        vectors = (self.weight, self.bias, self.threshold)
        return filter_response_norm(input, *vectors, eps, residual=residual, activation=self.activation)

    def extra_repr(self) -> str:
        """The options."""
        learned = ", learn_eps=True" if self.learn_eps else ""
        return with_activation(
            f"{self.num_features}, eps={self.eps}, affine={self.affine}, tlu={self.tlu}{learned}",
            self.activation,
        )
