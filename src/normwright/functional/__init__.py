"""Normalisers as functions: the signatures of `torch.nn.functional`, plus `residual=` and `activation=`."""

from normwright.functional.batch_norm import batch_norm
from normwright.functional.batch_renorm import batch_renorm
from normwright.functional.dynamic_tanh import dynamic_tanh
from normwright.functional.filter_response_norm import filter_response_norm
from normwright.functional.ghost_batch_norm import ghost_batch_norm
from normwright.functional.group_norm import group_norm
from normwright.functional.instance_norm import instance_norm
from normwright.functional.layer_norm import layer_norm
from normwright.functional.local_response_norm import local_response_norm
from normwright.functional.masked_batch_norm import masked_batch_norm
from normwright.functional.maxout import maxout
from normwright.functional.recurrent_batch_norm import recurrent_batch_norm
from normwright.functional.rms_norm import rms_norm
from normwright.functional.split_batch_norm import split_batch_norm
from normwright.functional.sync_batch_norm import sync_batch_norm
from normwright.functional.weight_norm import standardise_weight, weight_norm
from normwright.functional.whitening_norm import whitening_norm

__all__ = [
    "batch_norm",
    "batch_renorm",
    "dynamic_tanh",
    "filter_response_norm",
    "ghost_batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "masked_batch_norm",
    "maxout",
    "recurrent_batch_norm",
    "rms_norm",
    "split_batch_norm",
    "standardise_weight",
    "sync_batch_norm",
    "weight_norm",
    "whitening_norm",
]
