"""Who is examined: a network, batches as its training sees them, the loss, and how it is trained."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.optim import Optimizer

from normwright.doctor.examinable import check_can_be_examined
from normwright.errors import DataError, OptionError
from normwright.network.batch_call import Caller, ForwardFn
from normwright.network.copying import check_can_be_copied, copied_already
from normwright.statistics.batches import check_iterable, samples_in, unwrapped

Loss = Callable[[Any, Any], Tensor]
PaddingFn = Callable[[Any], Tensor]

_LABELS = ("labels", "label", "targets", "target")


class NoLossError(Exception):
    """A batch has no loss to go by; the message says why."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What an examination looks at, and never changes.

    Args:
        network: as it is trained; wrappers (DistributedDataParallel, torch.compile) are looked through.
        batches: those that are read, in order.
        loss: called as loss(outputs, target), or None where the network returns its own as `.loss`.
        optimiser: the one in use, or None.
        forward_fn: called as forward_fn(network, batch) in place of network(input).
        accumulation: mini-batches for each optimiser step.
        padding: tells padded positions of a batch, as a (N, L) tensor of bool, or None.
        process_group: the ranks that train together, or None.
        averaged: the network is an average of weights (EMA, SWA).
        sizes: samples of every batch that the loader gives, as far as that is known without reading it.
    """

    network: nn.Module
    batches: tuple[Any, ...]
    loss: Loss | None = None
    optimiser: Optimizer | None = None
    forward_fn: ForwardFn | None = None
    accumulation: int = 1
    padding: PaddingFn | None = None
    process_group: ProcessGroup | None = None
    averaged: bool = False
    sizes: tuple[int, ...] = ()

    def twin(self) -> Subject:
        """The same with a copy of the network, and of the optimiser, which steps that copy.

        Raises:
            OptionError: the network cannot be copied.
        """
        check_can_be_copied(self.network)
        memo = copied_already(self.network)
        try:
            # together, so that the optimiser's copy holds the network copy's parameters
            network, optimiser = copy.deepcopy((self.network, self.optimiser), memo)
            if self.optimiser is not None and optimiser is not None:
                _copy_own_attributes(self.optimiser, optimiser, memo)
        except Exception as error:
            raise OptionError(
                f"the network must be copied to be examined, but copy.deepcopy raised "
                f"{type(error).__name__}: {error}. Detach what it stores of a training step"
            ) from error
        return dataclasses.replace(self, network=network, optimiser=optimiser)

    def outputs(self, batch: Any) -> Any:
        """What the network answers on a batch."""
        return Caller(self.network, self.forward_fn)(batch)

    def loss_of(self, batch: Any, outputs: Any) -> Tensor:
        """The loss of outputs: a scalar.

        Raises:
            NoLossError: there is no loss function, or no target to give it.
            OptionError: the loss is not a scalar.
        """
        if self.loss is None:
            value = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
            if value is None:
                raise NoLossError("no loss came, and the network returns none as .loss")
        else:
            value = self.loss(outputs, _on(outputs, target_of(batch)))
        if not (isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()):
            came = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise OptionError(f"the loss must be a scalar tensor, but is {came}: take its mean")
        return value.reshape(())


def target_of(batch: Any) -> Any:
    """What a batch holds beside the input.

    Raises:
        NoLossError: nothing.
    Example:
        >>> target_of((torch.zeros(2, 3), torch.tensor([0, 1])))
        tensor([0, 1])
    """
    if isinstance(batch, Mapping):
        found = next((batch[key] for key in _LABELS if key in batch), None)
    elif isinstance(batch, list | tuple) and len(batch) > 1:
        found = batch[1] if len(batch) == 2 else tuple(batch[1:])
    else:
        found = None
    if found is None:
        raise NoLossError("the batches hold no labels")
    return found


def subject_of(
    network: nn.Module,
    batches: Iterable[Any],
    *,
    most: int,
    optimiser: Optimizer | None = None,
    **options: Any,
) -> Subject:
    """The subject that `diagnose`'s arguments describe; at most `most` batches are read.

    Raises:
        OptionError: what came is no network, no iterable, no loss, or an optimiser of other parameters.
        DataError: no batch came.
    """
    network = unwrapped(network)
    check_can_be_examined(network)
    check_iterable(batches)
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise OptionError(f"steps must be a whole number of at least 1, but is {most!r}")
    accumulation = options.get("accumulation", 1)
    if isinstance(accumulation, bool) or not isinstance(accumulation, int) or accumulation < 1:
        raise OptionError(f"accumulation must be a whole number of at least 1, but is {accumulation!r}")
    loss = options.get("loss")
    if loss is not None and not callable(loss):
        raise OptionError(
            f"the loss must be callable as loss(outputs, target), but is {loss!r}: give a function such as "
            "torch.nn.functional.cross_entropy, or None where the network returns its own as .loss"
        )
    check_optimiser(network, optimiser)
    read = tuple(itertools.islice(batches, most))
    if not read:
        raise DataError(
            "batches must hold at least one sample to examine the network on, but none came: a loader is "
            "empty, or an iterator was used up"
        )
    return Subject(network, read, optimiser=optimiser, sizes=_sizes(batches, read), **options)


def check_optimiser(network: nn.Module, optimiser: Optimizer | None) -> None:
    """Raises OptionError where an optimiser holds none of a network's parameters."""
    if optimiser is None:
        return
    if not isinstance(optimiser, Optimizer):
        raise OptionError(
            f"the optimiser must be a torch.optim.Optimizer, but is {type(optimiser).__name__}: leave it out "
            "to examine the network without one"
        )
    held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    if held.isdisjoint(id(parameter) for parameter in network.parameters()):
        raise OptionError(
            "the optimiser must hold parameters of the network, but holds none: it was made for another one, "
            "or before the network's parameters were replaced"
        )


def _copy_own_attributes(optimiser: Optimizer, copied: Optimizer, memo: dict[int, Any]) -> None:
    """What a class keeps beside groups and state, which are all that PyTorch copies of an optimiser."""
    for name, value in vars(optimiser).items():
        # a scheduler puts a `step` of its own, that tells it of calls, over the class's
        if name in vars(copied) or callable(getattr(type(optimiser), name, None)):
            continue
        with contextlib.suppress(Exception):  # of a process group, say; a step that needs it says so
            vars(copied)[name] = copy.deepcopy(value, memo)
        if isinstance(value, Optimizer) and name in vars(copied):
            _copy_own_attributes(value, vars(copied)[name], memo)


def _sizes(batches: Any, read: tuple[Any, ...]) -> tuple[int, ...]:
    """Samples of each batch of a loader that says how long it is; else of those that were read."""
    size = getattr(batches, "batch_size", None)
    # a sampler may give a part of the data set, as one rank's share or what is not kept for validation
    given = getattr(batches, "sampler", None)
    given = getattr(batches, "dataset", None) if given is None else given
    try:
        samples = len(given)  # type: ignore[arg-type]
    except TypeError:
        samples = None
    if isinstance(size, int) and samples is not None and hasattr(batches, "drop_last"):
        whole, rest = divmod(samples, size)
        return (size,) * whole + ((rest,) if rest and not batches.drop_last else ())
    if isinstance(batches, list | tuple):
        return tuple(map(samples_in, batches))
    return tuple(map(samples_in, read))


def _on(outputs: Any, target: Any) -> Any:
    """The target on the outputs' device."""
    device = getattr(outputs, "device", None)
    return target.to(device) if isinstance(target, Tensor) and isinstance(device, torch.device) else target
