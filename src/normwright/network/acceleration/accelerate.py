"""Makes the normalisers of a network fused ones."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from normwright.network.acceleration.blocks import BlockPlan, plan_blocks
from normwright.network.acceleration.drop_in import drop_in_for, normalisers_by_name
from normwright.network.acceleration.report import BlockRecord, NormaliserRecord, Report
from normwright.network.acceleration.route import own_class, routed_class
from normwright.network.copying import copied
from normwright.network.frozen_class import unfrozen_class
from normwright.network.walk import check_network, take_classes

Network = TypeVar("Network", bound=nn.Module)


def accelerate(network: Network, *, inplace: bool = False) -> Network:
    """Makes every normaliser a drop-in of `normwright.nn`, and computes with it what directly follows it.

    A following activation (ReLU, LeakyReLU with slope 0.01, SiLU, GELU, sigmoid, tanh) and a residual that
    is added before it are computed in the normaliser's operator where a trace of the block shows that
    nothing reads the values in between. The network keeps its modules, classes, parameters, hooks and
    `state_dict`, and gives the same outputs and gradients up to rounding, in training and inference.

    A block whose calls were fused takes its faster way only while that is the same as its own forward: a
    hook that is registered later, a submodule that is replaced or an attribute that is changed makes it run
    its own forward again. What a forward reads from outside the network, such as a global variable, is
    taken to stay. A block that cannot be traced has its normalisers accelerated one by one. A subclass whose
    own forward calls PyTorch's function calls ours, by the same rules; and so does a class whose forward
    writes RMS or layer norm over the last axis out, as `LlamaRMSNorm` does, beside whatever else it computes.
    Ours rounds once, at the end. One that asks for its weight's dtype, as `T5LayerNorm` does, is followed to
    float32, bfloat16 and float16.

    Args:
        network: of any kind, in any mode, on any device.
        inplace: change the network itself, so that optimisers that hold its parameters go on working;
            else a copy of it.
    Returns:
        The accelerated network; `network.accelerate_with_report` says what was done.
    Raises:
        OptionError: not a module.
        Whatever copying the network raises; it is left as it was.
    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> type(accelerate(network)[1]).__module__
        'normwright.nn.batch_norm'
        >>> type(network[1]).__module__
        'torch.nn.modules.batchnorm'
    """
    return accelerate_with_report(network, inplace=inplace)[0]


def accelerate_with_report(network: Network, *, inplace: bool = False) -> tuple[Network, Report]:
    """`accelerate`, with a record of every normaliser and every block.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.LayerNorm(8))
        >>> print(accelerate_with_report(network)[1])
        2 of 2 normalisers became drop-ins, 1 with something fused.
        1  BatchNorm2d  relu
        3  LayerNorm          nothing fused: its block returns its output
    """
    check_network(network)
    changed = network if inplace else copied(network)
    normalisers = normalisers_by_name(changed)
    kinds = {name: drop_in_for(module) for name, module in normalisers.items()}
    plans = plan_blocks(changed)
    classes = {normalisers[name]: kind for name, kind in kinds.items() if isinstance(kind, type)}
    for name, plan in plans.items():
        block = changed.get_submodule(name)
        own = own_class(type(block))
        classes[block] = routed_class(own, plan.routes) if plan.routes else own
    alone = {name for name in plans if name in normalisers}
    nearest = {_nearest(name, plans) for name, kind in kinds.items() if isinstance(kind, type)}
    report = Report(
        tuple(_normaliser_record(name, module, kinds[name], plans) for name, module in normalisers.items()),
        tuple(
            BlockRecord(name, type(changed.get_submodule(name)).__name__, plan.fused_calls, plan.reason)
            for name, plan in plans.items()
            if name not in alone and (plan.routes or plan.calls or name in nearest)
        ),
    )
    take_classes(classes)
    return changed, report


def _normaliser_record(
    name: str, module: nn.Module, kind: type[nn.Module] | str, plans: dict[str, BlockPlan]
) -> NormaliserRecord:
    before = type(module).__name__
    if isinstance(kind, str):
        own_plan = plans.get(name, BlockPlan())
        if not own_plan.routes:
            reason = f"{kind}, and {own_plan.reason}" if own_plan.reason else kind
            return NormaliserRecord(name, before, None, (), reason)
        became = f"normwright.functional.{', '.join(own_plan.functions)}"
    else:
        own = unfrozen_class(kind)
        became = f"normwright.nn.{own.__name__}" if own is kind else f"normwright.nn.{own.__name__}, frozen"
    outcomes = [outcome for plan in plans.values() for outcome in plan.calls.get(name, ())]
    fused = tuple(dict.fromkeys(fused for fused, _ in outcomes if fused))
    reasons = dict.fromkeys(reason for text, reason in outcomes if not text)
    if fused:
        # Where a block returns a normaliser's output, the block around it fused what follows.
        reasons.pop("its block returns its output", None)
    elif not outcomes:
        reasons = {_why_unseen(name, plans): None}
    return NormaliserRecord(name, before, became, fused, "; ".join(reasons))


def _why_unseen(name: str, plans: dict[str, BlockPlan]) -> str:
    """Why no trace met a normaliser: the block around it has none, or does not call it."""
    block = _nearest(name, plans)
    if block is None:
        return "no forward of the network's own calls it" if name else "it is the network itself"
    if plans[block].reason:
        return f"{block or 'the network'} is not traced: {plans[block].reason}"
    return f"the forward of {block or 'the network'} does not call it"


def _nearest(name: str, plans: dict[str, BlockPlan]) -> str | None:
    """The innermost block around a module."""
    around = [block for block in plans if name and (not block or name.startswith(f"{block}."))]
    return max(around, key=len, default=None)
