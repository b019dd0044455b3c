"""Gradient accumulation: one update of the running statistics from all micro-batches together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normwright.backends.merged import Merged, merge, move_running
from normwright.errors import OptionError
from normwright.functional.batch_renorm import move_deviation
from normwright.functional.collectives import Ranks, gathered, ranks_of
from normwright.network.copying import check_holds_numbers
from normwright.network.walk import check_network
from normwright.nn.batch_renorm import _BatchRenorm
from normwright.nn.bookkeeping import is_recomputation
from normwright.statistics.counted import counted
from normwright.statistics.layers import check_not_lazy


@contextlib.contextmanager
def accumulate(network: nn.Module) -> Iterator[None]:
    """Estimates running statistics over the batch that micro-batches make together.

    At its end every batch norm that was used in training mode moves its running statistics once, towards
    mean and unbiased variance of all elements that it saw (batch renorm towards their biased deviation, as
    ever); num_batches_tracked goes up by one. Without it they move at every micro-batch, towards moments of a
    part, whose variance lacks what lies between the parts. Each micro-batch is still *normalised* by its own
    moments: outputs and gradients are the same to the bit. It costs one more reading of each normaliser's
    input.

    A layer that the network uses several times moves once for each use, as it would with the whole batch;
    a synchronised one, towards the moments over all processes, which takes one collective in all. What
    activation checkpointing runs a second time is not counted. After an exception the running statistics
    are what they were at the beginning. Other normalisers, those of several domains and those in inference
    mode are left alone.

    Args:
        network: whose batch norms are meant; call it, or what holds it, within.
    Raises:
        OptionError: a normaliser was used unseen, because the network had been compiled before, and its
            running statistics are what they were; or, at the beginning, it is lazy or on the device meta.
    References:
        Chan, Golub & LeVeque 1979, Stanford STAN-CS-79-773.
    Example:
        >>> network = torch.nn.BatchNorm1d(1, momentum=1.0)
        >>> with accumulate(network):
        ...     for micro_batch in torch.tensor([[[0.0], [2.0]], [[4.0], [6.0]]]):
        ...         network(micro_batch).sum().backward()
        >>> network.running_mean, network.num_batches_tracked
        (tensor([3.]), tensor(1))
    """
    check_network(network)
    check_holds_numbers(network)
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            check_not_lazy(name, module)
    tallies = [
        _Tally(name, module)
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        and module.track_running_stats
        and module.running_mean is not None
        and getattr(module, "domains", 1) == 1
    ]
    call = _Call(tallies)
    handles = [
        network.register_forward_pre_hook(call.begin),
        network.register_forward_hook(call.end, always_call=True),
        *(tally.module.register_forward_pre_hook(tally.see, with_kwargs=True) for tally in tallies),
    ]
    done = False
    try:
        yield
        _check_seen(tallies)
        done = True
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            batches = _joined(tallies) if done else {}
            for tally in tallies:
                tally.restore()
                for batch in batches.get(tally, ()):
                    tally.move(batch)


class _Tally:
    """What one batch norm has seen: the moments of each of its uses in a call of the network."""

    def __init__(self, name: str, module: _BatchNorm) -> None:
        self.name, self.module = name, module
        self.before = {key: None if b is None else b.clone() for key, b in module._buffers.items()}
        self.uses: list[Merged] = []
        self.next = 0
        self.within_call = False

    def see(self, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Merges a micro-batch into those before; a forward pre-hook."""
        if not module.training or is_recomputation():
            return
        x = counted(module, args, named)
        assert x is not None
        batch = Merged(*torch.ops.normwright.channel_moments(x.detach()))
        # Outside a call of the network nothing says where the next micro-batch begins.
        use = self.next if self.within_call else 0
        if use == len(self.uses):
            self.uses.append(batch)
        else:
            self.uses[use] = _merged([self.uses[use], batch])
        self.next += 1

    def restore(self) -> None:
        """The buffers as they were."""
        for key, before in self.before.items():
            now = self.module._buffers.get(key)
            if before is not None and now is not None:
                now.data.copy_(before)

    def move(self, batch: Merged) -> None:
        """The running statistics, once."""
        module = self.module
        mean, variance, count = (
            None if buffer is None else buffer.data
            for buffer in (module.running_mean, module.running_var, module.num_batches_tracked)
        )
        # As `data`: PyTorch saves them for a backward, which may follow and does not read them in training.
        if isinstance(module, _BatchRenorm) and mean is not None and variance is not None and batch.count:
            deviations = ((moment + module.eps).sqrt() for moment in (batch.variance, variance.double()))
            move_deviation(mean, variance, count, module.momentum, module.eps, batch.mean, *deviations)
        else:
            move_running(batch, mean, variance, count, module.momentum)

    def ranks(self) -> Ranks | None:
        """The processes that the batch norm is synchronised over."""
        return ranks_of(self.module.process_group) if isinstance(self.module, nn.SyncBatchNorm) else None


class _Call:
    """Begins to count a layer's uses anew with every call of the network."""

    def __init__(self, tallies: list[_Tally]) -> None:
        self.tallies = tallies

    def begin(self, *_: Any) -> None:
        """A forward pre-hook of the network."""
        for tally in self.tallies:
            tally.next, tally.within_call = 0, True

    def end(self, *_: Any) -> None:
        """A forward hook of the network."""
        for tally in self.tallies:
            tally.next, tally.within_call = 0, False


def _merged(parts: list[Merged]) -> Merged:
    counts, means, m2s = (
        torch.stack([getattr(part, name) for part in parts]) for name in ("count", "mean", "m2")
    )
    return merge(counts, means, m2s)


def _check_seen(tallies: list[_Tally]) -> None:
    for tally in tallies:
        before, now = tally.before.get("num_batches_tracked"), tally.module.num_batches_tracked
        if not tally.uses and before is not None and now is not None and not torch.equal(before, now):
            raise OptionError(
                f"every batch norm must be called as a module, so that a hook sees its input, but "
                f"{tally.name or 'the network'!r} was used unseen: accumulate() does not reach into a "
                "network that was compiled before it; use the network itself, or compile it inside"
            )


def _joined(tallies: list[_Tally]) -> dict[_Tally, list[Merged]]:
    """The moments of each use; of synchronised layers over their processes, a collective for each group."""
    found = {tally: tally.uses for tally in tallies}
    groups: dict[tuple[Ranks, torch.device], list[_Tally]] = {}
    for tally in tallies:
        ranks = tally.ranks()
        if ranks is not None and tally.uses:
            groups.setdefault((ranks, tally.uses[0].mean.device), []).append(tally)
    for (ranks, _), members in groups.items():
        own = [torch.cat([u.count.view(1), u.mean, u.m2]) for tally in members for u in tally.uses]
        parts = iter(gathered(torch.cat(own), ranks).split([len(part) for part in own], dim=1))
        for tally in members:
            found[tally] = [_over_ranks(next(parts)) for _ in tally.uses]
    return found


def _over_ranks(rows: Tensor) -> Merged:
    channels = (rows.shape[1] - 1) // 2
    counts, means, m2s = rows.split([1, channels, channels], dim=1)
    return merge(counts.squeeze(1), means, m2s)
