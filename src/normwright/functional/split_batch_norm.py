"""Batch normalisation with statistics for each of several domains, as a function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.functional import operators
from normwright.functional.arguments import is_whole
from normwright.functional.batch_norm import batch_norm, check_call, check_momentum, check_running
from normwright.functional.moving import Running, move_towards


def split_batch_norm(
    input: Tensor,
    domains: int | Tensor,
    running: Sequence[Running],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """Normalises each sample with the moments of its domain; weight and bias are those of all.

        y = batch_norm(x of domain d),    for each domain d by itself

    Under `torch.func` running statistics move as `batch_norm`'s.

    Args:
        input: (N, C) or (N, C, *space), floating point, any memory format.
        domains: the domain of all samples, or (N,) integers, the domain of each.
        running: (running_mean, running_var, num_batches_tracked) of each domain, as of `batch_norm`; those of
            the domains in the batch are moved in place in training. Each may be None where batch norm's may.
        weight: (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        training: normalise by the moments of this batch's samples of a domain.
        momentum: share of the batch in a domain's running statistics; None is the cumulative mean.
        eps: added to the variance; same unit as input².
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: domains that are not (N,), one value per channel in a domain in training, or a vector that
            is not (C,).
        OptionError: a domain that there is not, or what `batch_norm` refuses.
        DtypeError: an input that is not floating point, domains that are no integers, or parameters of
            another dtype.
    References:
        Xie et al. 2020, arXiv:1911.09665; Zając, Żołna & Jastrzębski 2019, arXiv:1904.03515.
    Example:
        >>> x, domains = torch.tensor([[1.0], [10.0], [3.0], [30.0]]), torch.tensor([0, 1, 0, 1])
        >>> split_batch_norm(x, domains, [(None, None, None)] * 2, training=True, eps=1e-12).flatten()
        tensor([-1., -1.,  1.,  1.])
    """
    affine = (weight, bias)
    if not isinstance(domains, Tensor) or not domains.dim():
        domain = known_domain(domains, len(running))
        mean, variance, counted = running[domain]
        return batch_norm(
            input,
            mean,
            variance,
            *affine,
            training,
            momentum,
            eps,
            residual=residual,
            activation=activation,
            num_batches_tracked=counted,
        )
    check_call("batch_norm", input, residual, (None, None, *affine), activation, eps, training=training)
    check_momentum(momentum)
    domains = known_domains(domains, len(running), input.shape[0])
    if training:
        return _in_training(input, residual, domains, running, affine, momentum, eps, activation)
    members = [(domains == domain).nonzero().squeeze(1).to(input.device) for domain in range(len(running))]
    present = [(domain, rows) for domain, rows in enumerate(members) if rows.numel()]
    parts = [
        split_batch_norm(
            input.index_select(0, rows),
            domain,
            running,
            *affine,
            eps=eps,
            residual=None if residual is None else residual.index_select(0, rows),
            activation=activation,
        )
        for domain, rows in present
    ]
    if not parts:
        return batch_norm(input, None, None, *affine, True, eps=eps, activation=activation)
    back = torch.cat([rows for _, rows in present]).argsort()
    y = torch.cat(parts).index_select(0, back)  # which comes contiguous, whatever it is given
    if input.dim() > 3 and input.stride(1) == 1:
        return y.contiguous(memory_format=torch.channels_last if y.dim() == 4 else torch.channels_last_3d)
    return y


def _in_training(
    x: Tensor,
    residual: Tensor | None,
    domains: Tensor,
    running: Sequence[Running],
    affine: tuple[Tensor | None, Tensor | None],
    momentum: float | None,
    eps: float,
    activation: str | None,
) -> Tensor:
    """A domain is a part of the batch, in which no sample is moved."""
    samples = torch.bincount(domains, minlength=len(running)).tolist()
    present = [domain for domain, count in enumerate(samples) if count]
    for domain in present:
        mean, variance, counted = running[domain]
        check_call("batch_norm", x, residual, (mean, variance, *affine), activation, eps, training=True)
        check_running(mean, variance, momentum, counted)
        _check_count(x, domain, samples[domain])
    size = x.shape[2:].numel()
    spans = _spans_of(domains.cpu(), size)
    y, moments = operators.parts(x, residual, *affine, spans, len(running), eps, activation)
    for domain in present:
        mean, _, variance = moments[:, domain]
        move_towards(x, mean, variance, samples[domain] * size, running[domain], momentum)
    return y


def _spans_of(domains: Tensor, size: int) -> Tensor:
    """Of the samples, of so many positions each, that follow each other in a domain."""
    changes = (domains[1:] != domains[:-1]).nonzero().squeeze(1) + 1
    first = torch.cat([changes.new_zeros(min(len(domains), 1)), changes])
    length = torch.diff(first, append=first.new_tensor([len(domains)])[: len(first)])
    return torch.stack([domains[first], first * size, length * size], 1)


def known_domain(domain: int | Tensor, domains: int) -> int:
    """The domain itself, once it is known to be one of so many."""
    if not is_whole(domain):
        raise OptionError(
            f"a domain must be a whole number or an integer tensor (N,), but is {domain!r}: count them from 0"
        )
    if not 0 <= domain < domains:
        raise OptionError(f"a domain must be one of 0 to {domains - 1}, but is {domain}")
    return int(domain)


def known_domains(domains: Tensor, count: int, samples: int) -> Tensor:
    """The tensor as int64, once it is known to hold a domain for each sample."""
    if domains.is_floating_point() or domains.is_complex() or domains.dtype == torch.bool:
        raise DtypeError(f"domains must be integers, but are {domains.dtype}: count them from 0")
    if domains.shape != (samples,):
        raise ShapeError(
            f"domains must be ({samples},), one for each sample, but has shape {list(domains.shape)}"
        )
    known = domains.long()  # there are integers of which PyTorch takes no minimum
    if samples and not 0 <= int(known.min()) <= int(known.max()) < count:
        came = domains.tolist()  # of which int64 does not hold each
        raise OptionError(f"a domain must be one of 0 to {count - 1}, but {min(came)} to {max(came)} came")
    return known


def _check_count(x: Tensor, domain: int, samples: int) -> None:
    if samples == 1 and x.shape[1] and x[0].numel() == x.shape[1]:
        raise ShapeError(
            f"Expected more than 1 value per channel when training, but domain {domain} has one sample "
            f"of this batch {list(x.shape)}: the variance of one value is unknown. Give every "
            "domain of a batch two samples or more, or none"
        )
