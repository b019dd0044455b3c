"""PyTorch's own check of every operator: schema, mutation, fakes, tracing with dynamic shapes."""

import pytest
import torch
from tolerances import KERNELS_ARE_TRITONS
from torch.library import opcheck

import normwright.backends
from normwright.backends.gradients import DALPHA, DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.schema import SCHEMAS

OPERATORS = torch.ops.normwright


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


IMAGES = {
    "contiguous": draw(2, 4, 3, 5),
    "channels-last": draw(2, 4, 3, 5).contiguous(memory_format=torch.channels_last),
    "sliced": draw(2, 4, 3, 11)[..., 1::2],
    "transposed": draw(2, 5, 3, 4).transpose(1, 3),
    "half": draw(2, 4, 3, 5, dtype=torch.bfloat16),
    "empty": draw(0, 4, 3, 5),
}

# residual, weight and bias given or not, the activation, and the gradients asked for
OPTIONS = {
    "all": (True, True, True, "silu", 15),
    "none": (False, False, False, None, 15),
    "weight": (False, True, False, "relu", DX | DWEIGHT),
    "bias": (False, False, True, "gelu", DRESIDUAL | DBIAS),
    "residual": (True, False, False, "tanh", DX | DRESIDUAL),
    "mask": (True, True, True, "relu", 15),
}


def spans_of(x):
    """Two parts in turn, and a position in none."""
    positions = x.numel() // x.shape[1]
    first = torch.arange(0, max(positions - 1, 0), 7)
    length = (positions - 1 - first).clamp_max(7)
    return torch.stack([first // 7 % 2, first, length], 1)


def forward_call(family, x, options):
    """The arguments of a family's forward operator."""
    residual, weight, bias, activation, _ = OPTIONS[options]
    shape = x.shape[1:] if family == "rows" else x.shape[1:2]
    parameter = draw(*shape)
    call = (
        x,
        x.clone() if residual else None,
        parameter if weight else None,
        parameter - 1 if bias else None,
    )
    settings = {
        "rows": (len(shape), options != "weight", 1e-5),
        "groups": (2, options != "weight", 1e-5),
        "channels": (draw(4), draw(4).square(), torch.tensor(3), None if options == "all" else 0.1, 1e-5),
        "affine": (draw(4), draw(4).square(), 1e-5),
        "parts": (spans_of(x), 2, 1e-5),
    }[family]
    if family == "channels" and options == "none":
        settings = (None, None, None, 0.1, 1e-5)
    return *call, *settings, activation


def forward_operator(family, options):
    """A family's forward operator, which keeps a mask where the options say so."""
    masked = "_masked" if options == "mask" and family in MASKED else ""
    return getattr(OPERATORS, FORWARD[family] + masked).default


def backward_call(family, x, options):
    """The arguments of a family's backward operator, with the moments that its forward returned."""
    wanted = OPTIONS[options][-1]
    call = forward_call(family, x, options)
    if family == "affine":
        return x.sin(), *call, wanted
    _, moments, *mask = forward_operator(family, options)(*call)
    if family == "parts":
        return x.sin(), *call[:4], moments, *call[4:6], call[-1], wanted
    between = {"rows": call[4:6], "groups": call[4:6], "channels": ()}[family]
    inputs = (x, None, *call[2:4], *mask) if mask else (*call[:4], None)
    return x.sin(), *inputs, moments, *between, call[-1], wanted


FORWARD = {family: f"{family}_forward" for family in ("rows", "groups", "channels", "parts")} | {
    "affine": "channel_affine"
}
MASKED = {family: f"{FORWARD[family]}_masked" for family in ("rows", "groups", "channels")}
BACKWARD = {family: f"{family}_backward" for family in FORWARD} | {"affine": "channel_affine_backward"}
INFERENCE = {family: f"{family}_inference" for family in ("rows", "groups")}
OUT = {family: f"{name}_out" for family, name in (INFERENCE | {"affine": "channel_affine"}).items()}
CASES = [
    *(("contiguous", options) for options in OPTIONS),
    *((layout, "all") for layout in IMAGES if layout != "contiguous"),
]


def test_every_operator_is_checked_here():
    defined = {schema[: schema.index("(")] for schema in SCHEMAS}
    checked = {*FORWARD.values(), *MASKED.values(), *BACKWARD.values(), *INFERENCE.values(), *OUT.values()}
    alone = {"channel_moments", "channel_tanh", "channel_tanh_backward", "lstm_cell", "lstm_cell_backward"}
    assert defined == checked | alone


# The moments of an empty batch are NaN, which opcheck finds different from themselves.
FORWARD_CASES = [
    (family, *case)
    for family in FORWARD
    for case in CASES
    if family not in ("channels", "parts") or case != ("empty", "all")
]


@pytest.mark.parametrize(("family", "layout", "options"), FORWARD_CASES)
def test_forward(family, layout, options):
    opcheck(forward_operator(family, options), forward_call(family, IMAGES[layout], options))


@pytest.mark.parametrize(("layout", "options"), CASES)
@pytest.mark.parametrize("family", BACKWARD)
def test_backward(family, layout, options):
    opcheck(getattr(OPERATORS, BACKWARD[family]).default, backward_call(family, IMAGES[layout], options))


@pytest.mark.parametrize(("layout", "options"), CASES)
@pytest.mark.parametrize("family", INFERENCE)
def test_inference(family, layout, options):
    x = IMAGES[layout]
    operator, call = getattr(OPERATORS, INFERENCE[family]).default, forward_call(family, x, options)
    opcheck(operator, call)
    forward = getattr(OPERATORS, FORWARD[family])
    torch.testing.assert_close(operator(*call), forward(*call)[0], rtol=0, atol=0)


@pytest.mark.parametrize(("layout", "options"), CASES)
@pytest.mark.parametrize("family", OUT)
def test_writing_to_out(family, layout, options):
    x = IMAGES[layout]
    opcheck(getattr(OPERATORS, OUT[family]).default, (*forward_call(family, x, options), torch.zeros_like(x)))


TANH_CASES = [
    *((layout, 1, True) for layout in IMAGES),
    *((layout, 2, given) for layout in ("contiguous", "sliced") for given in (True, False)),
]


@pytest.mark.parametrize(("layout", "axis", "given"), TANH_CASES)
def test_channel_tanh(layout, axis, given):
    x = IMAGES[layout]
    call = (x, draw(), *(draw(x.shape[axis]) if given else None for _ in range(2)), axis)
    opcheck(OPERATORS.channel_tanh.default, call)
    for wanted in (DX | DALPHA | DWEIGHT | DBIAS, DX, DALPHA | DBIAS):
        opcheck(OPERATORS.channel_tanh_backward.default, (x.sin(), *call, wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("sliced", [True, False])
def test_lstm_cell(rows, dtype, sliced):
    def given(width):
        whole = draw(rows, 2 * width, dtype=dtype)
        return whole[:, ::2] if sliced else whole[:, :width].contiguous()

    opcheck(OPERATORS.lstm_cell.default, (given(20), given(5), given(20), given(5)))
    kept = (given(5), given(5), given(5), given(20), given(5))
    opcheck(OPERATORS.lstm_cell_backward.default, (*kept, given(5), given(20)))


@pytest.mark.parametrize("layout", IMAGES)
def test_channel_moments(layout):
    opcheck(OPERATORS.channel_moments.default, (IMAGES[layout],))


def test_running_statistics_are_the_only_arguments_that_change():
    call = forward_call("channels", IMAGES["contiguous"], "all")
    before = [argument.clone() if isinstance(argument, torch.Tensor) else argument for argument in call]
    OPERATORS.channels_forward(*call)
    changed = [
        place
        for place, (old, new) in enumerate(zip(before, call, strict=True))
        if isinstance(new, torch.Tensor) and not torch.equal(old, new)
    ]
    assert changed == [4, 5, 6]


def test_backends_says_what_is_loaded_and_why_not():
    backends = {backend.name: backend for backend in normwright.backends()}
    assert list(backends) == ["native", "triton", "eager"]
    assert backends["eager"].loaded
    assert backends["triton"].loaded == KERNELS_ARE_TRITONS
    assert all(backend.reason and backend.devices for backend in backends.values())
