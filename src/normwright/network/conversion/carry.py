"""What of a normaliser its successor takes along: weight and bias, the parameter objects, the statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from normwright.errors import ConversionError
from normwright.network.conversion.kinds import BATCH_KINDS
from normwright.network.conversion.memory import Former, Values, memory_of, tensor_of
from normwright.network.conversion.options import Options

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Carried:
    """The tensors of one normaliser, for the kind that it becomes.

    Args:
        module: a normaliser of a known class.
        kind: the one that it is.
        channels: C.
        options: the caller's.
        met: a tensor of its inputs' dtype and device, or None.
    """

    def __init__(self, module: Any, kind: str, channels: int, options: Options, met: Tensor | None) -> None:
        self.module, self.kind, self.channels, self.options = module, kind, channels, options
        self.met = torch.empty(0) if met is None else met
        self.formers = memory_of(module).formers
        self.former: Former | None = self.formers.get(options.to)
        self.lost: list[str] = []
        self.notes: list[str] = []

    def tracks(self) -> bool:
        """Whether it has running statistics."""
        return tensor_of(self.module, "running_mean") is not None

    def is_untracked(self) -> bool:
        """Whether it is, or was, a batch norm that keeps no statistics."""
        if self.kind in BATCH_KINDS:
            return not self.tracks()
        formers = [former for kind, former in self.formers.items() if kind in BATCH_KINDS]
        return bool(formers) and all(former.buffers.get("running_mean") is None for former in formers)

    # Its parameters.

    def like(self) -> Tensor:
        """A tensor of the dtype and device that it works in."""
        candidates = [tensor_of(self.module, name) for name in ("weight", "bias", "running_mean")]
        return next((held for held in candidates if held is not None), self.met)

    def value(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """Weight or bias in the new kind's shape; that of before, where nobody has trained it since."""
        current = tensor_of(self.module, name)
        former = self.former
        if former is not None and former.is_untrained(self.module):
            value = former.before[name]
            value = None if value is None else value.to(self.like())
        elif current is None and name == "bias" and former is not None and former.before[name] is not None:
            value = former.before[name].to(self.like())  # type: ignore[union-attr]
        else:
            value = current
        return None if value is None else self._reshaped(name, value.detach(), shape)

    def _reshaped(self, name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        if value.shape == shape:
            return value
        if value.dim() > 1:  # per element, and wanted per channel or for another space
            flat = value.reshape(value.shape[0], -1)
            constant = flat.is_meta or torch.equal(flat, flat[:, :1].expand_as(flat))
            if not constant:
                self.lose(f"its {name} varies over space, and {self.options.to} norm has one per channel")
            value = flat[:, 0] if constant else flat.mean(1)
        return value.reshape(-1, *(1 for _ in shape[1:])).expand(shape).contiguous()

    def drop_bias(self, bias: Tensor | None) -> None:
        """Says goodbye to a bias, if it does anything."""
        if bias is not None and not bias.is_meta and bool(bias.any()):
            self.lose("it has a bias that is not zero, and RMS norm has none")

    def parameter(self, name: str, value: Tensor | None) -> Parameter | None:
        """The parameter that shall hold the value: its own or its former one, where the shape allows."""
        if value is None:
            return None
        current: Parameter | None = self.module._parameters.get(name)
        if current is not None and current.shape == value.shape:
            return current
        remembered = None if self.former is None else self.former.parameters.get(name)
        if remembered is not None and remembered.shape == value.shape:
            return remembered  # type: ignore[return-value]
        key = (id(current), tuple(value.shape))
        if current is not None and key in self.options.ties:
            return self.options.ties[key]
        fresh = Parameter(value.clone(), requires_grad=current is None or current.requires_grad)
        if current is not None:
            self.options.ties[key] = fresh
        return fresh

    # Its statistics.

    def statistics(self, names: list[str]) -> Values:
        """Its own statistics, or those that it had before, or new ones that batches shall fill."""
        if self.is_untracked():
            if self.options.to in ("frozen", "renormalised"):
                raise ConversionError(
                    f"{self.options.to} norm needs running statistics, but this one tracks none: "
                    "train it with track_running_stats=True, or leave it out with names="
                )
            return dict.fromkeys(names)
        held = {name: tensor_of(self.module, name) for name in names}
        like = self.like()
        for name in names:
            if held[name] is None:
                held[name] = self._remembered(name, like)
        if held["running_mean"] is None and not self.options.calibrated:
            self.lose(
                f"{self.kind} norm has no statistics, without which {self.options.to} norm cannot serve "
                "in inference (calibrate= takes them from batches; else they start at 0 and 1)"
            )
        return {name: self._fresh(name, like) if value is None else value for name, value in held.items()}

    def _remembered(self, name: str, like: Tensor) -> Tensor | None:
        formers = [former for kind, former in self.formers.items() if kind in BATCH_KINDS]
        former = next((f for f in formers if f.buffers.get(name) is not None), None)
        if former is None:
            return None
        if name == "running_mean" and self.kind not in BATCH_KINDS:
            self.notes.append(_statistics_note(former, self.module))
        return former.buffer(name, like)

    def _fresh(self, name: str, like: Tensor) -> Tensor:
        if name == "num_batches_tracked":
            return torch.zeros((), dtype=torch.long, device=like.device)
        start = 1.0 if name == "running_var" else 0.0
        return torch.full((self.channels,), start, dtype=like.dtype, device=like.device)

    def lose(self, what: str) -> None:
        """Refuses a loss, or notes it where the caller allows it."""
        if not self.options.lossy:
            raise ConversionError(what)
        self.lost.append(what)


def _statistics_note(former: Former, module: nn.Module) -> str:
    """What the way back should know of the statistics that it finds again."""
    mean, variance = former.buffers["running_mean"], former.buffers.get("running_var")
    known = mean is not None and variance is not None and not mean.is_meta
    if known and not mean.any() and bool((variance == 1).all()):  # type: ignore[union-attr]
        return "with statistics that never saw a batch: recalibrate it"
    if not former.is_untrained(module):
        return "with the statistics of before it was trained further: recalibrate it"
    return "with the statistics of before"
