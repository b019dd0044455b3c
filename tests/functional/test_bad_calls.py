"""The same bad calls raise what they raise in PyTorch: the type, and a message that begins with PyTorch's."""

import inspect

import numpy as np
import pytest
import torch

from normwright import functional
from normwright.errors import DtypeError, NormwrightError

x = torch.ones(4, 3, 2)
rows = torch.ones(4, 6)
three, five, six = torch.ones(3), torch.ones(5), torch.ones(6)
long = torch.int64
half, brain, wide = torch.float16, torch.bfloat16, torch.float64

CALLS = [
    ("batch_norm", (x, None, None), {}),
    ("batch_norm", (x, three, None), {}),
    ("batch_norm", (x, None, three), {}),
    ("batch_norm", (x, three, None), {"training": True}),
    ("batch_norm", (x, None, three), {"training": True}),
    ("batch_norm", (x, five, five), {}),
    ("batch_norm", (x, five, five), {"training": True}),
    ("batch_norm", (x, three, five), {"training": True}),
    ("batch_norm", (x, three, three, five), {}),
    ("batch_norm", (x, three, three, three, five), {}),
    ("batch_norm", (x, None, None, five), {"training": True}),
    ("batch_norm", (three, None, None), {"training": True}),
    ("batch_norm", (torch.ones(1, 3), three, three), {"training": True}),
    ("batch_norm", (torch.ones(1, 3, 1, 1), None, None), {"training": True}),
    ("batch_norm", (x, three, three), {"training": True, "eps": 0.0}),
    ("batch_norm", (x, three, three), {"training": True, "eps": -1.0}),
    ("batch_norm", (x, three, three), {"eps": -1.0}),
    ("batch_norm", (x, three, three, three.half()), {}),
    ("batch_norm", (x, three, three, three.double()), {"training": True}),
    ("batch_norm", (x.double(), None, None, three), {"training": True}),
    ("batch_norm", (x.half(), None, None, three.double()), {"training": True}),
    ("batch_norm", (x.to(long), None, None), {"training": True}),
    ("instance_norm", (x, three, None), {}),
    ("instance_norm", (x, None, None), {"use_input_stats": False}),
    ("instance_norm", (x, None, three), {"use_input_stats": False}),
    ("instance_norm", (x, five, five), {}),
    ("instance_norm", (x, None, None, five), {}),
    ("instance_norm", (x, None, None, three, five), {}),
    ("instance_norm", (x[..., :1],), {}),
    ("instance_norm", (x, None, None, three.double()), {}),
    ("instance_norm", (x.to(long),), {}),
    ("group_norm", (x, 2), {}),
    ("group_norm", (x, -1), {}),
    ("group_norm", (three, 1), {}),
    ("group_norm", (x, 3, five), {}),
    ("group_norm", (x, 3, x[0]), {}),
    ("group_norm", (torch.ones(1, 6), 6), {}),
    ("group_norm", (x, 3, three.double()), {}),
    ("group_norm", (x.bfloat16(), 3, three.double()), {}),
    ("group_norm", (x.to(long), 3), {}),
    ("group_norm", (x, 3.0), {}),
    ("layer_norm", (rows, (5,)), {}),
    ("layer_norm", (rows, ()), {}),
    ("layer_norm", (rows, 6), {}),
    ("layer_norm", (rows, (6.0,)), {}),
    ("layer_norm", (rows, "a"), {}),
    ("layer_norm", (rows, (-6,)), {}),
    ("layer_norm", (rows, (6,), five), {}),
    ("layer_norm", (rows, (6,), six, five), {}),
    ("layer_norm", (six, (4, 6)), {}),
    ("layer_norm", (rows, (6,), six.double()), {}),
    ("layer_norm", (rows.double(), (6,), six), {}),
    ("layer_norm", (rows.bfloat16(), (6,), six.half()), {}),
    ("layer_norm", (rows.to(long), (6,)), {}),
    ("rms_norm", (rows, (5,)), {}),
    ("rms_norm", (rows, ()), {}),
    ("rms_norm", (rows, 6), {}),
    ("rms_norm", (rows, (6,), five), {}),
    ("rms_norm", (six, (4, 6)), {}),
    ("rms_norm", (rows.to(long), (6,)), {}),
    ("batch_norm", (x, None, None, [1.0]), {"training": True}),
    ("batch_norm", (x, None, None, None, [1.0]), {"training": True}),
    ("batch_norm", (x, [1.0], three), {}),
    ("batch_norm", (x, three, [1.0]), {"training": True}),
    ("instance_norm", (x, [1.0], three), {}),
    ("instance_norm", (x, None, None, [1.0]), {}),
    ("group_norm", (x, 3, [1.0]), {}),
    ("group_norm", (x, 3, three, 1.0), {}),
    ("layer_norm", (rows, (6,), [1.0]), {}),
    ("layer_norm", (rows, (6,), six, 1.0), {}),
    ("rms_norm", (rows, (6,), [1.0]), {}),
    ("local_response_norm", (rows, 3), {}),
    ("local_response_norm", (x, 0), {}),
    ("local_response_norm", (x[..., None], 0), {}),
]

WRONG_BIAS = ("group_norm", (x, 3, three, five), {})
PYTORCH_SHOWS_THE_BIAS = torch.__version__ >= (2, 14)  # before, the weight's shape as the bias's
if PYTORCH_SHOWS_THE_BIAS:
    CALLS.append(WRONG_BIAS)


def words(argument):
    if isinstance(argument, torch.Tensor):
        return f"{tuple(argument.shape)} {str(argument.dtype).removeprefix('torch.')}"
    return str(argument)


def described(call):
    name, arguments, options = call
    return f"{name}({', '.join([*map(words, arguments), *(f'{k}={v}' for k, v in options.items())])})"


@pytest.mark.parametrize("call", CALLS, ids=described)
def test_the_error_is_pytorchs(call):
    name, arguments, options = call
    with pytest.raises(Exception) as theirs:  # noqa: PT011 whatever PyTorch raises is what is wanted
        getattr(torch.nn.functional, name)(*arguments, **options)
    with pytest.raises(theirs.type) as ours:
        getattr(functional, name)(*arguments, **options)
    assert str(ours.value).startswith(str(theirs.value).split("\n")[0])
    assert ours.type is TypeError or isinstance(ours.value, NormwrightError)


# Where PyTorch's own error says the wrong thing, or names a step inside it, ours says what is wrong.
OTHERWISE = [
    (("group_norm", (x, 0), {}), "a division by zero inside PyTorch", "num groups to be greater than 0"),
    (("group_norm", (x.to(long), 3, three), {}), "blames the weight", "not implemented for 'Long'"),
    (("layer_norm", (rows.to(long), (6,), six), {}), "blames the weight", "not implemented for 'Long'"),
    (("batch_norm", (three, three, three), {}), "counts no channels", r"of shape \(N, C, \*space\)"),
    (
        ("local_response_norm", (x[..., None], -3), {}),
        "names the padding",
        "greater than zero, but got kT: -3",
    ),
]
if not PYTORCH_SHOWS_THE_BIAS:
    OTHERWISE.append((WRONG_BIAS, "shows the weight's shape", r"got bias of shape \[5\]"))


@pytest.mark.parametrize(("call", "reason", "message"), OTHERWISE, ids=str)
def test_where_pytorchs_message_misleads(call, reason, message):
    name, arguments, options = call
    with pytest.raises((RuntimeError, ZeroDivisionError)) as theirs:
        getattr(torch.nn.functional, name)(*arguments, **options)
    with pytest.raises(NormwrightError, match=message) as ours:
        getattr(functional, name)(*arguments, **options)
    assert not str(ours.value).startswith(str(theirs.value)), f"it does no longer: {reason}"


NO_TENSORS = {
    "residual": ("layer_norm", (rows, (6,)), {"residual": [1.0]}, "residual must be a tensor of the input's"),
    "out": ("rms_norm", (rows, (6,)), {"out": [1.0]}, "out must be a tensor like the input, but is list"),
    "counter": (
        "batch_norm",
        (x, None, None),
        {"training": True, "num_batches_tracked": 3},
        "num_batches_tracked must be an integer tensor",
    ),
    "tanh": ("dynamic_tanh", (rows, 0.5, [1.0]), {}, r"'weight' \(position 3\) must be Tensor, not list"),
    "responses": ("filter_response_norm", (x, None, [1.0]), {}, r"'bias' \(position 3\) must be Tensor"),
}


@pytest.mark.parametrize("case", NO_TENSORS)
def test_what_pytorch_has_not_must_be_a_tensor_too(case):
    name, arguments, options, message = NO_TENSORS[case]
    with pytest.raises(DtypeError, match=message):
        getattr(functional, name)(*arguments, **options)


ACCEPTED = [
    ("batch_norm", (x, three.double(), three.double()), {"training": True}),
    ("batch_norm", (x.half(), three.half(), three.half(), three, three), {}),
    ("batch_norm", (x.half(), three, three, three.half(), three.half()), {}),
    ("group_norm", (x.bfloat16(), 3, three, three.bfloat16()), {}),
    ("layer_norm", (rows.bfloat16(), (6,), six, six.bfloat16()), {}),
]


@pytest.mark.parametrize("call", ACCEPTED, ids=described)
def test_mixtures_that_pytorch_refuses_and_ours_computes(call):
    name, arguments, options = call
    with pytest.raises(RuntimeError, match=r"mixed dtype|expected scalar type"):
        getattr(torch.nn.functional, name)(*arguments, **options)
    assert getattr(functional, name)(*arguments, **options).dtype == arguments[0].dtype


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"])
@pytest.mark.parametrize(
    "value", [None, "x", [1.0], np.ones((4, 3, 2))], ids=lambda value: type(value).__name__
)
def test_what_is_no_tensor(name, value):
    settings = {"batch_norm": (three, three), "instance_norm": (), "group_norm": (3,)}.get(name, ((2,),))
    with pytest.raises(DtypeError, match=f"'input'.* must be Tensor, not {type(value).__name__}"):
        getattr(functional, name)(value, *settings)


EXTRAS = [
    ({"activation": "rellu"}, "unknown activation 'rellu': did you mean 'relu'"),
    (
        {"residual": torch.ones(4, 3)},
        r"residual must .* have the input's shape \[4, 3, 2\], but is .*\[4, 3\]",
    ),
    ({"residual": torch.ones(4, 3, 2, dtype=long)}, "residual must be floating point"),
]
WAYS = {
    "batch_norm": lambda x, **o: functional.batch_norm(x, None, None, training=True, **o),
    "instance_norm": functional.instance_norm,
    "group_norm": lambda x, **o: functional.group_norm(x, 3, **o),
    "layer_norm": lambda x, **o: functional.layer_norm(x, (3, 2), **o),
    "rms_norm": lambda x, **o: functional.rms_norm(x, (3, 2), **o),
    "local_response_norm": lambda x, **o: functional.local_response_norm(x, 2, **o),
}


@pytest.mark.parametrize(("extra", "message"), EXTRAS, ids=["activation", "shape", "dtype"])
@pytest.mark.parametrize("name", WAYS)
def test_a_wrong_residual_or_activation(name, extra, message):
    with pytest.raises(NormwrightError, match=message):
        WAYS[name](x, **extra)


def test_momentum_none_needs_a_count():
    with pytest.raises(NormwrightError, match=r"momentum=None .* needs num_batches_tracked, which is None"):
        functional.batch_norm(x, three.clone(), three.clone(), training=True, momentum=None)


# Of those that PyTorch has not, synchronised batch norm alone has a model there: its batch norm.
OF_PYTORCH = [*(name for name in functional.__all__ if hasattr(torch.nn.functional, name)), "sync_batch_norm"]


def test_the_drop_ins_are_known():
    assert len(OF_PYTORCH) == 7


@pytest.mark.parametrize("name", OF_PYTORCH)
def test_the_signature_is_pytorchs_with_keywords_added(name):
    synchronised = name == "sync_batch_norm"  # which PyTorch has as a module alone
    model = "batch_norm" if synchronised else name
    theirs = inspect.signature(getattr(torch.nn.functional, model)).parameters
    ours = inspect.signature(getattr(functional, name)).parameters
    shared = list(ours.values())[: len(theirs)]
    assert [(p.name, p.default, p.kind) for p in shared] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]
    added = list(ours.values())[len(theirs) :]
    without_out = {"local_response_norm": set(), "sync_batch_norm": {"process_group"}}
    kept = {"residual", "activation"} | without_out.get(name, {"out"})
    assert {p.name for p in added} - {"num_batches_tracked"} == kept
    assert all(p.kind is p.KEYWORD_ONLY and p.default is None for p in added)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_a_channel_vector_has_one_axis(name):
    function, settings = getattr(functional, name), {"batch_norm": {"training": True}}.get(name, {})
    for wrong in (three.view(1, 3), three.view(3, 1)):
        with pytest.raises(NormwrightError, match=r"should contain .* along one axis"):
            function(x, wrong.clone(), three.clone(), **settings)
        with pytest.raises(NormwrightError, match=r"weight should contain .* along one axis"):
            function(x, three.clone(), three.clone(), wrong, **settings)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_are_floating_point(name):
    settings = {"batch_norm": {"training": True}}.get(name, {})
    with pytest.raises(NormwrightError, match=r"running_mean must be floating point, but is torch\.int64"):
        getattr(functional, name)(x, three.to(long), three.clone(), **settings)


@pytest.mark.parametrize("place", ["weight", "residual"])
def test_tensors_on_different_devices(place):
    given = {"weight": torch.ones(6)} | {
        place: torch.ones((4, 6) if place == "residual" else 6, device="meta")
    }
    with pytest.raises(RuntimeError, match=r"same device.*cpu, meta.*\.to\(device\)"):
        functional.layer_norm(rows, (6,), **given)
