"""Which GPUs are served, and what is said of the others, without one: what PyTorch would say of it is set."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from normwright.backends import triton as kernels
from normwright.backends.triton import devices, operators


class Unlaunchable:
    """Triton's driver on a machine without a C compiler."""

    @property
    def active(self):
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of NVIDIA's or AMD's that Triton launches on."""
    launches = SimpleNamespace(active=SimpleNamespace(get_current_device=lambda: 0))

    def install(capability, architecture=None, driver=launches):
        monkeypatch.setattr(torch.version, "hip", None if architecture is None else "7.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        properties = SimpleNamespace(gcnArchName=architecture)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(devices, "driver", driver)
        monkeypatch.setattr(kernels, "interprets", lambda: False)
        devices.refusal_of.cache_clear()

    yield install
    devices.refusal_of.cache_clear()


@pytest.fixture
def x():
    """On a GPU, made before PyTorch is told that there is one, which 2.11 would start."""
    with FakeTensorMode():
        return torch.empty(2, 4, device="cuda")


@pytest.mark.parametrize(
    "device",
    [((7, 5),), ((12, 0),), ((9, 0), "gfx90a:sramecc+:xnack-"), ((9, 4), "gfx942"), ((11, 0), "gfx1100")],
)
def test_a_gpu_that_is_served(device, x, gpu):
    gpu(*device)
    assert operators.refusal(x) is None
    status = kernels.status(kernels.Triton(True, ""))
    assert status.loaded
    assert status.reason.startswith("Triton 3.")


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (((6, 1),), "Triton compiles for compute capability 7.0 and later, and a card is older"),
        (((9, 0), "gfx906:sramecc+:xnack-"), "RDNA (gfx10 and later), and a card is gfx906"),
        (((9, 0), "gfx90c"), "RDNA (gfx10 and later), and a card is gfx90c"),
        (((8, 0), None, Unlaunchable()), "a C compiler and Python's headers"),
        (((8, 0), None, Unlaunchable()), "Failed to find C compiler"),
    ],
)
def test_a_gpu_that_is_not(device, reason, x, gpu):
    """Both the call and `backends()` say why."""
    gpu(*device)
    assert reason in operators.refusal(x)
    status = kernels.status(kernels.Triton(True, ""))
    assert not status.loaded
    assert reason in status.reason
