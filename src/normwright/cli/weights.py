"""The output of the commands that keep a network's layers, or that say how to come by them: its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from normwright import __version__

if TYPE_CHECKING:
    from torch import nn


def writer_of(network: nn.Module, verb: str) -> Callable[[Path], Sequence[str]]:
    """What writes the network's weights, with the verb and the version in the metadata."""

    def write(path: Path) -> Sequence[str]:
        from normwright.lab.weights.write import write_weights

        write_weights(network, path, made_by={"normwright": __version__, "verb": verb})
        return ()

    return write


def use(path: Path) -> tuple[str, ...]:
    """The lines of Python that load such a file into the network that it belongs to.

    Example:
        >>> use(Path("a.pt"))
        ("network.load_state_dict(torch.load('a.pt', weights_only=True))",)
    """
    if path.suffix == ".safetensors":
        return (f"network.load_state_dict(safetensors.torch.load_file({str(path)!r}))",)
    return (f"network.load_state_dict(torch.load({str(path)!r}, weights_only=True))",)
