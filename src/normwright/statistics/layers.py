"""The normalisers of a network that keep statistics of a population."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from normwright.errors import OptionError, unknown_name
from normwright.network.names import names_in
from normwright.network.walk import WHITENING, find_normalisers, is_normaliser
from normwright.nn import RecurrentBatchNorm

Moments = tuple[Tensor, Tensor]  # mean and variance, (C,) each; of whitening, the covariance (G, d, d)


@dataclass(frozen=True)
class Layer:
    """A pair of running statistics by their names, which are the same in every process.

    Args:
        name: the module's qualified name; where a module calls `batch_norm` with buffers of its own, the
            module's, or the buffer's where it is not called running_mean.
        kind: the module's class's name.
        mean, variance: qualified names of the buffers; of whitening, the covariance's for the variance's.
        per_sample: the moments are those of each sample, as in instance norm.
        step: which row of the buffers, where these hold statistics for each time step.
        count: qualified name of the batches counted for each time step, likewise.
    """

    name: str
    kind: str
    mean: str
    variance: str
    per_sample: bool
    step: int | None = None
    count: str | None = None

    def moments_in(self, network: nn.Module) -> Moments:
        """The running mean and variance themselves."""
        mean, variance = _buffer(network, self.mean), _buffer(network, self.variance)
        return (mean, variance) if self.step is None else (mean[self.step], variance[self.step])

    def count_in(self, network: nn.Module) -> Tensor | None:
        """How many batches a time step has seen, itself; None where it is not counted by step."""
        return None if self.count is None else _buffer(network, self.count)[self.step]


class Layers:
    """The layers of a network whose statistics may change, looked up by the buffers of a call.

    Args:
        network: its normalisers are found by what they are; a call of `batch_norm` or `instance_norm` with
            buffers that any of its modules registered counts as a layer too.
        chosen: names of the modules to act on; None for all.
        instance_norm: whether instance norm that keeps statistics counts.
        recurrent: whether statistics per time step count.
    Raises:
        OptionError: a chosen name is none of the network's, or a layer has not seen its first batch (lazy).
    """

    def __init__(
        self,
        network: nn.Module,
        chosen: Collection[str] | None = None,
        *,
        instance_norm: bool = True,
        recurrent: bool = True,
    ) -> None:
        modules = dict(network.named_modules())
        chosen = None if chosen is None else _first_names(network, names_in("layers=", chosen))
        self.normalisers = find_normalisers(network)
        self.left = {
            name: reason
            for name, module in modules.items()
            if (reason := _reason_to_leave(name, module, network, chosen, instance_norm, recurrent))
        }
        self._owners: dict[int, tuple[str, str, nn.Module]] = {}
        for name, module in modules.items():
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    self._owners.setdefault(id(buffer), (f"{name}.{key}" if name else key, name, module))
        self._known: dict[int, Layer] = {}

    @property
    def modules(self) -> list[nn.Module]:
        """The normalisers that keep statistics and are not left alone."""
        return [module for name, module in self.normalisers.items() if name not in self.left]

    def described(self) -> tuple[str, ...]:
        """Each layer that is not left alone, in words."""
        return tuple(
            f"{name}.{key} {tuple(buffer.shape)}".lstrip(".")
            for name, module in self.normalisers.items()
            for key, buffer in module._buffers.items()
            if buffer is not None and name not in self.left
        )

    def of_call(self, mean: Tensor | None, variance: Tensor | None, *, per_sample: bool) -> Layer | None:
        """The layer whose statistics a call uses, or None where they are nobody's or to be left alone."""
        if mean is None or variance is None:
            return None
        known = self._known.get(id(mean)) or self._of_step(mean, variance)
        if known is not None or id(mean) not in self._owners or id(variance) not in self._owners:
            return known
        buffer, owner, module = self._owners[id(mean)]
        if owner in self.left:
            return None
        layer = Layer(
            owner if buffer.rpartition(".")[2] == "running_mean" else buffer,
            type(module).__name__,
            buffer,
            self._owners[id(variance)][0],
            per_sample or isinstance(module, _InstanceNorm),
        )
        self._known[id(mean)] = layer
        return layer

    def _of_step(self, mean: Tensor, variance: Tensor) -> Layer | None:
        """The layer whose statistics of one time step these are: rows, which PyTorch makes at every call."""
        whole, others = self._whole_of(mean), self._whole_of(variance)
        if whole is None or others is None or not {id(whole), id(others)} <= self._owners.keys():
            return None
        buffer, owner, module = self._owners[id(whole)]
        if owner in self.left or not isinstance(module, RecurrentBatchNorm):
            return None
        step = (mean.storage_offset() - whole.storage_offset()) // whole.stride(0)
        count = f"{owner}.num_batches_tracked" if owner else "num_batches_tracked"
        variances = self._owners[id(others)][0]
        return Layer(owner, type(module).__name__, buffer, variances, False, step, count)

    def _whole_of(self, row: Tensor) -> Tensor | None:
        """The buffer that a row was taken of: in inference mode a view does not know it."""
        if row._base is not None or not row.is_inference():
            return row._base
        memory = row.untyped_storage().data_ptr()
        tables = (
            buffer
            for module in self.normalisers.values()
            if isinstance(module, RecurrentBatchNorm)
            for buffer in (module.running_mean, module.running_var)
        )
        return next((table for table in tables if table.untyped_storage().data_ptr() == memory), None)

    def check_any(self) -> None:
        """Raises OptionError where the network's normalisers keep no statistics at all.

        A network without normaliser modules passes where some module has buffers that a call may use.
        """
        if self.modules:
            return
        owned = [buffer for buffer, owner, _ in self._owners.values() if owner not in self.left]
        if any(buffer.endswith("running_mean") for buffer in owned):
            return
        if not self.normalisers:
            raise OptionError(
                "the network must have a normaliser that keeps statistics of its population (batch norm, or "
                "instance norm with track_running_stats=True), but it has none of those known here: there is "
                "nothing to estimate"
            )
        reasons = "; ".join(
            f"{name or '(network)'} ({type(module).__name__}): {self.left[name]}"
            for name, module in list(self.normalisers.items())[:8]
        )
        if len(self.normalisers) > 8:
            reasons += f"; and so are {len(self.normalisers) - 8} more"
        raise OptionError(
            "the network must have a normaliser that keeps statistics of its population, but each is left "
            f"alone: {reasons}. Build batch norm with track_running_stats=True, or thaw what is frozen"
        )


def _first_names(network: nn.Module, chosen: Collection[str]) -> tuple[str, ...]:
    """The names that `named_modules` has first; a module that stands in several places has others too."""
    every = dict(network.named_modules(remove_duplicate=False))
    first = {module: name for name, module in network.named_modules()}
    for name in chosen:
        if name not in every:
            raise unknown_name("layer", name, find_normalisers(network))
    return tuple(first[every[name]] for name in chosen)


def _buffer(network: nn.Module, name: str) -> Tensor:
    """As `get_buffer`, whose questions take as long as a small layer; AttributeError where there is none."""
    *path, key = name.split(".")
    module: nn.Module | None = network
    for part in path:
        module = None if module is None else module._modules.get(part)
    buffer = None if module is None else module._buffers.get(key)
    if buffer is None:
        raise AttributeError(f"the network has no buffer {name!r}")
    return buffer


def check_not_lazy(name: str, module: _NormBase) -> None:
    """Raises OptionError where a normaliser's statistics have no size yet."""
    if module.running_mean is not None and is_lazy(module.running_mean):
        raise OptionError(
            f"layer {name!r} must know its channels, but has not seen a batch yet (lazy): run one "
            "through the network first"
        )


def _reason_to_leave(
    name: str,
    module: nn.Module,
    network: nn.Module,
    chosen: Collection[str] | None,
    instance_norm: bool,
    recurrent: bool,
) -> str | None:
    if any("Frozen" in kind.__name__ for kind in type(module).__mro__):
        return "frozen"
    if isinstance(module, _NormBase):
        check_not_lazy(name, module)
        if module.running_mean is None or module.running_var is None:
            return "keeps no statistics: track_running_stats=False"
        if isinstance(module, _InstanceNorm) and not instance_norm:
            return "normalises each sample by itself"
    elif isinstance(module, WHITENING):
        if module.running_mean is None:
            return "keeps no statistics: track_running_stats=False"
    elif isinstance(module, RecurrentBatchNorm):
        if not recurrent:
            return "keeps statistics for each time step: recalibrate() estimates these anew"
    elif is_normaliser(module):
        return "keeps no statistics"
    if network.training and not module.training:
        return "frozen: in inference mode while the network trains"
    if chosen is not None and name not in chosen:
        return "not chosen"
    return None
