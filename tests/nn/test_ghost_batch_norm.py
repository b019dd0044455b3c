"""Ghost batch norm as a module: its state, and where it may stand."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from modules import OWN, fill, input_of
from tolerances import AGREEMENT
from torch.utils.checkpoint import checkpoint

from normwright import nn
from normwright.errors import OptionError, ShapeError
from normwright.functional import ghost_batch_norm

COMPILED = ["GhostBatchNorm2d", "SplitBatchNorm2d", "FilterResponseNorm", "DynamicTanh"]
GHOSTS = [name for name in OWN if name.startswith("Ghost")]


@pytest.mark.parametrize("name", GHOSTS)
def test_its_checkpoint_and_inference_are_batch_norm_s(name):
    ours = getattr(nn, name)(6, ghost_size=2)
    theirs = getattr(torch.nn, name.removeprefix("Ghost"))(6)
    ours.load_state_dict(fill(theirs, 1).state_dict(), strict=True)
    theirs.load_state_dict(fill(ours, 2).state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = input_of(name)
    y = ours.eval()(x).detach()
    assert float((y - theirs.eval()(x)).detach().abs().max()) <= AGREEMENT * float(y.abs().max())
    with pytest.raises(ValueError, match="expected"):
        ours(x[..., None])


def test_its_forward_is_the_function():
    module = fill(nn.GhostBatchNorm2d(6, ghost_size=2, activation="relu", momentum=None))
    twin, x = copy.deepcopy(module), input_of("GhostBatchNorm2d")
    running = (twin.running_mean, twin.running_var, twin.weight, twin.bias)
    options = {"ghost_size": 2, "activation": "relu", "num_batches_tracked": twin.num_batches_tracked}
    expected = ghost_batch_norm(x, *running, True, None, residual=x, **options)
    assert torch.equal(module(x, x), expected)
    assert module.num_batches_tracked == twin.num_batches_tracked == 5
    assert torch.equal(module.running_var, twin.running_var)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_and_repr(copied):
    module = fill(nn.GhostBatchNorm2d(6, ghost_size=2, ragged=True, activation="relu"))
    twin, x = copied(module), input_of("GhostBatchNorm2d")
    assert repr(twin) == repr(module)
    assert repr(module).endswith("ghost_size=2, ragged=True, activation=relu)")
    assert torch.equal(twin(x), module(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", COMPILED)
def test_the_family_compiles_whole(name):
    torch._dynamo.reset()
    arguments = OWN[name][0]
    module = fill(getattr(nn, name)(*arguments, **({"ghost_size": 2} if name in GHOSTS else {})))
    twin = copy.deepcopy(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = input_of(name)
    results = [call(x) for call in (compiled, twin)]
    for y in results:
        y.square().sum().backward()
    gradients = [[parameter.grad for parameter in each.parameters()] for each in (module, twin)]
    for ours, theirs in [results, *zip(*gradients, strict=True)]:
        scale = max(1.0, float(theirs.detach().abs().max()))
        assert float((ours - theirs).detach().abs().max()) <= AGREEMENT * scale
    for one, other in zip(module.buffers(), twin.buffers(), strict=True):
        assert float((one - other).abs().max()) <= AGREEMENT
    torch._dynamo.reset()


def test_it_exports():
    module = fill(nn.GhostBatchNorm2d(6, ghost_size=2)).eval()
    x = input_of("GhostBatchNorm2d")
    assert torch.equal(torch.export.export(module, (x,)).module()(x), module(x))


def test_autocast():
    module = fill(nn.GhostBatchNorm2d(6, ghost_size=2))
    with torch.autocast("cpu", torch.bfloat16):
        assert module(input_of("GhostBatchNorm2d", torch.bfloat16)).dtype == torch.bfloat16


def test_checkpointing_moves_its_statistics_once():
    module = fill(nn.GhostBatchNorm2d(6, ghost_size=2))
    twin, x = copy.deepcopy(module), input_of("GhostBatchNorm2d")
    checkpoint(module, x.requires_grad_(), use_reentrant=False).sum().backward()
    twin(x)
    assert torch.equal(module.running_mean, twin.running_mean)
    assert module.num_batches_tracked == twin.num_batches_tracked


def test_without_running_statistics_it_never_uses_any():
    module = nn.GhostBatchNorm2d(6, ghost_size=2, track_running_stats=False)
    x = input_of("GhostBatchNorm2d")
    assert torch.equal(module(x), module.eval()(x))


def test_a_batch_that_is_not_whole_virtual_batches():
    module = nn.GhostBatchNorm2d(6, ghost_size=3)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ShapeError, match="ghost_size must divide the batch in training, but 4 samples"):
        module(input_of("GhostBatchNorm2d"))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert module.eval()(input_of("GhostBatchNorm2d")).shape == (4, 6, 3, 5)
    module = nn.GhostBatchNorm2d(6, ghost_size=3, ragged=True)
    assert module(input_of("GhostBatchNorm2d")).shape == (4, 6, 3, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ghost_size": 0}, "ghost_size must be at least 1"),
        ({"ghost_size": "2"}, "ghost_size must be at least 1 and a whole number, but is '2'"),
        ({"ghost_size": 2, "activation": "rely"}, "did you mean 'relu'"),
    ],
)
def test_bad_constructors(options, message):
    with pytest.raises(OptionError, match=message):
        nn.GhostBatchNorm2d(6, **options)
