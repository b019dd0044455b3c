"""torch.compile(fullgraph=True) and torch.export: no graph break, and the same answers."""

import pytest
import torch
from functorch.compile import make_boxed_func
from modules import NORMALISERS, fill, input_of
from tolerances import AGREEMENT
from torch._dynamo.backends.common import aot_autograd

from normwright import functional as F
from normwright import nn

# PyTorch's tracer instantiates autograd functions, and warns that one should not.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def trained(module, call, x, steps=2):
    """Outputs, gradients and running statistics of a few steps."""
    results = []
    for step in range(steps):
        leaf = (x + step).requires_grad_()
        y = call(leaf)
        results += [y.detach(), *torch.autograd.grad(y.square().sum(), [leaf, *module.parameters()])]
    return [*results, *(buffer.clone() for buffer in module.buffers())]


def assert_agree(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.stride() == other.stride()
        difference, scale = (float(tensor.detach().abs().max()) for tensor in (one - other, other))
        assert difference <= AGREEMENT * max(scale, 1.0)


@pytest.fixture(autouse=True)
def fresh():
    """No compiled code of another test."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


COMPILED = [
    *((name, {"activation": "silu"}) for name in NORMALISERS),
    ("BatchNorm2d", {"momentum": None}),
    ("BatchNorm2d", {"track_running_stats": False}),
    ("SyncBatchNorm", {"momentum": None}),
    ("InstanceNorm2d", {"affine": True, "track_running_stats": True}),
]


@pytest.mark.parametrize(("name", "options"), COMPILED, ids=str)
def test_each_module_compiles_whole(name, options):
    """Traced, forward and backward; `aot_eager` leaves out the code generation, which is not ours."""
    modules = [fill(getattr(nn, name)(*NORMALISERS[name][0], **options)) for _ in range(2)]
    compiled = torch.compile(modules[0], fullgraph=True, backend="aot_eager")
    x = input_of(name)
    with torch.no_grad():
        compiled.eval()(x), modules[1].eval()
    for module in modules:
        module.train()
    assert_agree(trained(modules[0], compiled, x), trained(modules[1], modules[1], x))


@pytest.mark.parametrize("name", ["BatchNorm2d", "BatchRenorm2d", "WhiteningNorm2d"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_module_whose_numbers_are_symbols_compiles_whole(name):
    """From the second momentum on it is a symbol to Dynamo, as any number is where all is dynamic."""
    options = {"group_size": 4} if name == "WhiteningNorm2d" else {}
    modules = [fill(getattr(nn, name)(8, **options)) for _ in range(2)]
    compiled = torch.compile(modules[0], fullgraph=True, backend="eager", dynamic=True)
    x = torch.randn(4, 8, 5, 7, generator=torch.Generator().manual_seed(0))
    for momentum in (0.1, 0.05, 0.2):
        for module in modules:
            module.momentum = momentum
        with torch.no_grad():
            y, expected = compiled(x), modules[1](x)
        assert_agree([y, *modules[0].buffers()], [expected, *modules[1].buffers()])


class Network(torch.nn.Module):
    """Every family once, among operators that PyTorch fuses, in channels-last."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3)
        self.batch = nn.BatchNorm2d(8, momentum=None, activation="relu")
        self.group = nn.GroupNorm(2, 8)
        self.instance = nn.InstanceNorm2d(8, affine=True, activation="gelu")
        self.layer = nn.LayerNorm(8)
        self.rms = nn.RMSNorm(8, activation="tanh")

    def forward(self, x):
        x = self.convolution(x)
        x = self.batch(x, residual=x * 0.5)
        x = self.instance(self.group(x) * 2, residual=x)
        return self.rms(self.layer(x.mean((2, 3))))


def network():
    return fill(Network().to(memory_format=torch.channels_last))


IMAGES = torch.randn(4, 3, 7, 9, generator=torch.Generator().manual_seed(0))
IMAGES = IMAGES.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dynamic", [None, True])
def test_a_network_compiles_with_inductor(dynamic):
    plain, module = network(), network()
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic)
    assert_agree(trained(module, compiled, IMAGES), trained(plain, plain, IMAGES))


@pytest.mark.parametrize("training", [False, True])
def test_a_network_is_exported(training):
    plain, module = network().train(training), network().train(training)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(module, (IMAGES,), dynamic_shapes=({0: batch},))
    operators = {node.target for node in program.graph.nodes if node.op == "call_function"}
    names = {str(operator) for operator in operators if "normwright" in str(operator)}
    channels = "channels_forward" if training else "channel_affine"
    assert {name.split(".")[1] for name in names} == {channels, "groups_forward", "rows_forward"}
    for images in (IMAGES, IMAGES[:3]):
        assert_agree([program.module()(images)], [plain(images)])


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_a_graph_keeps_no_mask(kind):
    """Inductor lays x out anew, and takes graphs that differ in the order of a mask alone for one."""
    called = set()

    def collect(graph, inputs):
        called.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph.forward)

    calls = {
        "batch": lambda x, r: F.batch_norm(x, None, None, training=True, residual=r, activation="relu"),
        "layer": lambda x, r: F.layer_norm(x, x.shape[1:], residual=r, activation="relu"),
        "group": lambda x, r: F.group_norm(x, 3, residual=r, activation="relu"),
    }
    x, residual = IMAGES.clone().requires_grad_(), IMAGES.flip(0)
    compiled = torch.compile(calls[kind], fullgraph=True, backend=aot_autograd(fw_compiler=collect))
    (gradient,) = torch.autograd.grad(compiled(x, residual).square().sum(), [x])
    (expected,) = torch.autograd.grad(calls[kind](x, residual).square().sum(), [x])
    torch.testing.assert_close(gradient, expected)
    ours = {name for name in called if name.startswith("normwright")}
    assert any("backward" in name for name in ours)
    assert not any("masked" in name for name in ours)
