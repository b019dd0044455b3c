"""Normalisers as modules: drop-ins for `torch.nn`, plus `activation=` and a residual in `forward`.

What reads a module's weights instead of calling it, as `torch.nn.SyncBatchNorm.convert_sync_batchnorm` and
`torch.nn.utils.fuse_conv_bn_eval` do, sees the torch class and leaves the activation out.
"""

from normwright.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normwright.nn.batch_norm_lstm import BatchNormLSTM
from normwright.nn.batch_renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from normwright.nn.dynamic_tanh import DynamicTanh
from normwright.nn.filter_response_norm import FilterResponseNorm
from normwright.nn.frozen_batch_norm import FrozenBatchNorm1d, FrozenBatchNorm2d, FrozenBatchNorm3d
from normwright.nn.ghost_batch_norm import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d
from normwright.nn.group_norm import GroupNorm
from normwright.nn.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normwright.nn.layer_norm import LayerNorm
from normwright.nn.layer_norm_lstm import LayerNormLSTM
from normwright.nn.local_response_norm import LocalResponseNorm
from normwright.nn.masked_batch_norm import MaskedBatchNorm1d
from normwright.nn.maxout import Maxout
from normwright.nn.recurrent_batch_norm import RecurrentBatchNorm
from normwright.nn.rms_norm import RMSNorm
from normwright.nn.split_batch_norm import SplitBatchNorm1d, SplitBatchNorm2d, SplitBatchNorm3d, domain
from normwright.nn.sync_batch_norm import SyncBatchNorm
from normwright.nn.weight_norm import (
    WeightNorm,
    WeightStandardization,
    init_weight_norm_,
    weight_norm,
    weight_standardization,
)
from normwright.nn.whitening_norm import WhiteningNorm1d, WhiteningNorm2d, WhiteningNorm3d

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormLSTM",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "DynamicTanh",
    "FilterResponseNorm",
    "FrozenBatchNorm1d",
    "FrozenBatchNorm2d",
    "FrozenBatchNorm3d",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LayerNormLSTM",
    "LocalResponseNorm",
    "MaskedBatchNorm1d",
    "Maxout",
    "RMSNorm",
    "RecurrentBatchNorm",
    "SplitBatchNorm1d",
    "SplitBatchNorm2d",
    "SplitBatchNorm3d",
    "SyncBatchNorm",
    "WeightNorm",
    "WeightStandardization",
    "WhiteningNorm1d",
    "WhiteningNorm2d",
    "WhiteningNorm3d",
    "domain",
    "init_weight_norm_",
    "weight_norm",
    "weight_standardization",
]
