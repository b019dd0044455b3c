"""Watches a network's normalisation while it trains."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from normwright.doctor.diagnose import asked_for
from normwright.doctor.finding import SEVERITIES, Finding
from normwright.doctor.monitor.options import Options
from normwright.doctor.monitor.roll import Roll
from normwright.doctor.monitor.tensorboard import Writer, write
from normwright.doctor.monitor.watch import Watch
from normwright.doctor.monitor.window import Window
from normwright.doctor.subject import check_optimiser
from normwright.errors import OptionError
from normwright.network.calling import is_compiled
from normwright.network.counting import how_many
from normwright.statistics.batches import unwrapped

_log = logging.getLogger("normwright")

#: Windows that are kept.
KEPT = 64


class Monitor:
    """Watches a few steps of the optimiser every so often, and tells what goes wrong.

    It needs no call in the training loop: hooks of the network and of the optimiser tell it when a forward, a
    gradient and a step have come. Of `every` steps, `steps` in a row are watched, the first ones too; the
    others cost a counter. Under gradient accumulation the forwards that lead to a step belong to it. Training
    is not changed, to the bit. Where any of the network is compiled, only gradients and updates are read,
    since what listens to its layers would be compiled with them; a network that was compiled elsewhere
    (`step = torch.compile(network)`) is known as such from the first step on that is watched.

    Args:
        network: in training; wrappers (DistributedDataParallel, torch.compile) are looked through. Where its
            parameters are spread over processes (fully_shard), each of these must make a Monitor; of
            FullyShardedDataParallel, which flattens them, gradients and updates are not read.
        optimiser: that steps it. A step whose gradients a scaler found infinite is no step; where the
            optimiser is fused, it counts between two windows.
        every: steps from the beginning of one window to the next.
        steps: in a window.
        rules: names of those to ask; None for all that a training run gives evidence for.
        writer: a `torch.utils.tensorboard.SummaryWriter`, or what has its `add_scalar` and `add_text`; None
            writes nothing.
        on_finding: called with each finding that the window before did not have, or not as grave; by default
            it is logged, by the logger "normwright".
    Raises:
        OptionError: an option is out of range, a rule is unknown, or the optimiser steps another network or
            takes no hooks. In a step of the optimiser: the parameters are spread, and not all watch.
    Example:
        >>> network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> with Monitor(network, optimiser, every=10, steps=2) as monitor:
        ...     for _ in range(3):
        ...         optimiser.zero_grad()
        ...         network(torch.randn(8, 4)).square().mean().backward()
        ...         optimiser.step()
        >>> [(window.first, window.last) for window in monitor.windows]
        [(0, 1)]
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: Optimizer,
        *,
        every: int = 500,
        steps: int = 4,
        rules: Collection[str] | None = None,
        writer: Writer | None = None,
        on_finding: Callable[[Finding], None] | None = None,
    ) -> None:
        options = Options(every, steps, rules, writer, on_finding)
        self._network = unwrapped(network)
        check_optimiser(self._network, optimiser)
        self._compiled = is_compiled(network)
        self._rules = asked_for(options.rules)
        self._every, self._steps, self._writer = every, steps, writer
        self._on_finding = _logged if on_finding is None else on_finding
        self._step = 0
        self._optimiser = optimiser
        self._watch: Watch | None = None
        self._skipped = False
        self._windows: collections.deque[Window] = collections.deque(maxlen=KEPT)
        self._told: dict[tuple[str, str], int] = {}
        self._roll = Roll(self._network)
        try:
            self._hooks = [
                optimiser.register_step_pre_hook(self._before_step),
                optimiser.register_step_post_hook(self._after_step),
            ]
        except AttributeError as error:
            self._roll.close()
            raise OptionError(
                "the optimiser must take hooks of its steps (Optimizer.register_step_pre_hook), but "
                f"{type(optimiser).__name__} does not: where it wraps another, give that one"
            ) from error
        self._begin()

    @property
    def windows(self) -> tuple[Window, ...]:
        """Those that are complete, the latest last."""
        return tuple(self._windows)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of the latest window."""
        return self._windows[-1].findings if self._windows else ()

    def __repr__(self) -> str:
        """What is watched, how often, and what was seen; nothing is computed for it."""
        counted = collections.Counter(finding.severity for finding in self.findings)
        found = ", ".join(how_many(counted[grade], grade) for grade in SEVERITIES if counted[grade])
        state = f"{how_many(len(self._windows), 'window')}, the latest with {found or 'nothing found'}"
        if not self._windows:
            state = "no window yet"
        if not self._hooks:
            state += ", closed"
        return (
            f"Monitor({type(self._network).__name__}, {type(self._optimiser).__name__}, every={self._every}, "
            f"steps={self._steps}: {how_many(self._step, 'step')}, {state})"
        )

    def close(self) -> None:
        """Takes the hooks off; a window that is not complete is left out."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._roll.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        self._watch = Watch(self._network, self._optimiser, self._step, self._steps, compiled=self._compiled)

    def _before_step(
        self, optimiser: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # A scaler calls a fused optimiser all the same, which then makes no step; to ask waits for the GPU.
        self._skipped = self._watch is not None and bool(getattr(optimiser, "found_inf", False))
        if self._watch is None or self._skipped:
            return None
        self._roll.check()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._watch.gradients_ready()
            return None
        return (args[0], *args[2:]), {**kwargs, "closure": self._watch.closure(closure)}

    def _after_step(self, *_: Any) -> None:
        if self._skipped:
            return
        if self._watch is not None:
            self._watch.stepped()
            if self._watch.is_complete:
                self._end(self._watch)
        self._step += 1
        if self._watch is None and self._step % self._every == 0:
            self._begin()

    def _end(self, watch: Watch) -> None:
        watch.close()
        self._watch, self._compiled = None, watch.compiled
        window = watch.window(self._rules)
        self._windows.append(window)
        graveness = [SEVERITIES.index(finding.severity) for finding in window.findings]
        places = [(finding.rule, finding.layer) for finding in window.findings]
        new = [
            finding
            for finding, place, grave in zip(window.findings, places, graveness, strict=True)
            if grave < self._told.get(place, len(SEVERITIES))
        ]
        # the gravest come first, and so are put down last
        self._told = dict(reversed(list(zip(places, graveness, strict=True))))
        if self._writer is not None:
            write(self._writer, window, new)
        for finding in new:
            self._on_finding(finding)


def _logged(finding: Finding) -> None:
    where = f" in {finding.layer}" if finding.layer else ""
    level = {"error": logging.ERROR, "warning": logging.WARNING, "note": logging.INFO}[finding.severity]
    _log.log(level, "%s%s: %s. %s", finding.rule, where, finding.message, finding.advice)
