"""Batch normalisation by fixed statistics, as modules. See `functional.batch_norm`."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from normwright.errors import OptionError
from normwright.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normwright.nn.signature import full_signature

_Self = TypeVar("_Self", bound="_FixedStatistics")


class _FixedStatistics(_BatchNorm):
    """What stays in inference, with the statistics that it was built with or has loaded."""

    def train(self: _Self, mode: bool = True) -> _Self:
        """Stays in inference."""
        super().train(False)
        return self

    def reset_running_stats(self) -> None:
        """Leaves them: `torch.optim.swa_utils.update_bn` resets all, and refills what trains alone."""

    def reset_parameters(self) -> None:
        """Starts anew, with the statistics: mean 0 and variance 1."""
        super().reset_running_stats()
        super().reset_parameters()

    def _check_tracked(self) -> None:
        if not self.track_running_stats:
            raise OptionError(
                "a frozen batch norm's track_running_stats must be True, since it normalises by its running "
                "statistics, but is False"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes the module's own count where a state has none; it is not computed with."""
        count = self._buffers["num_batches_tracked"]
        if f"{prefix}running_mean" in state_dict and count is not None:
            own = torch.zeros_like(count, device="cpu") if count.is_meta else count
            state_dict.setdefault(f"{prefix}num_batches_tracked", own)
        super()._load_from_state_dict(state_dict, prefix, *rest)


@full_signature
class FrozenBatchNorm1d(_FixedStatistics, BatchNorm1d):
    """Batch normalisation of (N, C) or (N, C, L) by running statistics that nothing moves.

        y = activation((x - running_mean)/√(running_var + eps)·weight + bias + residual)

    It stays in inference whatever `train()` is told, and `reset_running_stats()` leaves the statistics. They
    are constants of its gradients; weight and bias are parameters, trained unless `requires_grad_(False)`.

    State: as `BatchNorm1d`, whose checkpoints it takes, and those of frozen batch norms that do not count
    batches. `torch.nn.SyncBatchNorm.convert_sync_batchnorm` takes it for a batch norm that trains.

    The constructor is `BatchNorm1d`'s; `momentum` is kept and not used.
    """

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, activation=activation, **kwargs)
        self._check_tracked()
        self.eval()


@full_signature
class FrozenBatchNorm2d(_FixedStatistics, BatchNorm2d):
    """Batch normalisation of (N, C, H, W) by running statistics that nothing moves.

        y = activation((x - running_mean)/√(running_var + eps)·weight + bias + residual)

    It stays in inference whatever `train()` is told, and `reset_running_stats()` leaves the statistics. They
    are constants of its gradients; weight and bias are parameters, trained unless `requires_grad_(False)`.

    State: as `BatchNorm2d`, whose checkpoints it takes, and those of frozen batch norms that do not count
    batches. `torch.nn.SyncBatchNorm.convert_sync_batchnorm` takes it for a batch norm that trains.

    The constructor is `BatchNorm2d`'s; `momentum` is kept and not used.

    Example:
        >>> norm = FrozenBatchNorm2d(3, eps=0.0).train()
        >>> norm(torch.full((1, 3, 1, 1), 5.0)).flatten().tolist(), norm.running_mean.tolist()
        ([5.0, 5.0, 5.0], [0.0, 0.0, 0.0])
    """

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, activation=activation, **kwargs)
        self._check_tracked()
        self.eval()


@full_signature
class FrozenBatchNorm3d(_FixedStatistics, BatchNorm3d):
    """Batch normalisation of (N, C, D, H, W) by running statistics that nothing moves.

        y = activation((x - running_mean)/√(running_var + eps)·weight + bias + residual)

    It stays in inference whatever `train()` is told, and `reset_running_stats()` leaves the statistics. They
    are constants of its gradients; weight and bias are parameters, trained unless `requires_grad_(False)`.

    State: as `BatchNorm3d`, whose checkpoints it takes, and those of frozen batch norms that do not count
    batches. `torch.nn.SyncBatchNorm.convert_sync_batchnorm` takes it for a batch norm that trains.

    The constructor is `BatchNorm3d`'s; `momentum` is kept and not used.
    """

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, activation=activation, **kwargs)
        self._check_tracked()
        self.eval()
