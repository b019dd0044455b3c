"""Batch normalisation by fixed statistics, as modules. See `functional.batch_norm`."""

from __future__ import annotations

from typing import Any

import torch

from normwright.errors import OptionError
from normwright.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normwright.nn.signature import full_signature


def _check_tracked(module: torch.nn.modules.batchnorm._BatchNorm) -> None:
    if not module.track_running_stats:
        raise OptionError(
            "a frozen batch norm's track_running_stats must be True, since it normalises by its running "
            "statistics, but is False"
        )


def _fill_missing(module: torch.nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Takes the module's own count where a state has none; it is not computed with."""
    count = module._buffers["num_batches_tracked"]
    if f"{prefix}running_mean" in state and count is not None:
        own = torch.zeros_like(count, device="cpu") if count.is_meta else count
        state.setdefault(f"{prefix}num_batches_tracked", own)


@full_signature
class FrozenBatchNorm1d(BatchNorm1d):
    """Batch normalisation of (N, C) or (N, C, L) by running statistics that nothing moves.

        y = activation((x - running_mean)/√(running_var + eps)·weight + bias + residual)

    It stays in inference whatever `train()` is told. The statistics are constants of its gradients; weight
    and bias are parameters, and are trained unless `requires_grad_(False)`.

    State: as `BatchNorm1d`, whose checkpoints it takes, and those of frozen batch norms that do not count
    batches. `torch.nn.SyncBatchNorm.convert_sync_batchnorm` takes it for a batch norm that trains.

    The constructor is `BatchNorm1d`'s; `momentum` is kept and not used.
    """

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, activation=activation, **kwargs)
        _check_tracked(self)
        self.eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm1d:
        """Stays in inference."""
        super().train(False)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        _fill_missing(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


@full_signature
class FrozenBatchNorm2d(BatchNorm2d):
    """Batch normalisation of (N, C, H, W) by running statistics that nothing moves.

        y = activation((x - running_mean)/√(running_var + eps)·weight + bias + residual)

    It stays in inference whatever `train()` is told. The statistics are constants of its gradients; weight
    and bias are parameters, and are trained unless `requires_grad_(False)`.

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
        _check_tracked(self)
        self.eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm2d:
        """Stays in inference."""
        super().train(False)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        _fill_missing(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


@full_signature
class FrozenBatchNorm3d(BatchNorm3d):
    """Batch normalisation of (N, C, D, H, W) by running statistics that nothing moves.

        y = activation((x - running_mean)/√(running_var + eps)·weight + bias + residual)

    It stays in inference whatever `train()` is told. The statistics are constants of its gradients; weight
    and bias are parameters, and are trained unless `requires_grad_(False)`.

    State: as `BatchNorm3d`, whose checkpoints it takes, and those of frozen batch norms that do not count
    batches. `torch.nn.SyncBatchNorm.convert_sync_batchnorm` takes it for a batch norm that trains.

    The constructor is `BatchNorm3d`'s; `momentum` is kept and not used.
    """

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, activation=activation, **kwargs)
        _check_tracked(self)
        self.eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm3d:
        """Stays in inference."""
        super().train(False)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        _fill_missing(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)
