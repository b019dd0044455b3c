"""The operators as the dispatcher calls them: what a kernel serves goes to it, the rest to plain PyTorch.

An empty tensor has nothing to launch, and goes to plain PyTorch silently. Anything else that goes there is
several times slower than it might be: it is said, once for each reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from normwright.backends import eager
from normwright.backends.checks import checked
from normwright.backends.triton import channel_tanh as tanh
from normwright.backends.triton import channels, groups, parts, rows, warn_once
from normwright.backends.triton import lstm_cell as cell
from normwright.backends.triton.devices import refusal
from normwright.backends.triton.interpreter import quietly
from normwright.backends.triton.parts_plan import plan_of
from normwright.backends.triton.replay import obstacle, replayed


def _served(kernel: Callable[..., Any]) -> Callable[..., Any]:
    fallback = eager.FUNCTIONS[kernel.__name__]
    place = 1 if kernel.__name__.endswith("_backward") else 0  # of x

    def operator(*call: Any) -> Any:
        x = call[place]
        reason = refusal(x)
        if reason is not None:
            warn_once(reason)
            return fallback(*call)
        if not x.numel():
            return fallback(*call)
        with quietly():
            return kernel(*call)

    return checked(kernel.__name__, operator)


# How many of an operator's arguments are tensors: the first.
_FORWARD, _RUNNING, _KNOWN_MOMENTS, _BACKWARD = 4, 7, 6, 7
_PLANNED_FORWARD, _PLANNED_BACKWARD = 5, 7
_TANH, _TANH_BACKWARD = 4, 5


def _repeated(kernel: Callable[..., Any], tensors: int) -> Callable[..., Any]:
    return _repeated_alone(_served(kernel), tensors)


def _repeated_alone(kernel: Callable[..., Any], tensors: int) -> Callable[..., Any]:
    return kernel if obstacle() else replayed(kernel, tensors)


rows_forward = _repeated(rows.rows_forward, _FORWARD)
rows_forward_masked = _repeated(rows.rows_forward_masked, _FORWARD)
rows_inference = _repeated(rows.rows_inference, _FORWARD)
rows_inference_out = _served(rows.rows_inference_out)
rows_backward = _repeated(rows.rows_backward, _BACKWARD)
groups_forward = _repeated(groups.groups_forward, _FORWARD)
groups_forward_masked = _repeated(groups.groups_forward_masked, _FORWARD)
groups_inference = _repeated(groups.groups_inference, _FORWARD)
groups_inference_out = _served(groups.groups_inference_out)
groups_backward = _repeated(groups.groups_backward, _BACKWARD)
channels_forward = _repeated(channels.channels_forward, _RUNNING)
channels_forward_masked = _repeated(channels.channels_forward_masked, _RUNNING)
channels_backward = _repeated(channels.channels_backward, _BACKWARD)
channel_affine = _repeated(channels.channel_affine, _KNOWN_MOMENTS)
channel_affine_out = _served(channels.channel_affine_out)
channel_affine_backward = _repeated(channels.channel_affine_backward, _BACKWARD)
channel_moments = _repeated(channels.channel_moments, 1)
channel_tanh = _repeated(tanh.channel_tanh, _TANH)
channel_tanh_backward = _repeated(tanh.channel_tanh_backward, _TANH_BACKWARD)

lstm_cell = _served(cell.lstm_cell)
lstm_cell_backward = _served(cell.lstm_cell_backward)

_planned_forward = _repeated_alone(parts.parts_forward, _PLANNED_FORWARD)
_planned_backward = _repeated_alone(parts.parts_backward, _PLANNED_BACKWARD)


@_served
def parts_forward(*call: Any) -> Any:
    """The launches hang on what the spans say: these come as a plan."""
    *inputs, spans, number, eps, activation = call
    plan = plan_of(spans, number, call[0])
    return _planned_forward(*inputs, *plan, number, eps, activation)


@_served
def parts_backward(*call: Any) -> Any:
    """As above."""
    *inputs, spans, number, activation, wanted = call
    plan = plan_of(spans, number, call[1])
    return _planned_backward(*inputs, *plan, number, activation, wanted)
