"""A network that the user's own function builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from normwright.errors import UserCodeError
from normwright.lab.placement import trial

_TRIAL_SAMPLES = 2

# Everything that users' functions built in this process: one that returns the same network again
# would hand the next run the trained weights of the last.
_built: WeakSet[nn.Module] = WeakSet()


def build_user_network(
    function: Callable[..., Any], name: str, sample_shape: tuple[int, ...], classes: int
) -> nn.Module:
    """The network that a user's function returns, once it was seen to answer a batch.

    The function is called without arguments, or, if it needs them, as function(sample_shape, classes).

    Args:
        function: returns a new network at each call.
        name: of the function, for errors.
        sample_shape: without the batch axis.
        classes: how many outputs the network must have.
    Raises:
        UserCodeError: the function is a network or needs other arguments; what came is no network, is
            compiled, came before, does not give (2, classes) for a batch of two zero samples, or keeps a
            state that is no tensor.
        Whatever the function or its network raises.
    """
    network = function(*arguments_of(function, name, sample_shape, classes, others="the rest"))
    if not isinstance(network, nn.Module):
        raise UserCodeError(f"{name} must return a torch.nn.Module, but returned {_describe(network)}")
    if hasattr(network, "_orig_mod") or isinstance(network, torch.jit.ScriptModule):
        raise UserCodeError(
            f"{name} must return the network itself, whose normalisers are replaced, but returned it "
            f"compiled, as {type(network).__name__}: leave torch.compile or torch.jit out"
        )
    if network in _built:
        raise UserCodeError(
            f"{name} must build a new network at each call, but returned the same one again: "
            "create the module inside the function"
        )
    _check_output(network, name, sample_shape, classes)
    _check_state(network, name)
    _built.add(network)
    return network


def arguments_of(
    function: Callable[..., Any],
    name: str,
    sample_shape: tuple[int, ...] | None,
    classes: int | None,
    *,
    others: str,
) -> tuple[Any, ...]:
    """What a user's function is called with: nothing where it can be, else (sample_shape, classes).

    Args:
        function: of the user.
        name: of the function, for errors.
        sample_shape, classes: see `build_user_network`; None where they are not known.
        others: what other arguments of it may be, for errors.
    Raises:
        UserCodeError: it is a network, which can be called too, or needs other arguments.
    """
    if isinstance(function, nn.Module):
        raise UserCodeError(
            f"{name} must be a function that makes the network, but is the network itself "
            f"({type(function).__name__}): name a function that returns a new one at each call"
        )
    arguments = () if _takes(function) else (sample_shape, classes)
    if not _takes(function, *arguments):
        raise UserCodeError(
            f"{name} must be callable without arguments, or with (sample_shape, classes), but takes "
            f"{inspect.signature(function)}: write a function that calls it with {others}"
        )
    return arguments


def _takes(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # some classes written in C have no signature
        return not arguments
    return True


def _check_output(network: nn.Module, name: str, sample_shape: tuple[int, ...], classes: int) -> None:
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    output = trial(network, torch.zeros(_TRIAL_SAMPLES, *sample_shape, device=device))
    if not isinstance(output, Tensor) or output.shape != (_TRIAL_SAMPLES, classes):
        raise UserCodeError(
            f"the network of {name} must give a tensor ({_TRIAL_SAMPLES}, {classes}) for a batch "
            f"{(_TRIAL_SAMPLES, *sample_shape)} in training mode, one output per class, "
            f"but gave {_describe(output)}"
        )


def _check_state(network: nn.Module, name: str) -> None:
    """What a run keeps is tensors, of which the network that is tested is made anew."""
    for key, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserCodeError(
                f"the network of {name} must keep its state in tensors to be tested after training, but "
                f"{key!r} is a {type(value).__name__}: make a buffer of it, or leave get_extra_state out"
            )
        if value.layout != torch.strided:
            raise UserCodeError(
                f"the network of {name} must keep its state in dense tensors to be tested after training, "
                f"but {key!r} is {value.layout}: make it dense, or register it with persistent=False"
            )


def _describe(value: object) -> str:
    return (
        f"a tensor {tuple(value.shape)}"
        if isinstance(value, Tensor)
        else f"{type(value).__name__}: {value!r:.80}"
    )
