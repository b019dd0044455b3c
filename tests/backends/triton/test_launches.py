"""How many kernels a normaliser launches: at most 2 forward and 3 backward, whatever the shape."""

import pytest
import torch
from triton.runtime.errors import OutOfResources
from triton.runtime.interpreter import InterpretedFunction

from normwright import functional as F
from normwright.backends.triton import interprets
from normwright.backends.triton.launch import WATCHED, launch
from normwright.functional.lstm.batch_steps import BatchSteps
from normwright.functional.step_statistics import StepStatistics

pytestmark = pytest.mark.skipif(
    not interprets(), reason="the launches of a GPU: benchmarks/device/launches.py"
)

ROWS = ((48, 64), (8192, 4096), (64, 20000), (3, 1000003))
SEQUENCES = ((64, 256, 200), (3, 7, 50))
IMAGES = ((4, 64, 56, 56), (64, 320, 7, 7), (2, 320, 64, 64), (300, 64, 32, 32), (1, 32, 512, 512))


def _split(x, w, b, **options):
    domains = torch.arange(len(x)) % 2
    return F.split_batch_norm(x, domains, [(None, None, None)] * 2, w, b, True, **options)


def _masked(x, w, b, **options):
    lengths = torch.arange(x.shape[2]) < torch.arange(1, len(x) + 1)[:, None]
    return F.masked_batch_norm(x, lengths, None, None, w, b, True, **options)


KINDS = {
    "layer": (ROWS, lambda x, w, b, **o: F.layer_norm(x, x.shape[1:], w, b, **o)),
    "rms": (ROWS, lambda x, w, b, **o: F.rms_norm(x, x.shape[1:], w, **o)),
    "batch": (IMAGES, lambda x, w, b, **o: F.batch_norm(x, b.detach(), w.detach(), w, b, True, **o)),
    "inference": (IMAGES, lambda x, w, b, **o: F.batch_norm(x, b.detach(), w.detach(), w, b, **o)),
    "ghost": (IMAGES, lambda x, w, b, **o: F.ghost_batch_norm(x, None, None, w, b, True, ghost_size=1, **o)),
    "split": (IMAGES, _split),
    "masked": (SEQUENCES, _masked),
    "group": (IMAGES, lambda x, w, b, **o: F.group_norm(x, 32, w, b, **o)),
    "instance": (IMAGES, lambda x, w, b, **o: F.instance_norm(x, None, None, w, b, **o)),
}
CASES = [
    (kind, shape, layout)
    for kind, (shapes, _) in KINDS.items()
    for shape in shapes
    for layout in ("contiguous", "channels-last")
    if len(shape) == 4 or layout == "contiguous"
]


@pytest.fixture
def launches(monkeypatch):
    """What is launched, in place of running it."""
    monkeypatch.setattr(InterpretedFunction, "__getitem__", lambda kernel, grid: lambda *_, **__: None)
    monkeypatch.setattr(WATCHED, "launches", [])
    return WATCHED.launches


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "add and relu"])
@pytest.mark.parametrize(("kind", "shape", "layout"), CASES)
def test_at_most_two_forward_and_three_backward(kind, shape, layout, fused, launches):
    x = torch.empty(shape, dtype=torch.bfloat16)
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last)
    parameters = [torch.ones(shape[1], requires_grad=True) for _ in range(2)]
    options = {"residual": x, "activation": "relu"} if fused else {}
    y = KINDS[kind][1](x.requires_grad_(), *parameters, **options)
    forward = len(launches)
    leaves = [x, *parameters[: 1 if kind == "rms" else 2]]
    torch.autograd.grad(y, leaves, x.detach())
    assert 1 <= forward <= 2, [launch.kernel for launch in launches]
    assert 1 <= len(launches) - forward <= 3, [launch.kernel for launch in launches]


@pytest.mark.parametrize("axis", [1, -1])
def test_dynamic_tanh(axis, launches):
    leaves = [torch.ones(size, requires_grad=True) for size in ((4, 64, 7, 64), (), 64, 64)]
    y = F.dynamic_tanh(*leaves, axis=axis)
    assert len(launches) == 1
    torch.autograd.grad(y, leaves, torch.ones_like(y))
    assert len(launches) == 1 + 3


@pytest.mark.parametrize("sizes", [[128] * 100, [*range(40, 1, -1)], [*range(40, 1, -1), 1, 1, 1]], ids=len)
def test_the_steps_of_an_lstm_s_input_path_are_one_call(sizes, launches):
    """But for those of a lone sequence, which running statistics normalise."""
    alone = sizes.count(1)
    x, weight = torch.empty(sum(sizes), 400), torch.empty(400)
    known = [torch.empty(len(sizes), 400) for _ in range(2)]
    statistics = StepStatistics(*known, torch.ones(len(sizes), dtype=torch.long), 0.1)
    steps = BatchSteps(statistics, training=True, eps=1e-5, moving=True)
    steps.forward_all(sizes, x, weight, weight)
    assert len(launches) == 2 + alone
    steps.backward_all(sizes, x, x, weight, weight)
    assert len(launches) <= 2 + alone + 3 + 3 * alone


class Crowded:
    """A kernel on a GPU that has no room for two tiles."""

    arg_names = ("x", "STAGES", "BLOCK")

    def __init__(self, room):
        self.room = room

    def __getitem__(self, grid):
        return self

    def __call__(self, x, stages, block, num_warps):
        if stages * block > self.room:
            raise OutOfResources(stages * block, self.room, "shared memory")
        return stages


def test_where_tiles_in_flight_find_no_room_there_is_one(monkeypatch):
    """It is that launch which a recording then has."""
    monkeypatch.setattr(WATCHED, "launches", [])
    launch(Crowded(2048), (1,))("x", 2, 1024, num_warps=4)
    launch(Crowded(2048), (1,))("x", 3, 2048, num_warps=4)
    assert [made.arguments for made in WATCHED.launches] == [("x", 2, 1024), ("x", 1, 2048)]
    assert [made.compiled for made in WATCHED.launches] == [2, 1]
    with pytest.raises(OutOfResources, match="shared memory"):
        launch(Crowded(512), (1,))("x", 2, 1024, num_warps=4)
