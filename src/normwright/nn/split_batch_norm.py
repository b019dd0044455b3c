"""Batch normalisation with statistics for each of several domains, as modules.

See `functional.split_batch_norm`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from normwright.errors import OptionError
from normwright.functional import split_batch_norm
from normwright.functional.arguments import whole
from normwright.functional.moving import Running
from normwright.functional.split_batch_norm import known_domain
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.bookkeeping import is_recomputation
from normwright.nn.parameters import weight_and_bias
from normwright.nn.signature import full_signature

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# From this version of PyTorch's batch norm on, a state holds `num_batches_tracked`.
_COUNTING = 2


@full_signature
class _SplitBatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """What the three have in common: all but the number of axes of their input."""

    def __init__(self, *args: Any, domains: int = 2, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.domains = domains = whole("domains", domains, 1)
        self.domain: int | Tensor = 0
        self.activation = known_activation(activation)
        for domain in range(1, domains):
            for name in _STATISTICS:
                first = getattr(self, name)
                self.register_buffer(f"{name}_{domain}", None if first is None else first.clone())

    def reset_running_stats(self) -> None:
        """Of every domain: mean 0, variance 1, no batch counted."""
        super().reset_running_stats()
        for domain in range(1, getattr(self, "domains", 1)):
            for name in _STATISTICS:
                first, other = getattr(self, name), getattr(self, f"{name}_{domain}")
                if first is not None:
                    other.copy_(first)

    def forward(
        self, input: Tensor, residual: Tensor | None = None, domains: int | Tensor | None = None
    ) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation.

        Args:
            input: as batch norm's.
            residual: input's shape.
            domains: the domain of all samples, or (N,) of each; None for what `domain` says, 0 by default.
        """
        self._check_input_dim(input)
        running = [self._running(domain) for domain in range(self.domains)]
        return split_batch_norm(
            input,
            self.domain if domains is None else domains,
            running,
            *weight_and_bias(self),
            self.training or running[0][0] is None,
            self.momentum,
            self.eps,
            residual=residual,
            activation=self.activation,
        )

    def _running(self, domain: int) -> Running:
        """The statistics of a domain, as far as this forward reads or moves them."""
        if self.training and (not self.track_running_stats or is_recomputation()):
            return None, None, None
        suffix = f"_{domain}" if domain else ""
        mean, variance, counted = (getattr(self, name + suffix) for name in _STATISTICS)
        return mean, variance, counted if self.training else None

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        """A checkpoint of batch norm starts every domain, one from before batches were counted too."""
        count = self.num_batches_tracked
        if (local_metadata.get("version") or 1) < _COUNTING and count is not None:
            own = torch.zeros_like(count, device="cpu") if count.is_meta else count
            state_dict.setdefault(f"{prefix}num_batches_tracked", own)
        for domain in range(1, self.domains):
            for name in _STATISTICS:
                own_key, first = f"{prefix}{name}_{domain}", f"{prefix}{name}"
                if own_key not in state_dict and first in state_dict:
                    # Of its own: with `assign=True` the module's buffers are the state's tensors themselves.
                    state_dict[own_key] = state_dict[first].clone()
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        """Batch norm's, with the number of domains."""
        return with_activation(f"{super().extra_repr()}, domains={self.domains}", self.activation)


class SplitBatchNorm1d(_SplitBatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) with moments of each domain by itself.

    Samples of several domains (clean and adversarial, labelled and not, augmented and not) share weight and
    bias, but a batch's moments and the running statistics are those of one domain. Every sample is of domain
    0 unless `domain` or the argument `domains` of a call says otherwise:

        loss = f(network(clean))
        with normwright.nn.domain(network, 1):
            loss = loss + f(network(adversarial))

    State: as `BatchNorm1d`'s, which is that of domain 0 and the only one that inference uses by default; and
    running_mean_d, running_var_d and num_batches_tracked_d of each further domain d. A checkpoint of batch
    norm can be loaded: it starts every domain.

    Args:
        args: those of `torch.nn.BatchNorm1d`.
        domains: how many.
        activation: what follows, computed in the same operator.
    Raises:
        OptionError: domains below 1, or an unknown activation.
    References:
        Xie et al. 2020, arXiv:1911.09665; Zając, Żołna & Jastrzębski 2019, arXiv:1904.03515.
    Example:
        >>> norm = SplitBatchNorm1d(3)
        >>> norm(torch.randn(4, 3) + 9, domains=1).shape
        torch.Size([4, 3])
        >>> float(norm.running_mean.sum()), float(norm.running_mean_1.sum()) > 1
        (0.0, True)
    """

    _check_input_dim = torch.nn.BatchNorm1d._check_input_dim


class SplitBatchNorm2d(_SplitBatchNorm):
    """Split batch normalisation of (N, C, H, W). See `SplitBatchNorm1d`."""

    _check_input_dim = torch.nn.BatchNorm2d._check_input_dim


class SplitBatchNorm3d(_SplitBatchNorm):
    """Split batch normalisation of (N, C, D, H, W). See `SplitBatchNorm1d`."""

    _check_input_dim = torch.nn.BatchNorm3d._check_input_dim


@contextmanager
def domain(network: nn.Module, domains: int | Tensor) -> Iterator[None]:
    """Tells every split batch norm of a network what domain its samples are of, while the context lasts.

    A backward that runs forwards again (activation checkpointing) must be inside the context too.

    Args:
        network: holds split batch norms; afterwards they have the domain that they had before.
        domains: the domain of all samples, or (N,) integers, that of each sample of the batch.
    Raises:
        OptionError: the network holds no split batch norm, or one without such a domain.
    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), SplitBatchNorm1d(3))
        >>> with domain(network, 1):
        ...     y = network(torch.randn(4, 2))
        >>> int(network[1].num_batches_tracked), int(network[1].num_batches_tracked_1)
        (0, 1)
    """
    norms = [module for module in network.modules() if isinstance(module, _SplitBatchNorm)]
    if not norms:
        raise OptionError(
            f"the network ({type(network).__name__}) must hold split batch norms to be told a domain, but "
            "holds none: put normwright.nn.SplitBatchNorm2d (1d, 3d) where its batch norms stand"
        )
    if not isinstance(domains, Tensor):
        for norm in norms:
            known_domain(domains, norm.domains)
    before = [(norm, norm.domain) for norm in norms]
    try:
        for norm in norms:
            norm.domain = domains
        yield
    finally:
        for norm, old in before:
            norm.domain = old
