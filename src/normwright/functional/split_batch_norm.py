"""Batch normalisation with statistics for each of several domains, as a function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normwright.backends.activation import ACTIVATIONS
from normwright.backends.merged import Merged, move_running
from normwright.errors import OptionError, ShapeError
from normwright.functional.batch_norm import batch_norm, check_call, check_running
from normwright.functional.batch_parts import PartsOfBatch, takes_parts
from normwright.functional.instances import Mapped, batch_norms_map, normalise_instances

# Elements of a sample from which taking those of a domain together costs more than leaving all in place.
_WORTH_A_SWEEP = 1 << 12

# running_mean, running_var and num_batches_tracked of one domain.
Running = tuple[Tensor | None, Tensor | None, Tensor | None]


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
    if not isinstance(domains, Tensor):
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
    known_domains(domains, len(running), input.shape[0])
    members = [(domains == domain).nonzero().squeeze(1).to(input.device) for domain in range(len(running))]
    present = [(domain, rows) for domain, rows in enumerate(members) if rows.numel()]
    if training:
        _check_counts(input, present)
        if len(input) and input[0].numel() >= _WORTH_A_SWEEP and input.dim() > 2:
            y = _in_place(input, present, running, *affine, momentum, eps)
            if residual is not None:
                y = y + residual.to(y.dtype)
            return ACTIVATIONS[activation].value(y) if activation else y
    parts = [
        split_batch_norm(
            input.index_select(0, rows),
            domain,
            running,
            *affine,
            training,
            momentum,
            eps,
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


def _in_place(
    x: Tensor,
    present: list[tuple[int, Tensor]],
    running: Sequence[Running],
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float | None,
    eps: float,
) -> Tensor:
    """Where no sample is moved."""
    for domain, _ in present:
        mean, variance, counted = running[domain]
        check_call("batch_norm", x, None, (mean, variance, weight, bias), None, eps, training=True)
        check_running(mean, variance, momentum, counted)
    y: Tensor
    in_order = sorted(present, key=lambda of_domain: int(of_domain[1][0]))
    if takes_parts(x) and _is_in_runs(in_order):
        y, means, variances = PartsOfBatch.apply(x, weight, bias, [len(rows) for _, rows in in_order], eps)
        told = list(zip(means, variances, strict=True))
    else:
        y, told = _by_instances(x, in_order, weight, bias, eps)
    size = x.shape[2:].numel()
    with torch.no_grad():
        for (domain, rows), moments in zip(in_order, told, strict=True):
            count = moments[0].new_tensor(len(rows) * size)
            move_running(Merged(count, moments[0], moments[1] * count), *running[domain], momentum)
    return y


def _is_in_runs(in_order: list[tuple[int, Tensor]]) -> bool:
    """Whether the samples of each domain follow each other, as where batches of each are joined."""
    return all(int(rows[-1]) - int(rows[0]) + 1 == len(rows) for _, rows in in_order)


def _by_instances(
    x: Tensor, present: list[tuple[int, Tensor]], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """A domain's moments are those of its instances, merged by Chan's formula; y and these moments."""
    back = torch.cat([rows for _, rows in present]).argsort()

    def algebra(means: Tensor, variances: Tensor, weight: Tensor | None, bias: Tensor | None) -> Mapped:
        parts, told = [], []
        for _, rows in present:
            of_domain = means.index_select(0, rows)
            mean = of_domain.mean(0)
            variance = variances.index_select(0, rows).mean(0) + (of_domain - mean).square().mean(0)
            told += [mean, variance]
            own = batch_norms_map(mean, variance, weight, bias, eps)
            parts.append([part.expand_as(of_domain) for part in own])
        centre, scale, shift = (torch.cat(part).index_select(0, back) for part in zip(*parts, strict=True))
        return Mapped(centre, scale, shift, tuple(told))

    y, told = normalise_instances(x, algebra, (weight, bias))
    return y, list(zip(told[::2], told[1::2], strict=True))


def known_domain(domain: int, domains: int) -> int:
    """The domain itself, once it is known to be one of so many."""
    if isinstance(domain, bool) or not isinstance(domain, int):
        raise OptionError(
            f"a domain must be a whole number or an integer tensor (N,), but is {domain!r}: count them from 0"
        )
    if not 0 <= domain < domains:
        raise OptionError(f"a domain must be one of 0 to {domains - 1}, but is {domain}")
    return domain


def known_domains(domains: Tensor, count: int, samples: int) -> Tensor:
    """The tensor itself, once it is known to hold a domain for each sample."""
    if domains.is_floating_point() or domains.is_complex() or domains.dtype == torch.bool:
        raise OptionError(f"domains must be integers, but are {domains.dtype}: count them from 0")
    if domains.shape != (samples,):
        raise ShapeError(
            f"domains must be ({samples},), one for each sample, but has shape {list(domains.shape)}"
        )
    if samples and not 0 <= int(domains.min()) <= int(domains.max()) < count:
        raise OptionError(
            f"a domain must be one of 0 to {count - 1}, but {int(domains.min())} to {int(domains.max())} came"
        )
    return domains


def _check_counts(x: Tensor, present: list[tuple[int, Tensor]]) -> None:
    """Checked for all before any statistics are moved."""
    for domain, rows in present:
        if len(rows) == 1 and x.shape[1] and x[0].numel() == x.shape[1]:
            raise ShapeError(
                f"Expected more than 1 value per channel when training, but domain {domain} has one sample "
                f"of this batch {list(x.shape)}: the variance of one value is unknown. Give every "
                "domain of a batch two samples or more, or none"
            )
