"""torch.func, and calls that autograd makes in odd ways."""

import pytest
import torch
from tolerances import SAME_DERIVATIVE

from normwright import nn
from normwright.errors import OptionError
from normwright.functional import (
    batch_norm,
    filter_response_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)

torch_functional = torch.nn.functional

# PyTorch runs an operator of anyone's own under vmap sample by sample, and says so once.
SLOW_VMAP = "ignore:There is a performance drop because we have not yet implemented the batching rule"

PAIRS = {
    "layer": (
        lambda x, w, b: layer_norm(x, (6,), w, b),
        lambda x, w, b: torch_functional.layer_norm(x, (6,), w, b),
    ),
    "rms": (lambda x, w, b: rms_norm(x, (6,), w), lambda x, w, b: torch_functional.rms_norm(x, (6,), w)),
    "group": (
        lambda x, w, b: group_norm(x, 2, w, b),
        lambda x, w, b: torch_functional.group_norm(x, 2, w, b),
    ),
    "instance": (
        lambda x, w, b: instance_norm(x[..., None] * torch.arange(4.0).double(), weight=w, bias=b),
        lambda x, w, b: torch_functional.instance_norm(
            x[..., None] * torch.arange(4.0).double(), weight=w, bias=b
        ),
    ),
    "batch": (
        lambda x, w, b: batch_norm(x, None, None, w, b, True),
        lambda x, w, b: torch_functional.batch_norm(x, None, None, w, b, True),
    ),
}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(ours, theirs):
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).abs().max()) <= SAME_DERIVATIVE * max(1.0, float(theirs.abs().max()))


def losses(kind):
    return [lambda x, w, b, f=function: f(x, w, b).pow(3).sum() for function in PAIRS[kind]]


@pytest.mark.parametrize("kind", PAIRS)
def test_grad_and_its_grad_are_pytorchs(kind):
    x, weight, bias = draw(3, 6), draw(6, seed=1), draw(6, seed=2)
    first = [torch.func.grad(loss, argnums=(0, 1, 2)) for loss in losses(kind)]
    for ours, theirs in zip(*(gradient(x, weight, bias) for gradient in first), strict=True):
        assert close(ours, theirs)
    second = [torch.func.jacrev(torch.func.grad(loss)) for loss in losses(kind)]
    # jacrev maps the second backward over rows with vmap
    assert close(*(hessian(x, weight, bias) for hessian in second))


@pytest.mark.filterwarnings(SLOW_VMAP)
@pytest.mark.parametrize("kind", ["layer", "rms", "group", "instance"])
def test_gradients_per_sample_are_pytorchs(kind):
    x, weight, bias = draw(5, 2, 6), draw(6, seed=1), draw(6, seed=2)
    per_sample = [
        torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(0, None, None))
        for loss in losses(kind)
    ]
    for ours, theirs in zip(*(gradient(x, weight, bias) for gradient in per_sample), strict=True):
        assert close(ours, theirs)


def test_vmap_of_batch_norm_is_pytorchs():
    x, weight = draw(5, 4, 6), draw(5, 6, seed=1)
    for transform in (
        torch.func.vmap,
        lambda f: torch.func.vmap(torch.func.grad(lambda *a: f(*a).sin().sum())),
    ):
        assert close(*(transform(lambda x, w, f=f: f(x, w, None))(x, weight) for f in PAIRS["batch"]))


def test_vmap_moves_running_statistics_that_it_maps_over():
    x, mean, variance, count = draw(5, 4, 6), torch.zeros(5, 6), torch.ones(5, 6), torch.zeros(5)

    def call(x, mean, variance, count):
        return batch_norm(x, mean, variance, training=True, num_batches_tracked=count)

    alone = [part.clone() for part in (mean, variance, count)]
    expected = torch.stack([call(*member) for member in zip(x, *alone, strict=True)])
    y = torch.func.vmap(call)(x, mean, variance, count)
    assert close(y, expected)
    for together, apart in zip((mean, variance, count), alone, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", PAIRS)
def test_a_gradient_that_is_expanded_or_undefined(kind):
    ours, theirs = PAIRS[kind]
    results = []
    for function in (ours, theirs):
        x, weight = draw(3, 6).requires_grad_(), draw(6, seed=1).requires_grad_()
        y = function(x, weight, None)
        y.sum().backward()  # an expanded gradient
        results.append((x.grad, weight.grad))
    assert all(close(*pair) for pair in zip(*results, strict=True))

    class Undefined(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, dy):
            return None

    x = draw(3, 6).requires_grad_()
    Undefined.apply(ours(x, draw(6, seed=1), None)).sum().backward()
    assert x.grad is None or not x.grad.any()


@pytest.mark.parametrize("kind", PAIRS)
def test_only_what_is_asked_for_gets_a_gradient(kind):
    ours, _ = PAIRS[kind]
    x, weight, bias = draw(3, 6), draw(6, seed=1).requires_grad_(), draw(6, seed=2)
    ours(x, weight, bias).square().sum().backward()
    assert weight.grad is not None
    assert x.grad is None
    assert bias.grad is None


def test_a_second_backward_through_the_same_graph_needs_retain_graph():
    x = draw(3, 6).requires_grad_()
    y = layer_norm(x, (6,)).square().sum()
    y.backward(retain_graph=True)
    first = x.grad.clone()
    y.backward()
    assert torch.equal(x.grad, 2 * first)


def test_what_autograd_keeps_is_checked_against_in_place_changes():
    x = draw(3, 6).requires_grad_()
    weight = draw(6, seed=1).requires_grad_()
    y = layer_norm(x, (6,), weight)
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("kind", PAIRS)
def test_a_tensor_that_escaped_a_transform(kind):
    """What `torch.func.grad` wrapped and leaked is as good as the tensor within."""
    ours, _ = PAIRS[kind]
    escaped = []
    x, weight, bias = draw(5, 6), draw(6, seed=1).requires_grad_(), draw(6, seed=2)
    torch.func.grad(lambda x: escaped.append(x) or x.sum())(x)
    y = ours(escaped[0], weight, bias)
    (gradient,) = torch.autograd.grad(y.square().sum(), [weight])
    (expected,) = torch.autograd.grad(ours(x, weight, bias).square().sum(), [weight])
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("kind", ["batch", "batch-eval", "group", "instance", "response", "layer", "rms"])
def test_several_gradients_at_once(kind, activation, memory_format):
    call = {
        "batch": lambda x, **o: batch_norm(x, None, None, training=True, **o),
        "batch-eval": lambda x, **o: batch_norm(x, torch.zeros(6), torch.ones(6), **o),
        "group": lambda x, **o: group_norm(x, 2, **o),
        "instance": lambda x, **o: instance_norm(x, **o),
        "response": lambda x, **o: filter_response_norm(x, **o),
        "layer": lambda x, **o: layer_norm(x, (6, 3, 5), **o),
        "rms": lambda x, **o: rms_norm(x, (6, 3, 5), **o),
    }[kind]
    x = draw(2, 6, 3, 5).contiguous(memory_format=memory_format).requires_grad_()
    residual = draw(2, 6, 3, 5, seed=1).requires_grad_()
    y = call(x, residual=residual, activation=activation)
    several = torch.stack([draw(2, 6, 3, 5, seed=seed) for seed in (2, 3, 4)])
    together = torch.autograd.grad(y, (x, residual), several, is_grads_batched=True, retain_graph=True)
    apart = zip(
        *(torch.autograd.grad(y, (x, residual), dy, retain_graph=True) for dy in several), strict=True
    )
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, torch.stack(other), rtol=1e-9, atol=1e-12)


MASK = torch.arange(5) < torch.tensor([[5], [3], [4], [1]])
DOMAINS = torch.tensor([0, 1, 0, 1])
MOVING = {
    "batch": lambda: nn.BatchNorm1d(6),
    "ghost": lambda: nn.GhostBatchNorm1d(6, ghost_size=2),
    "ghost-cumulative": lambda: nn.GhostBatchNorm1d(6, ghost_size=2, momentum=None),
    "masked": lambda: nn.MaskedBatchNorm1d(6),
    "split": lambda: nn.SplitBatchNorm1d(6, domains=2),
    "renorm": lambda: nn.BatchRenorm1d(6),
    "renorm-cumulative": lambda: nn.BatchRenorm1d(6, momentum=None),
    "whitening": lambda: nn.WhiteningNorm1d(6, group_size=2),
    "whitening-cumulative": lambda: nn.WhiteningNorm1d(6, group_size=2, momentum=None),
    "instance": lambda: nn.InstanceNorm1d(6, track_running_stats=True),
}


def trained(kind, module, x):
    options = {"masked": {"mask": MASK}, "split": {"domains": DOMAINS}}.get(kind, {})
    return module(x, **options).sin().sum()


@pytest.mark.parametrize("transform", ["grad", "vjp", "jacrev", "grad of grad", "functional_call"])
@pytest.mark.parametrize("kind", MOVING)
def test_running_statistics_move_as_without_the_transform(kind, transform):
    func = torch.func
    x, module, plain = draw(4, 6, 5), MOVING[kind]().double(), MOVING[kind]().double()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(trained(kind, plain, leaf), [leaf], create_graph=True)

    def loss(x):
        return trained(kind, module, x)

    if transform == "grad of grad":
        (expected,) = torch.autograd.grad(expected.sin().sum(), [leaf])
        gradient = func.grad(lambda x: func.grad(loss)(x).sin().sum())(x)
    elif transform == "vjp":
        (gradient,) = func.vjp(loss, x)[1](torch.ones(()).double())
    elif transform == "functional_call":
        state = {name: value.detach() for name, value in module.state_dict(keep_vars=True).items()}
        holder = torch.nn.Module()
        holder.norm, holder.forward = module, lambda x: trained(kind, holder.norm, x)
        state = {f"norm.{name}": value for name, value in state.items()}
        gradient = func.grad(lambda x: func.functional_call(holder, state, (x,)))(x)
    else:
        gradient = getattr(func, transform)(loss)(x)
    assert close(gradient.detach(), expected.detach())
    for (name, ours), theirs in zip(module.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, msg=name)
    assert module.running_mean.any()


@pytest.mark.filterwarnings(SLOW_VMAP)
@pytest.mark.parametrize("kind", MOVING)
def test_gradients_per_sample_cannot_move_running_statistics(kind):
    module = MOVING[kind]()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    per_sample = torch.func.vmap(torch.func.grad(lambda x: trained(kind, module, x)))
    with pytest.raises(OptionError, match=r"several batches cannot move at once: call eval\(\)"):
        per_sample(draw(3, 4, 6, 5).float())
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, before[name])


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
def test_instance_norm_moves_its_statistics_as_pytorchs_does(transform):
    x = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    modules = [kind(6, track_running_stats=True) for kind in (nn.InstanceNorm1d, torch.nn.InstanceNorm1d)]
    gradients = [transform(lambda x, module=module: module(x).sin().sum())(x) for module in modules]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(*(module.buffers() for module in modules), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    assert not torch.equal(modules[0].running_mean, torch.zeros(6))
