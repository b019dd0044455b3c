"""One of the processes of test_sync_batch_norm: calls sync_batch_norm on its share of every batch.

python shares.py RANK FOLDER
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent)]

import torch  # noqa: E402  # beside this file lie the cases
from cases import CASES, EPS, FACTORS, Call, case_of  # noqa: E402
from processes import process_group  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from normwright.functional import sync_batch_norm  # noqa: E402

BATCHES = [case for case in CASES if FACTORS[0][case[0]] == "batch" and FACTORS[2][case[2]].shape[0]]

HARD_SHAPE = (2, 6, 5, 7)


def _draw(seed: int = 1) -> Tensor:
    return torch.randn(HARD_SHAPE, generator=torch.Generator().manual_seed(seed))


def _apart() -> Tensor:
    """The first sample around 0, the second around 10⁴, both with deviation 1."""
    return (_draw() * 16).round().div(16) + torch.tensor([0.0, 1e4]).view(2, 1, 1, 1)


HARD = {
    "mean 1e4": lambda: (_draw() * 16).round().div(16) + 1e4,
    "mean -1e6": lambda: (_draw() * 16).round().div(16) - 1e6,
    "mean -1e6 in float64": lambda: _draw().double() - 1e6,
    "shares apart": _apart,
    "1e-30": lambda: _draw() * 1e-30,
    "1e30": lambda: _draw() * 1e30,
    "mean 1e30": lambda: _draw() * 1e24 + 1e30,
    "constant": lambda: torch.full(HARD_SHAPE, 4 / 3),
}


def hard_call(name: str) -> Call:
    """A call with an input on which a careless formula fails."""
    x = HARD[name]()
    call = Call(case_of("batch", HARD_SHAPE, x.dtype))
    call.x = x
    return call


def splits(samples: int) -> dict[str, tuple[int, int]]:
    """Unequal shares, and an empty one, of each rank in turn."""
    return {"unequal": (1, samples - 1), "second empty": (samples, 0), "first empty": (0, samples)}


def masked_dy(call: Call) -> Tensor:
    """dy, zero where the side of a relu's kink cannot be told."""
    return call.dy.masked_fill(torch.tensor(call.analysis.kink()), 0)


def own(tensor: Tensor | None, rank: int, shares: tuple[int, int]) -> Tensor | None:
    """This rank's share of a batch."""
    return None if tensor is None else tensor.split(list(shares))[rank]


def assert_alike(value: Tensor, x: Tensor) -> None:
    """The value lies in memory as `empty_like(x)` does; a single element has no distance to the next."""
    strides = zip(x.shape, value.stride(), torch.empty_like(x).stride(), strict=True)
    assert all(own == model for size, own, model in strides if size > 1)


def share_of(call: Call, rank: int, shares: tuple[int, int]) -> dict[str, Tensor]:
    """y, every gradient, and the running statistics."""
    given = {
        "x": own(call.x, rank, shares),
        "residual": own(call.residual, rank, shares),
        "weight": call.weight,
        "bias": call.bias,
    }
    leaves = {name: None if t is None else t.detach().requires_grad_() for name, t in given.items()}
    running = {"running_mean": call.running_mean.clone(), "running_var": call.running_var.clone()}
    count = torch.tensor(3)
    y = sync_batch_norm(
        leaves["x"],
        **running,
        weight=leaves["weight"],
        bias=leaves["bias"],
        training=True,
        momentum=None,
        eps=EPS,
        residual=leaves["residual"],
        activation=call.activation,
        num_batches_tracked=count,
    )
    assert_alike(y, leaves["x"])
    asked = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    gradients = torch.autograd.grad(y, list(asked.values()), own(masked_dy(call), rank, shares))
    for (name, leaf), gradient in zip(asked.items(), gradients, strict=True):
        assert gradient.dtype == leaf.dtype, name
    assert_alike(gradients[0], leaves["x"])
    named = {f"d{name}": gradient for name, gradient in zip(asked, gradients, strict=True)}
    return {"y": y.detach(), **named, **running, "batches": count}


SECOND_SHARES = (2, 1)


def second_case(activation: str | None) -> tuple[Tensor, ...]:
    """x, dy, weight, and what the first derivatives are multiplied by."""
    draw = torch.Generator().manual_seed(5)
    tensors = [torch.randn(3, 4, 2, generator=draw, dtype=torch.float64) for _ in range(3)]
    return (*tensors, torch.randn(4, generator=draw, dtype=torch.float64))


def second_derivatives(function: Any, x: Tensor, dy: Tensor, v: Tensor, weight: Tensor, activation: Any):
    """Of x, dy and weight, which is the bias too, and the third of x; through gradients by x and weight."""
    x, dy, weight = (tensor.detach().requires_grad_() for tensor in (x, dy, weight))
    y = function(x, None, None, weight, weight, True, activation=activation)
    first = torch.autograd.grad(y, [x, weight], dy, create_graph=True)
    scalar = (first[0] * v).sin().sum() + first[1].sum()
    second = torch.autograd.grad(scalar, [x, dy, weight], create_graph=True)
    third = torch.autograd.grad((second[0] * v).sum(), [x])
    return [tensor.detach() for tensor in (*second, *third)]


class Collectives(TorchDispatchMode):
    """Counts the collectives that are started."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls the function."""
        name = str(function)
        self.count += "c10d" in name and "wait" not in name
        return function(*args, **(kwargs or {}))


def counted(rank: int) -> dict[str, int]:
    """How many collectives each way takes."""
    x = torch.randn(2, 3, 4)
    running = (torch.zeros(3), torch.ones(3))
    counts = {}
    with Collectives() as seen:
        sync_batch_norm(x, *running)
        counts["inference"] = seen.count
        y = sync_batch_norm(x.requires_grad_(), *running, training=True)
        counts["forward"] = seen.count - counts["inference"]
        y.sum().backward()
        counts["backward"] = seen.count - counts["inference"] - counts["forward"]
        before = seen.count
        weight = torch.ones(3, requires_grad=True)
        sync_batch_norm(x.detach(), *running, weight, training=True).sum().backward()
        counts["parameters alone"] = seen.count - before
        before = seen.count
        alone = [torch.distributed.new_group([other]) for other in range(2)][rank]
        before = seen.count
        sync_batch_norm(x, *running, training=True, process_group=alone).sum().backward()
        counts["a group of one"] = seen.count - before
    return counts


def threaded(rank: int) -> dict[str, bool]:
    """Whether 2 and 4 threads give the bits of one."""
    draw = torch.Generator().manual_seed(rank)
    found = {}
    for shape in ((4, 32, 64, 64), (3, 37, 33, 31), (5000, 64)):
        x, dy = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)

        def results(x: Tensor = x, dy: Tensor = dy) -> list[Tensor]:
            running = [torch.zeros(x.shape[1]), torch.ones(x.shape[1])]
            weight = torch.linspace(0.5, 2, x.shape[1]).requires_grad_()
            leaf = x.detach().requires_grad_()
            y = sync_batch_norm(leaf, *running, weight, training=True, activation="silu")
            return [y, *torch.autograd.grad(y, [leaf, weight], dy), *running]

        alone = results()
        for number in (2, 4):
            torch.set_num_threads(number)
            found[f"{shape}, {number}"] = all(map(torch.equal, alone, results()))
        torch.set_num_threads(1)
    return found


def raised(x: Tensor, transform: Any = lambda call: call) -> str:
    """The type and the text of the error."""
    try:
        transform(lambda x: sync_batch_norm(x, None, None, training=True))(x)
    except Exception as error:  # whatever it is, is what is wanted
        return f"{type(error).__name__}: {error}"
    return "nothing"


def transformed(rank: int) -> dict[str, Any]:
    """A backward's gradient and that of `torch.func`; the running statistics of each; what is refused."""
    x = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))
    running = [[torch.zeros(2), torch.ones(2)] for _ in range(2)]

    def cubed(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return sync_batch_norm(x, mean, variance, training=True).pow(3).sum()

    leaf = x.clone().requires_grad_()
    cubed(leaf, *running[0]).backward()
    return {
        "gradients": [leaf.grad, torch.func.grad(lambda x: cubed(x, *running[1]))(x)],
        "running": [torch.stack(each) for each in running],
        "refused": [
            raised(x, transform=lambda call: torch.vmap(call)),
            raised(x, transform=lambda call: lambda x: torch.func.jvp(call, (x,), (x,))),
        ],
    }


def main(rank: int, folder: Path) -> None:
    """Saves what this rank found."""
    # PyTorch's forward mode compiles some of its derivatives by TorchScript, and warns that one should not.
    warnings.simplefilter("ignore", DeprecationWarning)
    with process_group(rank, folder):
        found: dict[str, Any] = {}
        for what, calls in (
            ("cases", [Call(case) for case in BATCHES]),
            ("hard", [hard_call(name) for name in HARD]),
        ):
            found[what] = [
                {split: share_of(call, rank, shares) for split, shares in splits(call.x.shape[0]).items()}
                for call in calls
            ]
        found["second"] = {}
        for activation in (None, "silu"):
            x, dy, v, weight = second_case(activation)
            mine = [own(tensor, rank, SECOND_SHARES) for tensor in (x, dy, v)]
            found["second"][str(activation)] = second_derivatives(sync_batch_norm, *mine, weight, activation)
        found["collectives"] = counted(rank)
        found["threads"] = threaded(rank)
        found["transformed"] = transformed(rank)
        found["one value"] = raised(torch.ones(1 - rank, 3))
        found["all empty"] = [raised(torch.ones(0, 3)), raised(torch.ones(0, 0))]
        poisoned = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
        if rank:
            poisoned[0, 1, 2] = torch.nan
        found["poisoned"] = sync_batch_norm(poisoned, None, None, training=True)
        torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
