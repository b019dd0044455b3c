"""The monitor as a callback of Lightning."""

from __future__ import annotations

from typing import Any

from normwright.doctor.monitor.monitor import Monitor
from normwright.doctor.monitor.options import Options
from normwright.errors import MissingExtraError, OptionError

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError as missing:
        raise MissingExtraError(
            "the callback needs Lightning, which is not installed: pip install lightning"
        ) from missing


class MonitorCallback(Callback):  # type: ignore[misc]
    """Watches a LightningModule while `Trainer.fit` runs; see `Monitor`.

    Without a writer it writes to the trainer's TensorBoard logger, where there is one. `monitor` is the
    monitor of the latest fit, whose windows stay readable after it.

    Args:
        options: `every`, `steps`, `rules`, `writer` and `on_finding` of `Monitor`.
    Raises:
        OptionError: one is out of range, or a rule is unknown.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = Options(**options)
        self.monitor: Monitor | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begins to watch."""
        if len(trainer.optimizers) != 1:
            raise OptionError(
                f"the callback watches the steps of one optimiser, but the module has "
                f"{len(trainer.optimizers)}: make a normwright.Monitor for each"
            )
        options = vars(self._options) | {"writer": self._options.writer or _writer(trainer)}
        self.monitor = Monitor(pl_module, trainer.optimizers[0], **options)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Takes the hooks off."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Takes the hooks off."""
        self._close()

    def _close(self) -> None:
        if self.monitor is not None:
            self.monitor.close()


def _writer(trainer: Any) -> Any:
    for logger in trainer.loggers:
        if type(logger).__name__ == "TensorBoardLogger":
            return logger.experiment
    return None
