"""One process of a group that trains together; run as a program by test_parallel.py.

python parallel_process.py RANK FOLDER
"""

from __future__ import annotations

import copy
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from processes import process_group
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import ScheduleGPipe, SplitPoint, pipeline
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import normwright as nw
from normwright.network.acceleration.accelerate import accelerate_with_report

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nw.nn.BatchNorm2d(6),
    "batch, cumulative": lambda: nw.nn.BatchNorm2d(6, momentum=None, activation="relu"),
    "batch in inference": lambda: nw.nn.BatchNorm2d(6, activation="silu").eval(),
    "group": lambda: nw.nn.GroupNorm(2, 6),
    "instance": lambda: nw.nn.InstanceNorm2d(6, affine=True),
    "layer": lambda: nw.nn.LayerNorm((5, 5), activation="gelu"),
    "rms": lambda: nw.nn.RMSNorm((5,)),
    "tanh": lambda: nw.nn.DynamicTanh(5),
}
REFUSED: dict[str, Callable[[], nn.Module]] = {
    "filter responses": lambda: nw.nn.FilterResponseNorm(6),
    "ghost": lambda: nw.nn.GhostBatchNorm2d(6, ghost_size=2),
    "renormalised": lambda: nw.nn.BatchRenorm2d(6),
    "synchronised": lambda: nw.nn.SyncBatchNorm(6),
    "whitening": lambda: nw.nn.WhiteningNorm2d(6, group_size=2),
}
PLACEMENTS = {"samples": Shard(0), "channels": Shard(1), "space": Shard(3), "nothing": Replicate()}


def whole(tensor: Tensor) -> Tensor:
    """What all processes hold together, as a plain tensor."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def error_of(act: Callable[[], object]) -> str:
    """What a call raises."""
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


# ---- Sharded tensors


def sharded_layer(name: str, placement: Any, mesh: DeviceMesh) -> dict[str, list[Tensor]]:
    """Output, gradients and statistics of a layer on a sharded input, and of the layer on all of it."""
    torch.manual_seed(0)
    x = torch.randn(3, 6, 5, 5, dtype=torch.float64)  # three samples on two processes
    found = {}
    for way in ("alone", "together"):
        layer, given = LAYERS[name]().double(), x
        if way == "together":
            layer, given = distribute_module(layer, mesh), distribute_tensor(x, mesh, [placement])
        given = given.detach().requires_grad_()
        y = layer(given)
        y.pow(3).sum().backward()
        gradients = [parameter.grad for parameter in layer.parameters()]
        found[way] = [whole(part) for part in (y, given.grad, *gradients, *layer.buffers())]
    return found


def refusals(mesh: DeviceMesh) -> dict[str, str]:
    """What is said of sharded inputs that a layer does not take."""
    x = distribute_tensor(torch.randn(4, 6, 5, 5), mesh, [Shard(0)])
    found = {
        name: error_of(lambda make=make: distribute_module(make(), mesh)(x)) for name, make in REFUSED.items()
    }
    found["LSTM"] = error_of(lambda: distribute_module(nw.nn.LayerNormLSTM(5, 5), mesh)(x[0]))
    found["plain weight"] = error_of(lambda: nw.nn.LayerNorm(5)(x))
    found["plain statistics"] = error_of(lambda: nw.nn.BatchNorm2d(6, affine=False)(x))
    found["out"] = error_of(lambda: nw.functional.layer_norm(x, (5,), out=x))
    plain = torch.randn(4, 6, 5, 5)
    found["plain input of batch norm"] = error_of(
        lambda: distribute_module(nw.nn.BatchNorm2d(6), mesh)(plain)
    )
    found["plain input of RMS norm"] = error_of(lambda: distribute_module(nw.nn.RMSNorm(5), mesh)(plain))
    found["plain input of tanh"] = error_of(lambda: distribute_module(nw.nn.DynamicTanh(5), mesh)(plain))
    found["plain input and a residual"] = error_of(lambda: nw.functional.layer_norm(plain, (5,), residual=x))
    return found


def strides(mesh: DeviceMesh) -> dict[str, list[tuple[int, ...]]]:
    """RMS norm's outputs for inputs that lie in several ways: a DTensor's and a plain tensor's strides."""
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "slice": lambda x: x[..., :8],
        "expanded": lambda x: x[:, :1, :8].expand(4, 6, 8),
        "permuted": lambda x: x.transpose(0, 1),
        "permuted slice": lambda x: x[..., :8].transpose(0, 1),
    }
    found, x = {}, torch.randn(4, 6, 16)
    for way, taken in ways.items():
        alone = taken(x)
        layer = distribute_module(nw.nn.RMSNorm(alone.shape[-1]), mesh)
        y = layer(taken(distribute_tensor(x, mesh, [Shard(0)])))
        found[way] = [each.stride() for each in (y, nw.nn.RMSNorm(alone.shape[-1])(alone))]
    return found


class Block(nn.Module):
    """The second half of a transformer's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.out = nn.LayerNorm(8), nn.RMSNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        """(N, length, 8), as x is."""
        return self.out(x + self.down(torch.relu(self.up(self.norm(x)))))


def tensor_parallel(mesh: DeviceMesh) -> dict[str, dict[str, Tensor]]:
    """Gradients of an accelerated block in sequence parallelism, and of PyTorch's on the whole sequence."""
    x = torch.randn(2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone, block = Block().double(), nw.accelerate(Block().double())
    alone(x).pow(3).mean().backward()
    plan = {
        "norm": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Shard(1)),
        "down": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
        "out": SequenceParallel(),
    }
    parallelize_module(block, mesh, plan)
    parallelize_module(
        block, mesh, PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=Shard(1))
    )
    block(x).pow(3).mean().full_tensor().backward()
    return {
        way: {name: whole(parameter.grad) for name, parameter in module.named_parameters()}
        for way, module in (("alone", alone), ("together", block))
    }


# ---- Networks whose parameters are spread over the processes


def images(rank: int, step: int) -> Tensor:
    """One mini-batch of one rank."""
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(10 * rank + step))


def network() -> nn.Module:
    """The same each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3)
    )


def spread(part: nn.Module | None = None, **how: Any) -> nn.Module:
    """The same, or another of its modules, with its parameters spread over the processes."""
    part = network() if part is None else part
    for name in ("0", "5"):
        fully_shard(part.get_submodule(name), **how)
    return fully_shard(part, **how)


def train(part: nn.Module, rank: int, optimiser: torch.optim.Optimizer) -> None:
    """Two steps."""
    for step in range(2):
        optimiser.zero_grad()
        part(images(rank, step)).pow(3).mean().backward()
        optimiser.step()


def in_bfloat16(rank: int) -> dict[str, dict[str, Tensor]]:
    """Gradients of an accelerated spread network that computes in bfloat16, and of one in float32."""
    bfloat16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    found = {}
    for dtype, how in (("bfloat16", {"mp_policy": bfloat16}), ("float32", {})):
        part = spread(nw.accelerate(network()), **how)
        part(images(rank, 0)).float().pow(3).mean().backward()
        found[dtype] = {name: whole(p.grad) for name, p in part.named_parameters() if p.grad is not None}
    return found


def watched(part: nn.Module, rank: int) -> dict[str, list[tuple[float, ...]]]:
    """What a monitor reads of the gradients."""
    optimiser = torch.optim.SGD(part.parameters(), lr=0.1)
    with nw.Monitor(part, optimiser, every=2, steps=2, on_finding=lambda _: None) as monitor:
        train(part, rank, optimiser)
    return {
        fact.parameter: [fact.norms, fact.updates, fact.weights]
        for fact in monitor.windows[0].evidence.gradients
    }


def watched_flat(rank: int, inside: bool) -> dict[str, Any]:
    """What a monitor has of a network whose parameters lie in pieces of one vector; or of one inside it."""
    part = FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=True)
    optimiser = torch.optim.SGD(part.parameters(), lr=0.1)
    heard = part.module if inside else part
    with nw.Monitor(heard, optimiser, every=2, steps=2, on_finding=lambda _: None) as monitor:
        train(part, rank, optimiser)
    evidence = monitor.windows[0].evidence
    return {
        "gradients": error_of(lambda: evidence.gradients),
        "layer gradients": error_of(lambda: evidence.layer_gradients),
        "heard": [facts.layer for facts in evidence.activations],
    }


def watched_by_the_first(rank: int) -> tuple[str, str]:
    """What a monitor says that the other process has not, and then one that both have."""
    part = spread()
    optimiser = torch.optim.SGD(part.parameters(), lr=0.1)
    monitor = nw.Monitor(part, optimiser) if rank == 0 else None
    part(images(rank, 0)).sum().backward()
    found = error_of(optimiser.step)
    if monitor is not None:
        monitor.close()
    torch.distributed.barrier()
    with nw.Monitor(part, optimiser):
        torch.distributed.barrier()
        again = error_of(optimiser.step)
    torch.distributed.barrier()
    return found, again


def recalibrated(rank: int) -> dict[str, Any]:
    """Statistics over both processes of a spread network and of a whole one; unequal shares; and copies."""
    group = torch.distributed.group.WORLD
    batches = [images(rank, step) for step in range(2)]
    found: dict[str, Any] = {}
    for way, part in (("whole", network()), ("spread", spread())):
        nw.recalibrate(part, batches, process_group=group)
        found[way] = [part[1].running_mean, part[1].running_var]
    part = spread()
    found["unequal"] = error_of(lambda: nw.recalibrate(part, batches[: 1 + rank], process_group=group))
    found["as it was"] = torch.equal(part[1].running_mean, torch.zeros(4))
    reading = nw.recalibrate(part, batches, samples=4 + 4 * rank, process_group=group)
    found["read"] = [reading.samples, reading.report.stopped]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        nw.recalibrate(part, batches)
    found["warned"] = [str(each.message) for each in warned]
    found["fold"] = error_of(lambda: nw.fold(part.eval(), images(0, 0)))
    found["diagnose"] = error_of(
        lambda: nw.diagnose(part, batches, lambda y, _: y.sum(), process_group=group)
    )
    found["synchronise"] = error_of(lambda: nw.nn.SyncBatchNorm.convert_sync_batchnorm(part))
    return found


def broken_off(rank: int) -> dict[str, Any]:
    """One process fails in the midst of a forward, in which the other waits until its end."""

    def fails(*_: Any) -> None:
        raise ArithmeticError("the forward failed")

    part = spread()
    if rank == 1:
        part[3].register_forward_pre_hook(fails)
    group = torch.distributed.group.WORLD
    error = error_of(lambda: nw.recalibrate(part, [images(rank, 0)], process_group=group))
    return {"error": error, "as it was": torch.equal(part[1].running_mean, torch.zeros(4))}


def adapted(rank: int) -> dict[str, Any]:
    """Adapting a spread network, where the guard of one process alone asks what the source answers."""

    def scores(output: Tensor) -> Tensor:
        """In process 1 the adapted network and the source alike say one class, which is no collapse."""
        return output if rank == 0 else torch.zeros_like(output)

    group = torch.distributed.group.WORLD
    batches = [torch.cat([images(rank, 2 * step), images(rank, 2 * step + 1)]) for step in range(2)]
    part, whole_part = spread().eval(), network().eval()
    for each in (part, whole_part):
        nw.adapt(each, batches, scores_of=scores, process_group=group)
    with nw.AdaptedStream(spread().eval(), scores_of=scores) as stream:
        answers = [stream(batch) for batch in batches]
    with nw.AdaptedStream(network().eval(), scores_of=scores) as stream:
        alone = [stream(batch) for batch in batches]
    return {
        "statistics": [each[1].running_mean.clone() for each in (part, whole_part)],
        "answers": [torch.cat(each) for each in (answers, alone)],
    }


# ---- Groups of processes


def grouped(rank: int) -> dict[str, Any]:
    """Calls with groups of their own."""
    world = torch.distributed.group.WORLD
    first, both = torch.distributed.new_group([0]), torch.distributed.new_group([0, 1])
    layer = nw.nn.SyncBatchNorm(4, process_group=both)
    layer_in = nn.Sequential(nn.Linear(4, 4), layer)
    samples = [(torch.randn(4, 4), torch.arange(4)) for _ in range(2 + rank)]
    loss = nn.functional.cross_entropy
    alone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    return {
        "outside": error_of(
            lambda: nw.recalibrate(copy.deepcopy(alone), [samples[0][0]], process_group=first)
        ),
        "no group": error_of(lambda: nw.adapt(alone, [samples[0][0]], process_group=True)),
        "copied": nw.accelerate(layer_in)[1].process_group is both,
        "unequal": error_of(lambda: nw.diagnose(layer_in, samples, loss, process_group=both)),
        "without": error_of(lambda: nw.diagnose(layer_in, samples, loss)),
        "one fails": error_of(lambda: nw.diagnose(alone, samples[: 2 - 2 * rank], loss, process_group=world)),
    }


# ---- Wrapped networks


def wrapped() -> dict[str, str]:
    """What a wrapper would not know of, and what is said of a layer that is sharded by itself."""
    sharded = network()
    fully_shard(sharded[1])
    return {
        "sharded": error_of(lambda: nw.convert(sharded, "frozen", inplace=True)),
        "accelerated": str(accelerate_with_report(sharded, inplace=True)[1]),
        "new parameters": error_of(
            lambda: nw.convert(
                DistributedDataParallel(network()), "layer", example=images(0, 0), inplace=True
            )
        ),
        "no buffers": error_of(lambda: nw.convert(DistributedDataParallel(network()), "group")),
        "same parameters": error_of(
            lambda: nw.convert(DistributedDataParallel(network()), "synchronised", inplace=True)
        ),
    }


def optimised(rank: int) -> dict[str, str]:
    """Optimisers that cannot be copied, or heard."""
    from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer  # which warns

    part = network()
    zero = ZeroRedundancyOptimizer(part.parameters(), torch.optim.SGD, lr=0.1)
    batches = [(images(rank, step), torch.arange(4) % 3) for step in range(2)]
    loss = nn.functional.cross_entropy
    local = PostLocalSGDOptimizer(torch.optim.SGD(part.parameters(), lr=0.1), None)
    return {
        "zero": error_of(
            lambda: nw.diagnose(
                part, batches, loss, optimiser=zero, process_group=torch.distributed.group.WORLD
            )
        ),
        "local": error_of(lambda: nw.Monitor(part, local)),
    }


# ---- Pipelines


def staged(rank: int, make: Callable[[nn.Module], nn.Module]) -> dict[str, Tensor]:
    """Gradients and statistics of this process's stage after a step of two micro-batches."""
    pipe = pipeline(make(network()), mb_args=(images(0, 0),), split_spec={"3": SplitPoint.BEGINNING})
    stage = pipe.build_stage(rank, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, 2, loss_fn=lambda y, _: y.pow(3).mean())
    if rank == 0:
        schedule.step(torch.cat([images(0, 0), images(1, 0)]))
    else:
        schedule.step(target=torch.zeros(8))
    part = stage.submod
    return {
        **{name: torch.zeros(()) if p.grad is None else p.grad for name, p in part.named_parameters()},
        **dict(part.named_buffers()),
    }


def synchronised_stage() -> str:
    """What a traced stage with a synchronised batch norm says, whose trace has not its gradients."""
    part = nn.Sequential(nn.Linear(4, 4), nw.nn.SyncBatchNorm(4), nn.Linear(4, 4))
    x = torch.randn(4, 4)
    pipe = pipeline(part, mb_args=(x,), split_spec={"2": SplitPoint.BEGINNING})
    return error_of(lambda: pipe.get_stage_module(0)(x))


def main(rank: int, folder: Path) -> None:
    """Saves what this rank found."""
    warnings.simplefilter("ignore")  # PyTorch's, of what it does itself
    with process_group(rank, folder):
        mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        found: dict[str, Any] = {
            "layers": {
                f"{name}, {axis}": sharded_layer(name, placement, mesh)
                for name in LAYERS
                for axis, placement in PLACEMENTS.items()
            },
            "strides": strides(mesh),
            "refused": refusals(mesh),
            "tensor parallel": tensor_parallel(mesh),
            "watched": {
                "whole": watched(DistributedDataParallel(network()), rank),
                "spread": watched(spread(), rank),
            },
            "in bfloat16": in_bfloat16(rank),
            "watched flat": [watched_flat(rank, inside) for inside in (False, True)],
            "watched by the first": watched_by_the_first(rank),
            "recalibrated": recalibrated(rank),
            "adapted": adapted(rank),
            "grouped": grouped(rank),
            "wrapped": wrapped(),
            "optimised": optimised(rank),
            "staged": {"plain": staged(rank, lambda part: part), "accelerated": staged(rank, nw.accelerate)},
            "synchronised stage": synchronised_stage(),
        }
        found["broken off"] = broken_off(rank)
        torch.save(found, folder / f"{rank}.pt")
        os._exit(0)  # past a last meeting, which the other does not come to


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
