"""Writes the weights of a network, in the format that the file's ending names."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from normwright.errors import OptionError
from normwright.lab.store.checkpoint import serialised
from normwright.lab.store.whole import write_whole


def write_weights(network: nn.Module, path: Path, *, made_by: Mapping[str, str]) -> None:
    """Writes the network's state dict; the file is whole at every moment, the old one or the new.

    Args:
        network: on any device.
        path: ends in one of `normwright.lab.weights.WEIGHTS`.
        made_by: goes into the metadata of a safetensors file.
    Raises:
        OptionError: safetensors has no place for a tensor of this kind.
        StoreError: it cannot be written; the old file stands.
    """
    tensors = {name: value for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
    if path.suffix == ".safetensors":
        try:
            content = serialised(tensors, made_by)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as fault:
            raise OptionError(
                f"{path}: safetensors cannot hold every tensor of this network ({fault}): end it in .pt"
            ) from fault
    else:
        buffer = io.BytesIO()
        torch.save({name: tensor.detach().cpu() for name, tensor in tensors.items()}, buffer)
        content = buffer.getvalue()
    write_whole(path, content)
