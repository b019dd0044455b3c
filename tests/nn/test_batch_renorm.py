"""Batch renorm as a module: its schedule, its state, and where it may stand."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from modules import OWN, fill, input_of
from tolerances import AGREEMENT
from torch.utils.checkpoint import checkpoint

from normwright import nn
from normwright.errors import OptionError
from normwright.functional import batch_renorm

RENORMS = [name for name in OWN if name.startswith("BatchRenorm")]


@pytest.mark.parametrize("name", RENORMS)
def test_its_checkpoint_is_batch_norm_s(name):
    ours = getattr(nn, name)(6)
    theirs = getattr(torch.nn, name.replace("Renorm", "Norm"))(6)
    ours.load_state_dict(fill(theirs, 1).state_dict(), strict=True)
    theirs.load_state_dict(fill(ours, 2).state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = input_of(name)
    y = ours.eval()(x).detach()
    assert float((y - theirs.eval()(x)).detach().abs().max()) <= AGREEMENT * float(y.abs().max())
    with pytest.raises(ValueError, match="expected"):
        ours(x[..., None])


@pytest.mark.parametrize(
    ("counted", "limits"), [(0, (1, 0)), (5, (1, 0)), (7, (2, 2)), (9, (3, 4)), (99, (3, 4))]
)
def test_the_clipping_is_relaxed_as_batches_are_counted(counted, limits):
    steps = {"r_max_steps": (5, 9), "d_max_steps": (5, 9)}
    module = fill(nn.BatchRenorm2d(6, r_max=3.0, d_max=4.0, **steps))
    module.num_batches_tracked.fill_(counted)
    twin, x = copy.deepcopy(module), 5 * input_of("BatchRenorm2d") + 3
    running = (twin.running_mean, twin.running_var, twin.weight, twin.bias)
    expected = batch_renorm(x, *running, True, r_max=limits[0], d_max=limits[1])
    assert torch.equal(module(x), expected)
    assert module.num_batches_tracked == counted + 1
    assert torch.equal(module.running_var, twin.running_var)


def test_from_the_start_without_steps():
    module = fill(nn.BatchRenorm2d(6, r_max_steps=(0, 0), d_max_steps=(0, 0)))
    twin, x = copy.deepcopy(module), input_of("BatchRenorm2d")
    running = (twin.running_mean, twin.running_var, twin.weight, twin.bias)
    assert torch.equal(module(x), batch_renorm(x, *running, True))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_and_repr(copied):
    module = fill(nn.BatchRenorm2d(6, r_max=2.0, activation="relu"))
    twin, x = copied(module), input_of("BatchRenorm2d")
    assert repr(twin) == repr(module)
    assert repr(module).endswith(
        "r_max=2.0, d_max=5.0, r_max_steps=(5000, 40000), d_max_steps=(5000, 25000), activation=relu)"
    )
    assert torch.equal(twin(x), module(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_compiles_whole():
    torch._dynamo.reset()
    steps = {"r_max_steps": (0, 3), "d_max_steps": (0, 3)}
    module = fill(nn.BatchRenorm2d(6, **steps))
    twin = copy.deepcopy(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for step in range(3):
        x = input_of("BatchRenorm2d", seed=step)
        y, expected = compiled(x), twin(x)
        difference, scale = (part.detach().abs().max() for part in (y - expected, expected))
        assert difference <= AGREEMENT * max(1.0, float(scale))
    for one, other in zip(module.buffers(), twin.buffers(), strict=True):
        assert float((one - other).abs().max()) <= AGREEMENT
    torch._dynamo.reset()


def test_autocast():
    module = fill(nn.BatchRenorm2d(6))
    with torch.autocast("cpu", torch.bfloat16):
        assert module(input_of("BatchRenorm2d", torch.bfloat16)).dtype == torch.bfloat16


def test_it_says_that_it_cannot_be_checkpointed():
    """Run again, its statistics would have moved, and with them r and d: another function, in silence."""
    module = fill(nn.BatchRenorm2d(6))
    y = checkpoint(module, input_of("BatchRenorm2d").requires_grad_(), use_reentrant=False)
    with pytest.raises(OptionError, match="cannot be run again in a backward"):
        y.sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r_max": 0.9}, "r_max must be at least 1"),
        ({"d_max": -1}, "d_max must be at least 0"),
        ({"r_max_steps": (9, 5)}, "a first and a last step"),
        ({"r_max_steps": 100}, "r_max_steps must be a first and a last step, .* but is 100"),
        ({"d_max_steps": (1, "a")}, "d_max_steps must be a first and a last step"),
        ({"r_max": "a"}, "r_max must be at least 1, but is 'a'"),
        ({"track_running_stats": False}, "track_running_stats must be True"),
        ({"activation": "rely"}, "did you mean 'relu'"),
    ],
)
def test_bad_constructors(options, message):
    with pytest.raises(OptionError, match=message):
        nn.BatchRenorm2d(6, **options)
