"""Whether the processes that train together hold the same network."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normwright.doctor.missing import SkipError
from normwright.doctor.subject import Subject
from normwright.errors import RankError
from normwright.functional.collectives import ranks_of as synchronised_over
from normwright.functional.sharded import whole
from normwright.network.frozen_class import is_frozen
from normwright.network.walk import is_normaliser
from normwright.statistics.ranks import agreed, exchanged, telling_others


@dataclass(frozen=True)
class RankFacts:
    """What differs between the ranks of a process group.

    Args:
        ranks: how many there are.
        parameters: names of those whose values differ, or that not all have.
        buffers: likewise, but for running statistics.
        settings: what differs of the modules' classes, modes and settings, in words.
        statistics: normalisers whose running statistics differ, with the largest distance between two ranks'
            means, in deviations.
    """

    ranks: int
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    settings: tuple[str, ...]
    statistics: tuple[tuple[str, float], ...]


# mean, variance and eps
_Running = tuple[list[float], list[float], float]


@dataclass(frozen=True, eq=False)
class _Share:
    """What one rank holds, how many batches it has read, and whether its forward waits for the others."""

    parameters: dict[str, str]
    buffers: dict[str, str]
    settings: dict[str, str]
    running: dict[str, _Running]
    batches: int
    waits: bool


def ranks_of(subject: Subject) -> RankFacts:
    """Compares what the ranks of the subject's group hold; each of them must call this.

    Raises:
        SkipError: no process group came, or it has a single rank.
        RankError: a rank failed, does not answer within the group's time limit, or has fewer batches than
            another where batch norm is synchronised.
    """
    group = subject.process_group
    if group is None:
        raise SkipError("no process_group came")
    if torch.distributed.get_world_size(group) < 2:
        raise SkipError("the process group has a single rank")
    with telling_others(group):
        share = _share_of(subject)
    shares: list[_Share] = exchanged(share, group, "call diagnose")
    _check_batches(shares)
    return RankFacts(
        len(shares),
        _names_that_differ([share.parameters for share in shares]),
        _names_that_differ([share.buffers for share in shares]),
        tuple(
            f"{name or 'the network'}: {_values_of(shares, name)}"
            for name in _names_that_differ([share.settings for share in shares])
        ),
        _distances([share.running for share in shares]),
    )


def waits_for_others(network: nn.Module) -> bool:
    """Whether it has a batch norm that is synchronised over several processes in training."""
    synchronised = (module for module in network.modules() if isinstance(module, nn.SyncBatchNorm))
    return any(
        not is_frozen(module) and synchronised_over(module.process_group) is not None
        for module in synchronised
    )


def all_finite(loss: float, subject: Subject) -> bool:
    """Whether a loss is finite; where ranks wait for each other in a forward, whether that of each is.

    One that stopped by itself would leave the others waiting.
    """
    group = subject.process_group
    waits = group is not None and waits_for_others(subject.network)
    return agreed(math.isfinite(loss), group if waits else None)


def _values_of(shares: Sequence[_Share], name: str) -> str:
    return " / ".join(dict.fromkeys(share.settings.get(name, "absent") for share in shares))


def _share_of(subject: Subject) -> _Share:
    network = subject.network
    running: dict[str, _Running] = {}
    buffers = {}
    for name, buffer in network.named_buffers():
        layer, _, kind = name.rpartition(".")
        if kind in ("running_mean", "running_var", "num_batches_tracked"):
            continue
        buffers[name] = _digest(buffer)
    for layer, module in network.named_modules():
        mean, variance = (module._buffers.get(kind) for kind in ("running_mean", "running_var"))
        if mean is not None and variance is not None:
            eps = float(getattr(module, "eps", 0.0))
            running[layer] = mean.double().tolist(), variance.double().tolist(), eps
    parameters = {name: _digest(parameter) for name, parameter in network.named_parameters()}
    settings = {name: _settings(module) for name, module in network.named_modules()}
    if subject.optimiser is not None:
        settings["optimiser"] = _settings_of_groups(subject.optimiser.param_groups)
    return _Share(parameters, buffers, settings, running, len(subject.batches), waits_for_others(network))


def _settings(module: nn.Module) -> str:
    mode = "training" if module.training else "inference"
    held = "".join(
        f", {name} without gradient"
        for name, parameter in module.named_parameters(recurse=False)
        if not parameter.requires_grad
    )
    inside = module.extra_repr() if is_normaliser(module) or not module._modules else ""
    return f"{type(module).__name__}({inside}) in {mode}{held}"


def _settings_of_groups(groups: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(
        ", ".join(
            f"{key}={value}"
            for key, value in sorted(group.items())
            if key != "params" and not isinstance(value, Tensor)
        )
        for group in groups
    )


def _digest(tensor: Tensor) -> str:
    plain = whole(tensor).detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(plain.numpy().tobytes(), digest_size=16).hexdigest()


def _check_batches(shares: Sequence[_Share]) -> None:
    """Raises where ranks would wait for one that has no more batches."""
    counts = [share.batches for share in shares]
    if any(share.waits for share in shares) and len(set(counts)) > 1:
        raise RankError(
            "every process of the group must have as many batches where batch norm is synchronised, since "
            f"each waits for the others, but they have {' / '.join(map(str, counts))}: give each as many, or "
            "ask for fewer by steps="
        )


def _names_that_differ(held: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    names = dict.fromkeys(name for of_rank in held for name in of_rank)
    return tuple(name for name in names if len({of_rank.get(name) for of_rank in held}) > 1)


def _distances(running: Sequence[Mapping[str, _Running]]) -> tuple[tuple[str, float], ...]:
    """The largest distance between two ranks' running means of a channel, in deviations, where not 0."""
    found = []
    for name in running[0]:
        held = [of_rank[name] for of_rank in running if name in of_rank]
        if any(len(mean) != len(held[0][0]) for mean, *_ in held):
            continue  # the settings differ
        means, variances = (
            torch.tensor([part[place] for part in held], dtype=torch.float64) for place in (0, 1)
        )
        if bool((means != means[0]).any()) or bool((variances != variances[0]).any()):
            spread = variances.amax(0) + max(eps for *_, eps in held)
            found.append((name, float(((means.amax(0) - means.amin(0)) / spread.sqrt()).max())))
    return tuple(found)
