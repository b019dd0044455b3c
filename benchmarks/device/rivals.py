"""Libraries of normalisers beside PyTorch: which are installed, and what each has to offer for a case.

A library that cannot be imported, that has nothing for a case, or that raises is reported as such, with its
reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import EPS, Case
from benchmarks.contenders import MOMENTUM, Contender
from benchmarks.inputs import Inputs

# A library's module and a case -> what runs the case, or None where it has nothing for it.
Offer = Callable[[Any, Case], Contender | None]


@dataclass(frozen=True)
class Rival:
    """A library: its name in the tables, the module that is imported, and what it offers."""

    name: str
    module: str
    offer: Offer


@dataclass(frozen=True)
class Presence:
    """Whether a rival could be imported: its version, or the reason why not."""

    name: str
    installed: bool
    words: str


def liger(module: Any, case: Case) -> Contender | None:
    """Layer, RMS and group norm; group norm makes its input contiguous."""
    if _trailing(case) and case.operator == "layer_norm":
        return lambda i: module.LigerLayerNormFunction.apply(i.x, i.weight, i.bias, EPS)
    if _trailing(case) and case.operator == "rms_norm":
        # Not in place, which would overwrite dy: the runs to come need it.
        return lambda i: module.LigerRMSNormFunction.apply(i.x, i.weight, EPS, 0.0, "llama", False)
    if case.operator != "group_norm" or case.residual or case.activation not in (None, "silu"):
        return None

    def group_norm(i: Inputs) -> Tensor:
        function = module.LigerGroupNormFunction
        y: Tensor = function.apply(i.x, i.weight, i.bias, case.shape[1], case.groups, EPS)
        return y if case.activation is None else F.silu(y)

    return group_norm


def quack(module: Any, case: Case) -> Contender | None:
    """RMS norm, and layer norm's forward, which is without autograd and takes a float32 weight."""
    if _trailing(case) and case.operator == "rms_norm":
        return lambda i: module.rmsnorm(i.x, i.weight, eps=EPS)
    if _trailing(case) and case.operator == "layer_norm" and case.mode != "step":
        return lambda i: module.layernorm_fwd(i.x.detach(), i.weight.float(), i.bias.float(), eps=EPS)  # type: ignore[union-attr]
    return None


def apex(module: Any, case: Case) -> Contender | None:
    """Layer and RMS norm."""
    if _trailing(case) and case.operator == "layer_norm":
        return lambda i: module.fused_layer_norm_affine(i.x, i.weight, i.bias, case.normalized_shape, EPS)
    if _trailing(case) and case.operator == "rms_norm":
        return lambda i: module.fused_rms_norm_affine(i.x, i.weight, case.normalized_shape, EPS)
    return None


def inplace_abn(module: Any, case: Case) -> Contender | None:
    """Batch norm without an addition. It overwrites its input, and so is given a copy."""
    if case.operator != "batch_norm" or case.residual or case.activation not in (None, "leaky_relu"):
        return None
    activation = "identity" if case.activation is None else "leaky_relu"

    def batch_norm(i: Inputs) -> Tensor:
        running, training = (i.running_mean, i.running_var), case.mode != "inference"
        function = module.inplace_abn
        y: Tensor = function(
            i.x.clone(), i.weight, i.bias, *running, training, MOMENTUM, EPS, activation, 0.01
        )
        return y

    return batch_norm


RIVALS = (
    Rival("liger", "liger_kernel.ops", liger),
    Rival("quack", "quack.rmsnorm", quack),
    Rival("apex", "apex.normalization.fused_layer_norm", apex),
    Rival("inplace-abn", "inplace_abn", inplace_abn),
)


def presence(rival: Rival) -> Presence:
    """Imports the rival and says how that went."""
    package = rival.module.partition(".")[0]
    try:
        importlib.import_module(rival.module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        words = "not installed" if missing == package else f"needs {error.name}, which is not installed"
        return Presence(rival.name, False, words)
    except Exception as error:
        return Presence(rival.name, False, f"import raises {type(error).__name__}: {error}".splitlines()[0])
    return Presence(rival.name, True, str(getattr(importlib.import_module(package), "__version__", "")))


def offers(case: Case) -> tuple[dict[str, Contender], dict[str, str]]:
    """What the rivals have for a case, by name; and why the others are absent."""
    found: dict[str, Contender] = {}
    absent: dict[str, str] = {}
    for rival in RIVALS:
        here = presence(rival)
        if not here.installed:
            absent[rival.name] = here.words
            continue
        contender = rival.offer(importlib.import_module(rival.module), case)
        if contender is None:
            absent[rival.name] = "has nothing for this case"
        else:
            found[rival.name] = contender
    return found, absent


def _trailing(case: Case) -> bool:
    """Whether it is a bare normaliser over the last axis alone."""
    one_axis = case.normalized_shape is not None and len(case.normalized_shape) == 1
    return one_axis and not case.residual and case.activation is None
