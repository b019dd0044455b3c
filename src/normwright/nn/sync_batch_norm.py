"""Synchronised batch normalisation as a module. See `functional.sync_batch_norm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from normwright.errors import OptionError
from normwright.functional import sync_batch_norm
from normwright.functional.sharded import is_sharded
from normwright.nn.activation import known_activation, with_activation
from normwright.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, running_statistics
from normwright.nn.batch_norm import _forward as _batch_forward
from normwright.nn.parameters import weight_and_bias
from normwright.nn.signature import full_signature


def _forward(
    module: torch.nn.SyncBatchNorm, x: Tensor, residual: Tensor | None, activation: str | None
) -> Tensor:
    if not module.training:
        return _batch_forward(module, x, residual, activation)
    module._check_input_dim(x)
    module._check_non_zero_input_channels(x)
    running_mean, running_var, num_batches_tracked = running_statistics(module)
    weight, bias = weight_and_bias(module)
    return sync_batch_norm(
        x,
        running_mean,
        running_var,
        weight,
        bias,
        True,
        module.momentum,
        module.eps,
        process_group=module.process_group,
        residual=residual,
        activation=activation,
        num_batches_tracked=num_batches_tracked,
    )


@full_signature
class SyncBatchNorm(torch.nn.SyncBatchNorm):
    """Batch normalisation of (N, C) or (N, C, *space) over the batches of all processes of a group.

    Runs on the CPU (gloo) as on GPUs (NCCL), with unequal and empty shares, and under
    `torch.compile(fullgraph=True)`. Inference, and a group of one process, are batch normalisation.

    On the CPU `DistributedDataParallel` refuses `torch.nn.SyncBatchNorm` and all that derives from it: wrap
    the network first, then convert what was wrapped, whose parameters stay the same objects:

        replica = DistributedDataParallel(network)
        SyncBatchNorm.convert_sync_batchnorm(replica.module)

    State: weight, bias, running_mean, running_var (C,), and num_batches_tracked; running_var takes the
    *unbiased* variance. `momentum=None` is the cumulative mean over all batches.

    The constructor is `torch.nn.SyncBatchNorm`'s, with `activation=` (keyword only) added.
    """

    activation: str | None = None

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = known_activation(activation)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns y of input's shape; residual, of that shape too, is added before the activation."""
        return _forward(self, input, residual, self.activation)

    def extra_repr(self) -> str:
        """`torch.nn`'s, with the activation where there is one."""
        return with_activation(super().extra_repr(), self.activation)

    @classmethod
    def convert_sync_batchnorm(cls, module: torch.nn.Module, process_group: Any | None = None) -> Any:
        """Puts a synchronised batch norm in the place of every batch norm of a network.

        What the old module holds, the new one has: parameters, buffers, mode, activation and hooks. A
        module that stands in several places stays one.

        Args:
            module: the network, changed in place; or a batch norm itself.
            process_group: of torch.distributed; None for all processes.
        Returns:
            The network, or the new module where it is itself a batch norm.
        Raises:
            OptionError: a batch norm is of a class of its own, whose behaviour would be lost, or sharded by
                fully_shard. The network is as it was.
        Example:
            >>> network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
            >>> type(SyncBatchNorm.convert_sync_batchnorm(network)[1]).__name__
            'SyncBatchNorm'
        """
        if _is_fully_sharded(module):
            raise OptionError(
                "batch norm must be synchronised before fully_shard, which writes to the old modules, but "
                "the network is sharded already: convert it first, or have its modules become such by "
                'normwright.convert(network, "synchronised", inplace=True)'
            )
        new: dict[torch.nn.Module | None, SyncBatchNorm] = {
            old: _synchronised(cls, name, old, process_group)
            for name, old in module.named_modules()
            if isinstance(old, _BatchNorm)
        }
        for parent in list(module.modules()):
            for key, child in parent._modules.items():
                if child in new:
                    parent._modules[key] = new[child]
        return new.get(module, module)


# Classes whose whole behaviour is known here.
_CONVERTED = (
    *(torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm),
    *(BatchNorm1d, BatchNorm2d, BatchNorm3d),
)


def _is_fully_sharded(module: torch.nn.Module) -> bool:
    """Whether `fully_shard` has the parameters: those of this, or of a network around it."""
    kinds = (kind for part in module.modules() for kind in type(part).__mro__)
    return any(kind.__name__ == "FSDPModule" for kind in kinds) or any(map(is_sharded, module.parameters()))


def _synchronised(
    kind: type[SyncBatchNorm], name: str, old: _BatchNorm, process_group: Any | None
) -> SyncBatchNorm:
    if type(old) not in (*_CONVERTED, SyncBatchNorm, kind) or "forward" in old.__dict__:
        raise OptionError(
            f"every batch norm must be of torch.nn's or normwright.nn's own classes, but {name or 'it'!r} "
            f"is a {type(old).__module__}.{type(old).__qualname__}, whose behaviour would be lost: replace "
            "it first, or leave it out"
        )
    new = kind.__new__(kind)
    # The old one keeps dictionaries of its own; but for those of hooks, which handles take these out of.
    new.__dict__.update(
        {
            key: value.copy() if isinstance(value, dict) and "hooks" not in key else value
            for key, value in old.__dict__.items()
        }
    )
    loading: dict[int, Any] = new._load_state_dict_pre_hooks
    for key, hook in loading.items():
        if getattr(hook, "with_module", False):  # it knows the old one, and not for longer than that lives
            loading[key] = type(hook)(hook.hook, new)
    new.process_group = process_group
    return new
