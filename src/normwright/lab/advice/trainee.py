"""A copy of a network that takes training steps, while the network itself stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from normwright.errors import NormwrightError, OptionError, UserCodeError
from normwright.lab.advice.bare import leave_out_normalisers
from normwright.lab.advice.exhaustion import is_out_of_memory
from normwright.lab.advice.samples import Samples, in_words, labels_of
from normwright.lab.objective import LOSSES, Loss, checked_loss, loss_named
from normwright.network.batch_call import Caller, ForwardFn
from normwright.network.copying import check_can_be_copied, copied_already
from normwright.network.counting import how_many
from normwright.network.lazy import check_is_all_there
from normwright.network.writing import put_back
from normwright.statistics.batches import unwrapped

Optimiser = torch.optim.Optimizer | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""An optimiser of the network, or what makes one for parameters."""


class Trainee:
    """A network and its optimiser, which may be trained and thrown away.

    Args:
        network: in the mode that it trains in.
        optimiser: of its parameters.
        loss: (outputs, labels) -> scalar, by name or itself; None where the output holds it as `loss`.
        forward_fn: forward_fn(network, batch) in place of the usual call.
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        loss: str | Loss | None,
        forward_fn: ForwardFn | None = None,
    ) -> None:
        self.network, self.optimiser = network, optimiser
        self._call = Caller(network, forward_fn)
        self._loss = loss_function(loss)
        self._bounded = isinstance(loss, str) and loss in LOSSES
        self._start = [(value, value.detach().clone()) for value in network.parameters()]
        # With those that a forward pass has yet to fill, or fills with another tensor.
        self._start_buffers = [
            (module, name, value, None if value is None else value.clone())
            for module in network.modules()
            for name, value in module._buffers.items()
        ]

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next((value.device for value in self._values()), torch.device("cpu"))

    def held(self) -> list[Tensor]:
        """The tensors that live between two steps: parameters, buffers and the optimiser's state."""
        state = [value for values in self.optimiser.state.values() for value in values.values()]
        return [*self._values(), *(value for value in state if isinstance(value, Tensor))]

    def back_to_start(self) -> None:
        """Puts parameters and buffers back, without gradients; the optimiser's state stays."""
        self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for value, start in self._start:
                value.copy_(start)
            for module, name, buffer, kept in self._start_buffers:
                if buffer is not None and kept is not None:
                    put_back(buffer, kept)
                if module._buffers.get(name) is not buffer:
                    module._buffers[name] = buffer

    def set_lr(self, lr: float) -> None:
        """Sets the largest learning rate of the optimiser's groups; the others keep their ratio to it."""
        rates = [float(group["lr"]) for group in self.optimiser.param_groups]
        largest = max(rates)
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = lr * rate / largest if largest else lr

    def outputs(self, batch: Any) -> Any:
        """What the network answers."""
        return self._call.on_itself(batch)

    def loss(self, batch: Any) -> Tensor:
        """The loss on a batch, as a scalar."""
        return self._loss_of(self.outputs(batch), batch)

    @torch.enable_grad()
    def step(self, batch: Any) -> Tensor:
        """One training step; returns the loss before it."""
        self.optimiser.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    @torch.enable_grad()
    def check(self, samples: Samples, size: int) -> None:
        """Tries a step on the first samples, and says what does not hold.

        Raises:
            UserCodeError: the network or the loss raises, or the loss is no scalar.
            OptionError: there are more classes than outputs.
        """
        batch = samples.take(slice(0, size), self.device)
        outputs = self._tried("the network", batch, lambda: self.outputs(batch))
        if self._bounded:
            _check_classes(outputs, samples.labels)
        loss = self._tried("the loss", batch, lambda: self._loss_of(outputs, batch))
        self._tried("the backward pass", batch, loss.backward)
        self._tried("the optimiser", batch, self.optimiser.step)
        self.back_to_start()

    def _values(self) -> list[Tensor]:
        return [*self.network.parameters(), *self.network.buffers()]

    def _loss_of(self, outputs: Any, batch: Any) -> Tensor:
        return self._loss(outputs, labels_of(batch) if isinstance(batch, dict | tuple) else None)

    @staticmethod
    def _tried(what: str, batch: Any, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except NormwrightError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise UserCodeError(
                f"{what} must take a batch of {in_words(batch)}, but raised {type(error).__name__}: {error}"
            ) from error


def loss_function(loss: str | Loss | None) -> Callable[[Any, Any], Tensor]:
    """The loss of (outputs, labels), checked at every call; of an output that is no tensor, of its logits."""
    if loss is None:
        return _own_loss
    named = (
        loss_named(loss) if isinstance(loss, str) else checked_loss(loss, getattr(loss, "__name__", "loss"))
    )

    def of(outputs: Any, labels: Any) -> Tensor:
        return named(outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", outputs), labels)

    return of


def trainee(
    network: nn.Module,
    optimiser: Optimiser,
    loss: str | Loss | None,
    forward_fn: ForwardFn | None = None,
    *,
    bare: bool = False,
) -> Trainee:
    """A copy of a network, with its optimiser's copy, in training mode.

    A network that is in training mode already keeps the modes of its parts: what is frozen stays frozen.

    Args:
        network: stays as it is.
        optimiser: of the network; its copy has the state of the original.
        loss, forward_fn: see `Trainee`.
        bare: whether the normalisers are left out of the copy.
    Raises:
        OptionError: the optimiser holds none of the network's parameters, or the network has none to train,
            has none as yet, for it is lazy, or cannot be copied, as one of torch.jit.
    """
    network = unwrapped(network)
    check_is_all_there(network, "trained")
    check_can_be_copied(network)
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise OptionError(
            "the network must run in Python, for a copy of it is trained and PyTorch trains no copy of what "
            "torch.jit compiled: give the network that was scripted or traced"
        )
    given = optimiser if isinstance(optimiser, torch.optim.Optimizer) else None
    if given is not None:
        _check_owns(network, given)
    # Together, so that the copy of the optimiser holds the parameters of the copy.
    copied, own = copy.deepcopy((network, given), copied_already(network))
    if not copied.training:
        copied.train()
    if bare:
        leave_out_normalisers(copied)
    trained = [parameter for parameter in copied.parameters() if parameter.requires_grad]
    if not trained:
        raise OptionError(
            "the network must have parameters to train, but none of its parameters requires a gradient"
        )
    if own is None:
        assert not isinstance(optimiser, torch.optim.Optimizer)
        own = optimiser(trained)
    else:
        _leave_out(own, {id(parameter) for parameter in copied.parameters()})
    return Trainee(copied, own, loss, forward_fn)


def _check_owns(network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    own = {id(parameter) for parameter in network.parameters()}
    held = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    foreign = sum(id(parameter) not in own for parameter in held)
    if foreign:
        raise OptionError(
            f"the optimiser must hold parameters of this network, but {foreign} of its {len(held)} are not: "
            "make it from network.parameters()"
        )


def _leave_out(optimiser: torch.optim.Optimizer, kept: set[int]) -> None:
    """Takes the parameters of what was left out from the optimiser."""
    for group in optimiser.param_groups:
        for gone in (p for p in group["params"] if id(p) not in kept):
            optimiser.state.pop(gone, None)
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in kept]


def _own_loss(outputs: Any, _: Any) -> Tensor:
    loss = outputs.get("loss") if isinstance(outputs, dict) else getattr(outputs, "loss", None)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise UserCodeError(
            "without a loss of its own to compute, a step needs the network to return one as `loss`, but it "
            f"returned a {type(outputs).__name__}: name a loss"
        )
    return loss.reshape(())


def _check_classes(outputs: Any, labels: Any) -> None:
    """An index past the outputs would stop a GPU for the whole process; targets may be numbers instead."""
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        return
    scores = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None)
    if not isinstance(scores, Tensor) or scores.dim() < 2:
        shown = tuple(scores.shape) if isinstance(scores, Tensor) else type(outputs).__name__
        raise OptionError(
            f"the network must give one row of scores per sample, (N, classes), but gave {shown}"
        )
    last = int(labels.max())
    if last >= scores.shape[1]:
        raise OptionError(
            "the network must have an output for every class, but has "
            f"{how_many(scores.shape[1], 'output')}, and a label is {last} (classes are counted from 0): "
            f"give it {how_many(last + 1, 'output')}"
        )
