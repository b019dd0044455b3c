"""What can be done for a network that nothing traces: each normaliser by itself."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normwright.network.folding.affine import Affine, NotAffineError, affine_of, check_fixed
from normwright.network.folding.decision import Decision
from normwright.network.folding.sites import Unfoldable
from normwright.network.folding.whitening import whitening_map
from normwright.network.walk import WHITENING

_KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def decisions_without_trace(network: nn.Module, hooked: frozenset[str]) -> tuple[Decision, ...]:
    """A layer of the same map for each batch norm of PyTorch's own and whitening; the rest stays."""
    decisions = []
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            kind = type(module).__name__
            reason = _why_not(module, name in hooked)
            decision = Decision([Unfoldable(name, kind, name, reason)], name, kind, "", (), reason)
            if not reason:
                assert module.running_mean is not None
                assert module.running_var is not None
                decision.place = "multiply-add"
                decision.reason = "into layers: the network cannot be traced"
                decision.map = affine_of(
                    module.running_mean, module.running_var, module.weight, module.bias, module.eps
                )
            decisions.append(decision)
        elif isinstance(module, WHITENING):
            decisions.append(_of_whitening(name, module, name in hooked))
    return tuple(decisions)


def _of_whitening(name: str, module: nn.Module, hooked: bool) -> Decision:
    kind = type(module).__name__
    try:
        affine = whitening_map(module)
    except NotAffineError as error:
        return Decision([Unfoldable(name, kind, name, str(error))], name, kind, "", (), str(error))
    if hooked:
        return Decision([Unfoldable(name, kind, name, "it has hooks")], name, kind, "", (), "it has hooks")
    place = "multiply-add" if isinstance(affine, Affine) else "convolution"
    reason = "into layers: the network cannot be traced"
    return Decision([Unfoldable(name, kind, name, reason)], name, kind, place, (), reason, affine)


def _why_not(module: _BatchNorm, hooked: bool) -> str:
    try:
        check_fixed(module.running_mean, module.running_var, training=module.training)
    except NotAffineError as error:
        return str(error)
    if type(module) not in _KNOWN:
        return "a subclass may do more than normalise"
    return "it has hooks" if hooked else ""
