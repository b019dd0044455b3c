"""The fused LSTM layer: its hand-written backward against autograd's of the plain one, and by differences."""

from __future__ import annotations

import pytest
import torch
from tolerances import SAME_DERIVATIVE, recurrent, recurrent_gradient

from normwright.functional.lstm.batch_steps import BatchSteps
from normwright.functional.lstm.inputs import LstmInputs, LstmNorms
from normwright.functional.lstm.layer import lstm_layer
from normwright.functional.lstm.layer_steps import LayerSteps
from normwright.functional.lstm.plain import plain_layer
from normwright.functional.step_statistics import StepStatistics

EPS, INPUTS, UNITS = 0.5, 2, 3
SIZES = [(4, 4, 4), (4, 3, 2), (3, 2, 1)]
KINDS = ["batch", "inference", "layer"]


def norms_of(kind, statistics=None):
    if kind == "layer":
        return LstmNorms(*(LayerSteps(EPS) for _ in range(3)))
    given = statistics or statistics_of()
    training = kind == "batch"
    return LstmNorms(*(BatchSteps(one, training, EPS, moving=training) for one in given))


def statistics_of(slots=2):
    draw = torch.Generator().manual_seed(3)
    made = []
    for features in (4 * UNITS, 4 * UNITS, UNITS):
        mean, variance = torch.rand(2, slots, features, generator=draw, dtype=torch.float64)
        made.append(StepStatistics(mean, variance + 0.5, torch.ones(slots, dtype=torch.long), 0.1))
    return made


def inputs_of(sizes, dtype=torch.float64, without=(), features=INPUTS):
    draw = torch.Generator().manual_seed(0)
    shapes = {
        "x": (sum(sizes), features),
        "hidden": (sizes[0], UNITS),
        "cell": (sizes[0], UNITS),
        "weight_ih": (4 * UNITS, features),
        "weight_hh": (4 * UNITS, UNITS),
        "bias": (4 * UNITS,),
        "gain_ih": (4 * UNITS,),
        "gain_hh": (4 * UNITS,),
        "gain_c": (UNITS,),
        "bias_c": (UNITS,),
    }
    values = {
        name: (torch.rand(shape, generator=draw, dtype=torch.float64) - 0.5).to(dtype).requires_grad_()
        for name, shape in shapes.items()
    }
    return LstmInputs(**{name: None if name in without else value for name, value in values.items()})


@pytest.mark.parametrize("without", [(), ("bias",), ("gain_ih", "gain_hh", "gain_c", "bias_c")], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_layer_is_the_plain_one(kind, sizes, without):
    inputs = inputs_of(sizes, without=without)
    draw = torch.Generator().manual_seed(7)
    outcomes, moved = [], []
    for run in (lstm_layer, plain_layer):
        statistics = statistics_of()
        norms = norms_of(kind, statistics)
        results = run(inputs, sizes, norms)
        norms.close()
        draw.manual_seed(7)
        given = [torch.rand(y.shape, generator=draw, dtype=y.dtype) - 0.5 for y in results]
        leaves = [tensor for tensor in inputs if tensor is not None]
        outcomes.append((results, torch.autograd.grad(results, leaves, given)))
        moved.append([part for one in statistics for part in (one.mean, one.variance, one.count)])
    for one, other in zip(*(results for results, _ in outcomes), strict=True):
        assert float((one - other).detach().abs().max()) <= recurrent(torch.float64, len(sizes))
    for one, other in zip(*(gradients for _, gradients in outcomes), strict=True):
        assert float((one - other).abs().max()) <= recurrent_gradient(torch.float64, len(sizes))
    for one, other in zip(*moved, strict=True):
        assert float((one - other).detach().abs().max()) <= recurrent(torch.float64, len(sizes))
    assert (kind == "batch") == bool((moved[0][2] > 1).any())


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_it_is_the_same_to_the_bit(kind):
    inputs = inputs_of((4, 3, 2))
    with torch.no_grad():
        quiet = lstm_layer(inputs, (4, 3, 2), norms_of(kind))
    assert all(map(torch.equal, quiet, lstm_layer(inputs, (4, 3, 2), norms_of(kind))))


@pytest.mark.parametrize("sizes", [(3, 3), (3, 2, 1)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_theirs(kind, sizes):
    def run(*tensors):
        # With a step of its own for the last, which a lone sequence takes as it stands: a constant.
        return lstm_layer(LstmInputs(*tensors), sizes, norms_of(kind, statistics_of(3)))

    inputs = inputs_of(sizes)
    assert torch.autograd.gradcheck(run, tuple(inputs))
    assert torch.autograd.gradgradcheck(run, tuple(inputs), fast_mode=True)


def test_only_some_results_or_inputs_are_differentiated():
    """A classifier takes the last h alone, of data that wants no gradient."""
    sizes = (4, 3, 2)
    inputs = inputs_of(sizes)
    frozen = inputs._replace(x=inputs.x.detach(), weight_ih=inputs.weight_ih.detach())
    wanted = [tensor for tensor in frozen if tensor.requires_grad]
    for place in range(3):
        results = lstm_layer(frozen, sizes, norms_of("batch"))[place].square().sum()
        expected = plain_layer(frozen, sizes, norms_of("batch"))[place].square().sum()
        pairs = (torch.autograd.grad(loss, wanted, allow_unused=True) for loss in (results, expected))
        for one, other in zip(*pairs, strict=True):
            assert float((one - (0 if other is None else other)).abs().max()) <= recurrent_gradient(
                torch.float64, 3
            )


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("kind", ["layer", "inference"])
def test_transforms_and_forward_mode(kind):
    sizes = (3, 2)
    inputs = LstmInputs(*(tensor.detach() for tensor in inputs_of(sizes)))

    def loss(weight_hh):
        return lstm_layer(inputs._replace(weight_hh=weight_hh), sizes, norms_of(kind))[1].square().sum()

    leaf = inputs.weight_hh.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    bound = recurrent_gradient(torch.float64, 2)
    assert float((torch.func.grad(loss)(inputs.weight_hh) - expected).abs().max()) <= bound
    direction = torch.ones_like(leaf)
    _, slope = torch.func.jvp(loss, (inputs.weight_hh,), (direction,))
    assert float((slope - expected.sum()).abs()) <= expected.numel() * bound


def test_a_backward_after_the_statistics_moved_uses_those_of_its_forward():
    """Two passes of one layer before a backward, as with a shared encoder."""
    sizes, statistics = (3, 1), statistics_of()
    inputs = inputs_of(sizes)
    first = lstm_layer(inputs, sizes, norms_of("batch", statistics))[0]
    known = torch.autograd.grad(first.sum(), inputs.x, retain_graph=True)[0]
    for one in statistics:
        one.mean.add_(3)
    assert torch.equal(torch.autograd.grad(first.sum(), inputs.x)[0], known)


TIES = {
    "the weights of the two paths are one": lambda inputs: {"weight_ih": inputs.weight_hh},
    "their gains are one": lambda inputs: {"gain_ih": inputs.gain_hh},
    "the cell's gain is its bias": lambda inputs: {"gain_c": inputs.bias_c},
    "the cell is made of the hidden state": lambda inputs: {"cell": inputs.hidden.tanh()},
    "x is made of the weights": lambda inputs: {"x": inputs.x * inputs.weight_hh[0]},
    "a bias is made of x": lambda inputs: {"bias": inputs.x.mean() * inputs.bias},
}


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_depend_on_one_another(kind, tie):
    sizes = (4, 3, 2)
    leaves = inputs_of(sizes, features=UNITS)
    draw = torch.Generator().manual_seed(7)
    given = [
        torch.rand(shape, generator=draw, dtype=torch.float64) - 0.5
        for shape in ((sum(sizes), UNITS), *[(4, UNITS)] * 2)
    ]
    wanted = {"allow_unused": True, "materialize_grads": True}

    def first(run, *, again):
        tied = leaves._replace(**TIES[tie](leaves))
        results = run(tied, sizes, norms_of(kind, statistics_of(3)))
        return torch.autograd.grad(results, list(leaves), given, create_graph=again, **wanted)

    def second(gradients):
        return torch.autograd.grad(sum(g.square().sum() for g in gradients), list(leaves), **wanted)

    expected = first(plain_layer, again=True)
    differentiable = first(lstm_layer, again=True)
    bound = recurrent_gradient(torch.float64, len(sizes))
    for found in (first(lstm_layer, again=False), differentiable):
        for one, other in zip(found, expected, strict=True):
            assert float((one - other).detach().abs().max()) <= bound
    for one, other in zip(second(differentiable), second(expected), strict=True):
        scale = max(1.0, float(other.abs().max()))
        assert float((one - other).abs().max()) <= SAME_DERIVATIVE * scale


@pytest.mark.parametrize("again", [False, True])
def test_a_gradient_by_what_a_result_does_not_depend_on(again):
    """The cell of a lone step, which its normaliser comes after."""
    sizes = (4,)
    inputs = LstmInputs(*(tensor.detach() for tensor in inputs_of(sizes)))
    inputs.bias_c.requires_grad_()
    cell = lstm_layer(inputs, sizes, norms_of("layer"))[2]
    (gradient,) = torch.autograd.grad(cell.sum(), inputs.bias_c, create_graph=again)
    assert not gradient.any()


@pytest.mark.parametrize("kind", KINDS)
def test_several_gradients_at_once(kind):
    sizes = (3, 2)
    inputs = inputs_of(sizes)
    y = lstm_layer(inputs, sizes, norms_of(kind, statistics_of(3)))[0]
    several = torch.rand(4, *y.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    wanted = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    together = torch.autograd.grad(y, list(inputs), several, is_grads_batched=True, **wanted)
    apart = zip(*(torch.autograd.grad(y, list(inputs), dy, **wanted) for dy in several), strict=True)
    bound = recurrent_gradient(torch.float64, len(sizes))
    for one, other in zip(together, apart, strict=True):
        assert float((one - torch.stack(other)).detach().abs().max()) <= bound


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_asked_for_under_autocast_are_those_of_the_forward(kind, again):
    sizes = (3, 2)
    inputs = inputs_of(sizes, torch.float32)
    y = lstm_layer(inputs, sizes, norms_of(kind, statistics_of(3)))[0].sum()
    expected = torch.autograd.grad(y, inputs.weight_hh, retain_graph=True, create_graph=again)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(y, inputs.weight_hh, create_graph=again)
    assert torch.equal(found[0], expected[0])
