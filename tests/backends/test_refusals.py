"""Every operator refuses an argument that is not what it must be, whoever calls it, and leaves all as it was.

A kernel goes by the sizes of x: with a weight that is too short it would read what lies behind.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from wrong_calls import OPERATORS, WRONG_SPANS, Wrong, names_of, right_call, written_by, wrong_calls

from normwright.backends import eager
from normwright.backends.schema import NAMES

BACKENDS = ("kernel", "plain PyTorch", "fake")
WRONG = [wrong for operator in NAMES for wrong in wrong_calls(operator)]


def make(backend, operator, call):
    """The call; "fake" makes it with tensors of the device "meta"."""
    values = list(call.values())
    if backend == "plain PyTorch":
        return eager.OPERATORS[operator](*values)
    if backend == "fake":
        values = [value.to("meta") if isinstance(value, Tensor) else value for value in values]
    return getattr(OPERATORS, operator).default(*values)


def assert_refused(backend, operator, call, words):
    before = {name: value.clone() for name, value in call.items() if isinstance(value, Tensor)}
    with pytest.raises(RuntimeError, match=words) as refusal:
        make(backend, operator, call)
    for name, value in before.items():
        assert torch.equal(call[name], value), name
    return str(refusal.value)


@pytest.mark.parametrize("operator", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_right_call_is_served(backend, operator):
    make(backend, operator, right_call(operator))


@pytest.mark.parametrize("operator", NAMES)
def test_each_of_its_tensors_is_wrong_in_some_call(operator):
    tensors = {name for name, value in right_call(operator).items() if isinstance(value, Tensor)}
    schema = getattr(OPERATORS, operator).default._schema
    assert tensors == {argument.name for argument in schema.arguments if "Tensor" in str(argument.type)}
    assert tensors <= {wrong.argument for wrong in wrong_calls(operator)}


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_argument_is_refused_in_the_same_words(wrong):
    kernel, plain, fake = (
        assert_refused(backend, wrong.operator, wrong.call, wrong.argument) for backend in BACKENDS
    )
    # Python and C++ have other names for dtypes, and activations are offered in Python.
    said = plain.split(", torch.")[0].split(", but is torch.")[0].split(": did")[0].split(" (offered")[0]
    assert said in kernel
    assert said in fake


OF_SPANS = [operator for operator in NAMES if "spans" in names_of(operator)]


@pytest.mark.parametrize("fault", WRONG_SPANS)
@pytest.mark.parametrize("operator", OF_SPANS)
@pytest.mark.parametrize("backend", ["kernel", "plain PyTorch"])
def test_spans_that_are_wrong_by_what_they_say(backend, operator, fault):
    wrong = Wrong(operator, "spans", fault, torch.tensor(WRONG_SPANS[fault]))
    assert_refused(backend, operator, wrong.call, "span")


WRITTEN = [(operator, name) for operator in NAMES for name in written_by(operator)]
NO_STATISTICS = [
    pair for pair in WRITTEN if pair[1] not in ("running_mean", "running_var", "num_batches_tracked")
]


@pytest.mark.parametrize(("operator", "name"), NO_STATISTICS)
@pytest.mark.parametrize("backend", ["kernel", "plain PyTorch"])
def test_what_is_written_has_memory_for_each_element(backend, operator, name):
    right = right_call(operator)[name]
    windows = torch.rand(right.numel()).as_strided(right.shape, [2] * (right.dim() - 1) + [1])
    for shared in (right[:1].clone().expand_as(right), windows):
        call = right_call(operator) | {name: shared}
        assert_refused(backend, operator, call, f"{name} must have memory for each element")
    strided = torch.stack([right, right], -1)[..., 0].transpose(0, 1).contiguous().transpose(0, 1)
    make(backend, operator, right_call(operator) | {name: strided})


@pytest.mark.parametrize("operator", NAMES)
@pytest.mark.parametrize("backend", ["kernel", "plain PyTorch"])
def test_a_sparse_tensor(backend, operator):
    for name, value in right_call(operator).items():
        if isinstance(value, Tensor) and value.dim() and name != "spans":
            call = right_call(operator) | {name: value.to_sparse()}
            with pytest.raises(RuntimeError, match=rf"{name} must be dense.*use its to_dense\(\)"):
                make(backend, operator, call)


PARAMETERS = ("weight", "bias", "mean", "variance")
INTO_OUT = [operator for operator in NAMES if operator.endswith("_out")]


@pytest.mark.parametrize("operator", INTO_OUT)
@pytest.mark.parametrize("backend", ["kernel", "plain PyTorch"])
@pytest.mark.parametrize("offset", [0, 3])
def test_out_may_lie_where_a_parameter_does(backend, operator, offset):
    expected = right_call(operator)
    make(backend, operator, expected)
    for name in PARAMETERS:
        call = right_call(operator)
        if name in call:
            memory = call["out"].flatten()[offset:]
            call[name] = memory[: call[name].numel()].view_as(call[name]).copy_(call[name])
            make(backend, operator, call)
            assert torch.equal(call["out"], expected["out"]), name


MOVING = [operator for operator in NAMES if "momentum" in names_of(operator)]


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize("operator", MOVING)
@pytest.mark.parametrize("backend", ["kernel", "plain PyTorch"])
def test_statistics_that_share_memory_between_channels(backend, operator, name):
    call = right_call(operator) | {name: torch.ones(1).expand(4)}
    assert_refused(backend, operator, call, f"{name} must have memory for each channel")


@pytest.mark.parametrize("operator", MOVING)
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_momentum_and_nothing_that_gives_one(backend, operator):
    call = right_call(operator) | {"momentum": None, "num_batches_tracked": None}
    assert_refused(backend, operator, call, "momentum must be a number where num_batches_tracked is None")
    make(backend, operator, call | {"running_mean": None})  # where nothing is moved, none is asked for


@pytest.mark.parametrize("operator", NAMES)
@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_a_tensor_on_another_device(backend, operator):
    right = right_call(operator)
    for name, value in right.items():
        if isinstance(value, Tensor) and len(names_of(operator)) > 1:
            call = right | {name: value.to("meta")}
            with pytest.raises(RuntimeError, match=r"same device|spans must be on the CPU"):
                make(backend, operator, call)


@pytest.mark.parametrize("family", ["rows", "groups", "channels"])
def test_a_mask_may_lie_in_memory_in_any_way(family):
    """The kernels take its bytes one after the other."""
    call = right_call(f"{family}_backward") | {"residual": None}
    forward = right_call(f"{family}_forward_masked")
    *_, mask = make("kernel", f"{family}_forward_masked", forward)
    apart = torch.stack([mask, ~mask], 2)[..., 0]
    gradients = [make("kernel", f"{family}_backward", call | {"mask": given}) for given in (mask, apart)]
    for one, other in zip(*gradients, strict=True):
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_channels_there_are_no_groups(backend):
    call = right_call("groups_inference")
    call |= {"x": torch.empty(2, 0, 3, 5), "residual": None, "weight": None, "bias": None, "groups": 0}
    assert make(backend, "groups_inference", call).shape == (2, 0, 3, 5)
    call["x"] = torch.empty(2, 1, 0)
    assert_refused(backend, "groups_inference", call, "groups must divide the channels of x, 1, but is 0")
