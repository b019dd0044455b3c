"""Puts one normaliser in the place of every normaliser of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normwright.errors import OptionError
from normwright.lab.layers_before import LAYER_NEEDED, LAYERS, act_on_layer
from normwright.lab.normalisers import Choice, Shape, choose
from normwright.network.walk import find_normalisers, replace_module
from normwright.network.writing import put_back
from normwright.nn import LayerNorm, RMSNorm


@dataclass(frozen=True)
class Placement:
    """Where a normaliser was placed.

    Args:
        places: qualified names of every place of a normaliser, in the order in which a batch meets them.
        left_out: those of them where this normaliser is undefined, and which hold `nn.Identity`.
    """

    places: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """One normaliser of the network, the distinct shapes in which it met the example, and what was before it.

    `layer` is the name of the layer that was called last before it, unless that is another place's already.
    """

    name: str
    normaliser: nn.Module
    shapes: tuple[Shape, ...]
    layer: str | None


@dataclass(frozen=True)
class _Asked:
    """Which normaliser is to be placed, and its options; see `make`."""

    norm: str
    groups: int
    ghost_size: int
    affine: bool

    def choose(self, shape: Shape) -> Choice | None:
        """The one for a shape."""
        return choose(self.norm, shape, self.groups, self.ghost_size, self.affine)


class Rows(nn.Module):
    """Applies a normaliser to x with all axes but the last few taken as samples: (…, C) as (rows, C).

    A layer norm normalises every position of a sequence (N, T, C) by itself; to a batch norm in its
    place, every position is a sample, so its moments run over N and T.

    Args:
        norm: takes (rows, *the last axes).
        axes: how many trailing axes make up a sample.
    """

    def __init__(self, norm: nn.Module, axes: int) -> None:
        super().__init__()
        self.norm = norm
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, *the last axes) -> the same shape."""
        rows: Tensor = self.norm(x.reshape(-1, *x.shape[-self.axes :]))
        return rows.reshape(x.shape)

    def extra_repr(self) -> str:
        """The option, as torch shows it."""
        return f"axes={self.axes}"


def place(
    network: nn.Module,
    norm: str,
    example: Tensor,
    *,
    groups: int,
    ghost_size: int = 32,
    affine: bool = True,
) -> Placement:
    """Replaces every normaliser of a network, in place, by `norm`.

    One pass of `example` in training mode shows in what shape each normaliser meets its input; `make`
    builds the new one for that shape, with its own default options. Where `norm` is undefined stands
    `nn.Identity`. A layer or RMS norm over the last k axes takes all axes before them for samples,
    so (N, T, C) with `LayerNorm(C)` counts as N·T samples of C channels. A normaliser that acts on the layer
    before its place (see `layers_before`) is undefined where there is none that it can act on; the place
    holds `nn.Identity` all the same.

    The pass leaves no trace: buffers, modes and PyTorch's random state are restored, also when
    it fails, and no module is replaced unless all can be. Torch's transformer layers lose their
    inference fast path, which computes a layer norm whatever module stands there.

    Args:
        network: changed in place.
        norm: one of `NORMS`.
        example: at least two samples, on the network's device.
        groups, ghost_size, affine: see `make`.
    Raises:
        OptionError: the network holds no normaliser, or is one; one is never reached by the example,
            or reached in shapes that one `norm` cannot serve; `norm` is defined nowhere; a layer norm
            of the user's own does not tell which axis holds the channels.
        Whatever the network raises.
    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
        >>> place(network, "layer", torch.zeros(2, 1, 8, 8), groups=8)
        Placement(places=('1',), left_out=())
        >>> network[1].normalized_shape
        (4, 6, 6)
    """
    places = _find_places(network, example)
    asked = _Asked(norm, groups, ghost_size, affine)
    modules = {spot.name: _build_for(network, spot, asked, example) for spot in places}
    left_out = tuple(name for name, module in modules.items() if module is None)
    if len(left_out) == len(places):
        raise _defined_nowhere(norm, places)
    for spot in places:
        if norm in LAYER_NEEDED and spot.name not in left_out:
            assert spot.layer is not None
            act_on_layer(network, norm, spot.layer)
    for name, module in modules.items():
        replace_module(network, name, nn.Identity() if module is None else module)
    leave_fast_path(network)
    return Placement(tuple(modules), left_out)


def _defined_nowhere(norm: str, places: list[_Place]) -> OptionError:
    names = ", ".join(spot.name for spot in places)
    if norm in LAYER_NEEDED:
        return OptionError(
            f"{norm} norm must have {LAYER_NEEDED[norm].words} to act on right before one normaliser of the "
            f"network at least, but has none before {names}: leave it out for this network"
        )
    return OptionError(
        f"{norm} norm must be defined at one normaliser of the network at least, but is at none of "
        f"{names} (inputs {_list_shapes(places)}): leave it out for this network"
    )


def trial(network: nn.Module, example: Tensor) -> Any:
    """The network's output for an example in training mode; leaves modes, buffers and random state alone.

    Lazy modules do take their shapes from it.

    Raises:
        Whatever the network raises; its state is restored all the same.
    """
    with _undisturbed(network, example.device), torch.no_grad():
        network.train()
        return network(example)


@contextmanager
def _undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if not is_lazy(buffer)
    ]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            for module, name, buffer, saved in buffers:
                put_back(buffer, saved)
                setattr(module, name, buffer)


def _find_places(network: nn.Module, example: Tensor) -> list[_Place]:
    """The outermost normalisers, in the order in which the example reaches them."""
    found = find_normalisers(network)
    if "" in found:
        raise OptionError(
            f"the network is itself a normaliser ({type(network).__name__}), which has no place to be "
            "replaced in: wrap it in nn.Sequential"
        )
    outermost = {
        name: module
        for name, module in found.items()
        if not any(name.startswith(f"{outer}.") for outer in found)
    }
    if not outermost:
        raise OptionError(
            f"the network ({type(network).__name__}) must hold normalisers to be replaced, but holds none: "
            "put one of torch.nn (BatchNorm2d, LayerNorm, …) wherever a normaliser shall stand"
        )
    shapes, layers = _seen(network, outermost, example)
    unmet = [name for name in outermost if name not in shapes]
    if unmet:
        raise OptionError(
            f"every normaliser must be reached by a batch, but the example {tuple(example.shape)} never "
            f"calls {', '.join(unmet)}: remove them, or call them as modules in the network's forward"
        )
    return [_Place(name, outermost[name], tuple(met), layers[name]) for name, met in shapes.items()]


def _seen(
    network: nn.Module, modules: dict[str, nn.Module], example: Tensor
) -> tuple[dict[str, dict[Shape, None]], dict[str, str | None]]:
    """The distinct input shapes of each module (a dict keeps order), in the order of the first calls.

    And for each the layer that was called last before its first call.
    """
    shapes: dict[str, dict[Shape, None]] = {}
    before: dict[str, str | None] = {}
    last: list[str] = []

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
            shapes.setdefault(name, {})[tuple(x.shape)] = None
            if name not in before:
                taken = not last or last[-1] in before.values()
                before[name] = None if taken else last[-1]

        return modules[name].register_forward_pre_hook(note, with_kwargs=True)

    layers: dict[str, nn.Module] = {
        name: module for name, module in network.named_modules() if isinstance(module, LAYERS)
    }
    handles = [watch(name) for name in modules]
    handles += [layer.register_forward_hook(partial(_note, last, name)) for name, layer in layers.items()]
    try:
        trial(network, example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes, before


def _note(names: list[str], name: str, *_: Any) -> None:
    names.append(name)


def _build_for(network: nn.Module, spot: _Place, asked: _Asked, example: Tensor) -> nn.Module | None:
    """The normaliser for one place, on the device, in the dtype and in the mode of the one it replaces."""
    norm = asked.norm
    if norm in LAYER_NEEDED:
        layer = None if spot.layer is None else network.get_submodule(spot.layer)
        if not LAYER_NEEDED[norm].is_met_by(layer):
            return None
    samples = [_as_samples(spot, shape) for shape in spot.shapes]
    choice, *others = map(asked.choose, samples)
    if choice is None or None in others:
        return None
    if any(other != choice for other in others):
        raise OptionError(
            f"one {norm} norm must serve every input of {spot.name!r}, but it is called with "
            f"{_list_shapes([spot])}: give the network one normaliser per shape, or leave {norm} out"
        )
    module = choice.build()
    axes = len(samples[0]) - 1
    # Layer and RMS norm take any axes before their own; the others count theirs from the front.
    shaped = choice.kind not in (nn.Identity, LayerNorm, RMSNorm)
    if shaped and any(len(shape) != axes + 1 for shape in spot.shapes):
        module = Rows(module, axes)
    old = next((p for p in spot.normaliser.parameters() if p.is_floating_point()), example)
    return module.to(device=old.device, dtype=old.dtype).train(spot.normaliser.training)


def leave_fast_path(network: nn.Module) -> None:
    """Lets torch's transformer layers call their normalisers.

    In inference they read eps, weight and bias of `norm1` and `norm2` and compute a layer norm from
    them, whatever stands there: with a batch norm, wrong numbers and no error. These two attributes
    are what they ask before they do so; nothing else reads them.
    """
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _as_samples(spot: _Place, shape: Shape) -> Shape:
    """The input of a place as (N, C, *space)."""
    if not isinstance(spot.normaliser, nn.LayerNorm | nn.RMSNorm):
        return shape
    normalised = tuple(spot.normaliser.normalized_shape)
    axes = len(normalised)
    if shape[-axes:] != normalised:
        return shape  # a subclass that moves the axes itself, as torchvision's LayerNorm2d does
    if axes == 1 and len(shape) > 2 and shape[1:2] == normalised and not _is_library_class(spot.normaliser):
        raise OptionError(
            f"the channel axis of {spot.name!r} ({type(spot.normaliser).__name__}) must be known, but in "
            f"its input {shape} the second and last axis have one size: change the size of the samples"
        )
    return (math.prod(shape[:-axes]), *normalised)


def _is_library_class(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.nn.", "normwright.nn."))


def _list_shapes(places: list[_Place]) -> str:
    return ", ".join(str(shape) for spot in places for shape in spot.shapes)
