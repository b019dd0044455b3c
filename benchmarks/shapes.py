"""Every distinct normaliser of the networks, as hooks see it.

`python -m benchmarks.shapes` runs the hooks and rewrites shapes.json, which the benchmarks read.
The networks run on PyTorch's meta device, which computes shapes and nothing else.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from benchmarks.cases import Case
from benchmarks.models import MODELS, Model
from normwright.errors import OptionError
from normwright.network.walk import find_normalisers

FROZEN = Path(__file__).with_name("shapes.json")

ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu", nn.SiLU: "silu"}


def gather(source: str, model: Model) -> Counter[Case]:
    """The cases that one forward of a network holds, and how often."""
    watch = _Watch(source)
    network = model.network.to("meta")
    for normaliser in find_normalisers(network).values():
        normaliser.register_forward_hook(watch.normaliser)
    for module in network.modules():
        if type(module) in ACTIVATIONS:
            module.register_forward_pre_hook(watch.activation)
    network(*(tensor.to("meta") for tensor in model.inputs))
    return Counter(watch.cases)


class _Watch:
    """Hooks that note a case per normaliser, and what is done to its output next.

    An activation follows if a module is given the very tensor that the normaliser returned; a residual was
    added if the tensor was changed in place on the way, which its version tells. An addition that makes a
    new tensor is not seen, and the case counts as a bare normaliser.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.cases: list[Case] = []
        self.outputs: list[tuple[Tensor, int]] = []

    def normaliser(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.cases.append(_bare(self.source, module, tuple(inputs[0].shape)))
        self.outputs.append((output, output._version))

    def activation(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for index, (output, version) in enumerate(self.outputs):
            if output is inputs[0]:
                self.cases[index] = replace(
                    self.cases[index],
                    activation=ACTIVATIONS[type(module)],
                    residual=output._version > version,
                )


def _bare(source: str, module: nn.Module, shape: tuple[int, ...]) -> Case:
    if isinstance(module, _InstanceNorm):
        return Case("instance_norm", shape, source=source)
    if isinstance(module, _BatchNorm):
        return Case("batch_norm", shape, source=source)
    if isinstance(module, nn.GroupNorm):
        return Case("group_norm", shape, groups=module.num_groups, source=source)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        operator = "layer_norm" if isinstance(module, nn.LayerNorm) else "rms_norm"
        return Case(operator, shape, normalized_shape=tuple(module.normalized_shape), source=source)
    raise OptionError(f"no case is defined for {type(module).__name__}: add one here")


def gather_all() -> list[tuple[Case, int]]:
    """The cases of every network, each network's largest first, and how often each occurs."""
    found: list[tuple[Case, int]] = []
    for source, build in MODELS.items():
        with torch.device("meta"):
            counts = gather(source, build())
        found += sorted(counts.items(), key=lambda item: -math.prod(item[0].shape))
    return found


def frozen() -> list[tuple[Case, int]]:
    """The same as shapes.json keeps it, without building a network."""
    return [_case(record) for record in json.loads(FROZEN.read_text())]


def freeze(found: list[tuple[Case, int]]) -> None:
    """Writes shapes.json, a case a line."""
    lines = ",\n".join(json.dumps(_record(case, count)) for case, count in found)
    FROZEN.write_text(f"[\n{lines}\n]\n")


def _record(case: Case, count: int) -> dict[str, Any]:
    names = ("source", "operator", "shape", "groups", "normalized_shape", "residual", "activation")
    fields = {name: getattr(case, name) for name in names}
    return {name: value for name, value in fields.items() if value} | {"count": count}


def _case(record: dict[str, Any]) -> tuple[Case, int]:
    count = record.pop("count")
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    return Case(**fields), count


if __name__ == "__main__":
    freeze(gather_all())
