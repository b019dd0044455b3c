"""The monitor as a callback of Transformers' Trainer."""

from __future__ import annotations

from typing import Any

from normwright.doctor.monitor.monitor import Monitor
from normwright.doctor.monitor.options import Options
from normwright.errors import MissingExtraError

try:
    from transformers import TrainerCallback
except ImportError as missing:
    raise MissingExtraError(
        "the callback needs Transformers, which is not installed: pip install transformers"
    ) from missing


class MonitorCallback(TrainerCallback):
    """Watches a network while `Trainer.train` runs; see `Monitor`.

    `monitor` is the monitor of the latest run, whose windows stay readable after it.

    Args:
        options: `every`, `steps`, `rules`, `writer` and `on_finding` of `Monitor`.
    Raises:
        OptionError: one is out of range, or a rule is unknown.
    """

    def __init__(self, **options: Any) -> None:
        self._options = Options(**options)
        self.monitor: Monitor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins to watch; the Trainer says nothing of a run before that failed."""
        self._close()
        # Accelerate puts a wrapper around the optimiser, which steps only where gradients are complete.
        optimiser = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        self.monitor = Monitor(kwargs["model"], optimiser, **vars(self._options))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes the hooks off."""
        self._close()

    def _close(self) -> None:
        if self.monitor is not None:
            self.monitor.close()
