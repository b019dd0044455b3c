"""The same bits: with every number of threads, in every run, and in every company."""

import pytest
import torch

from normwright.functional import (
    batch_norm,
    filter_response_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)
from normwright.reference import ACTIVATIONS

# Large enough for PyTorch to split the work: it does from 32768 elements on.
SHAPES = {
    "image": (8, 32, 64, 64),
    "one channel": (8, 1, 128, 128),
    "one sample": (1, 8, 128, 128),
    "odd image": (5, 37, 33, 31),
    "rows": (64, 4096),
    "odd rows": (67, 4099),
    "long rows": (2, 131072),
}

NORMALISERS = {
    "batch": lambda x, w, b, **o: batch_norm(x, None, None, w, b, training=True, **o),
    "group": lambda x, w, b, **o: group_norm(x, 1 + (x.shape[1] % 2 == 0), w, b, **o),
    "instance": lambda x, w, b, **o: instance_norm(x, None, None, w, b, **o),
    "response": lambda x, w, b, **o: filter_response_norm(x, w, b, **o),
    "response with its unit": lambda x, w, b, **o: filter_response_norm(x, w, b, b.flip(0), **o),
    "layer": lambda x, w, b, **o: layer_norm(x, x.shape[1:], w, b, **o),
    "rms": lambda x, w, b, **o: rms_norm(x, x.shape[1:], w, **o),
}


@pytest.fixture
def threads():
    """Sets the number of threads, and sets it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def results(kind, x, dy, activation=None):
    """y, dx, dweight and dbias."""
    parameters = x.shape[1:] if kind in ("layer", "rms") else x.shape[1:2]
    draw = torch.Generator().manual_seed(8)
    weight, bias = (torch.randn(parameters, generator=draw).to(x.dtype).requires_grad_() for _ in range(2))
    x = x.detach().requires_grad_()
    y = NORMALISERS[kind](x, weight, bias, activation=activation)
    leaves = [x, weight] if kind == "rms" else [x, weight, bias]
    return [y, *torch.autograd.grad(y, leaves, dy)]


CASES = [
    (kind, shape, layout)
    for kind in NORMALISERS
    for shape, sizes in SHAPES.items()
    for layout in ("contiguous", "channels-last")
    if len(sizes) == 4 or (layout == "contiguous" and kind in ("batch", "group", "layer", "rms"))
]


@pytest.mark.parametrize(("kind", "shape", "layout"), CASES)
def test_with_every_number_of_threads(kind, shape, layout, threads):
    sizes = SHAPES[shape]
    draw = torch.Generator().manual_seed(7)
    x, dy = torch.randn(sizes, generator=draw), torch.randn(sizes, generator=draw)
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last)
    threads(1)
    alone = results(kind, x, dy)
    for number in (1, 2, 4):
        threads(number)
        for what, one, other in zip(
            ("y", "dx", "dweight", "dbias"), alone, results(kind, x, dy), strict=False
        ):
            assert torch.equal(one, other), f"{what} differs with {number} threads"


def test_no_thread_stores_what_is_anothers(threads):
    """Groups of 1617 elements, no whole number of packs, and a thread for each group."""
    draw = torch.Generator().manual_seed(7)
    x, dy = (torch.randn(200, 264, 7, 7, generator=draw) for _ in range(2))
    weight, bias = (torch.randn(264, generator=draw).requires_grad_() for _ in range(2))
    y = group_norm(x, 8, weight, bias)

    def gradients(number):
        threads(number)
        return torch.autograd.grad(y, (weight, bias), dy, retain_graph=True)

    alone = gradients(1)
    for _ in range(30):
        assert all(map(torch.equal, alone, gradients(8)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["batch", "rms"])
def test_with_every_number_of_threads_in_every_activation(kind, activation, threads):
    draw = torch.Generator().manual_seed(7)
    x, dy = torch.randn(SHAPES["odd image"], generator=draw), torch.randn(SHAPES["odd image"], generator=draw)
    threads(1)
    alone = results(kind, x, dy, activation)
    for number in (2, 3):
        threads(number)
        assert all(map(torch.equal, alone, results(kind, x, dy, activation)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("kind", ["group", "instance", "response", "layer", "rms"])
def test_in_every_company(kind, layout, dtype, activation):
    x = torch.randn(5, 6, 7, 9, generator=torch.Generator().manual_seed(7)).to(dtype)
    dy = torch.randn(5, 6, 7, 9, generator=torch.Generator().manual_seed(8)).to(dtype)
    if layout == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last)
    together = results(kind, x, dy, activation)[:2]
    for first, last in ((0, 1), (2, 4), (3, 5)):
        apart = results(kind, x[first:last], dy[first:last], activation)[:2]
        for what, one, other in zip(("y", "dx"), together, apart, strict=True):
            assert torch.equal(one[first:last], other), f"{what} of samples {first} to {last} differs"
