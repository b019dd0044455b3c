"""Forward-mode derivatives of every function, and derivatives of gradients by them, against reverse mode."""

import pytest
import torch
from tolerances import SAME_DERIVATIVE
from torch.autograd import forward_ad

from normwright import functional as F
from normwright.errors import OptionError

pytestmark = [
    # Forward-mode differentiation loads PyTorch's decompositions, which it still scripts.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
]


def draw(*shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 0.5


GIVEN = (draw(4, 6, 5, seed=0), draw(6, seed=1), draw(6, seed=2), draw(4, 6, 5, seed=3))
ALONG = (draw(4, 6, 5, seed=4), draw(6, seed=5), draw(6, seed=6), draw(4, 6, 5, seed=7))
MASK, DOMAINS = torch.arange(5) < torch.tensor([[5], [3], [4], [5]]), torch.tensor([0, 1, 0, 1])


def running(*shape):
    return torch.zeros(*shape, 6).double(), torch.ones(*shape, 6).double()


def whitened():
    return torch.zeros(6).double(), torch.eye(3).double().repeat(2, 1, 1)


def domains():
    return [(*running(), None) for _ in range(2)]


# Of x (4, 6, 5), a weight, a bias and a residual.
CALLS = {
    "batch_norm": lambda x, w, b, r: F.batch_norm(x, None, None, w, b, True, residual=r, activation="silu"),
    "batch_norm, moving": lambda x, w, b, r: F.batch_norm(
        x, *running(), w, b, True, residual=r, activation="tanh"
    ),
    "batch_norm in inference": lambda x, w, b, r: F.batch_norm(
        x, *running(), w, b, residual=r, activation="gelu"
    ),
    "batch_renorm": lambda x, w, b, r: F.batch_renorm(x, *running(), w, b, True, residual=r),
    "dynamic_tanh": lambda x, w, b, r: F.dynamic_tanh(x, b[0], w, b, axis=1),
    "filter_response_norm": lambda x, w, b, r: F.filter_response_norm(x, w, b, residual=r, activation="silu"),
    "filter_response_norm, unit": lambda x, w, b, r: F.filter_response_norm(x, w, None, b),
    "filter_response_norm, learned": lambda x, w, b, r: F.filter_response_norm(x, eps=w[1].square()),
    "ghost_batch_norm": lambda x, w, b, r: F.ghost_batch_norm(
        x, *running(), w, b, True, ghost_size=2, residual=r, activation="sigmoid"
    ),
    "group_norm": lambda x, w, b, r: F.group_norm(x, 2, w, b, residual=r, activation="relu"),
    "instance_norm": lambda x, w, b, r: F.instance_norm(x, None, None, w, b, residual=r),
    "instance_norm, moving": lambda x, w, b, r: F.instance_norm(x, *running(), w, b, residual=r),
    "layer_norm": lambda x, w, b, r: F.layer_norm(x.mT, (6,), w, b, residual=r.mT, activation="leaky_relu"),
    "local_response_norm": lambda x, w, b, r: F.local_response_norm(x, 3, residual=r),
    "masked_batch_norm": lambda x, w, b, r: F.masked_batch_norm(x, MASK, *running(), w, b, True, residual=r),
    "maxout": lambda x, w, b, r: F.maxout(x, 2),
    "recurrent_batch_norm": lambda x, w, b, r: F.recurrent_batch_norm(
        x[..., 0], 1, *running(3), w, b, training=True
    ),
    "rms_norm": lambda x, w, b, r: F.rms_norm(x.mT, (6,), w, 0.1, residual=r.mT),
    "split_batch_norm": lambda x, w, b, r: F.split_batch_norm(
        x, DOMAINS, domains(), w, b, True, residual=r, activation="silu"
    ),
    "standardise_weight": lambda x, w, b, r: F.standardise_weight(x),
    "sync_batch_norm": lambda x, w, b, r: F.sync_batch_norm(x, *running(), w, b, True, residual=r),
    "weight_norm": lambda x, w, b, r: F.weight_norm(x, w[:4, None, None]),
    "whitening_norm": lambda x, w, b, r: F.whitening_norm(
        x, *whitened(), w, b, True, group_size=3, residual=r, activation="silu"
    ),
    "whitening_norm, iterative": lambda x, w, b, r: F.whitening_norm(
        x, None, None, w, b, True, group_size=3, method="iterative", residual=r
    ),
    "whitening_norm in inference": lambda x, w, b, r: F.whitening_norm(
        x, *whitened(), w, b, group_size=3, residual=r
    ),
}


def by_dual_numbers(call):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(call(*map(forward_ad.make_dual, GIVEN, ALONG))).tangent


def beside_gradients(call):
    with forward_ad.dual_level():
        leaves = [tensor.clone().requires_grad_() for tensor in GIVEN]
        return forward_ad.unpack_dual(call(*map(forward_ad.make_dual, leaves, ALONG))).tangent


def by_torch_func(call):
    return torch.func.jvp(call, GIVEN, ALONG)[1]


def over_vmap(call):
    def at(size):
        return call(*(tensor + size * along for tensor, along in zip(GIVEN, ALONG, strict=True)))

    return torch.func.jacfwd(at)(torch.zeros((), dtype=torch.float64))


def leaves_of():
    return [tensor.clone().requires_grad_() for tensor in GIVEN]


def close(one, other):
    return float((one - other).detach().abs().max()) <= SAME_DERIVATIVE * max(1.0, float(other.abs().max()))


def along(gradients):
    return sum((gradient * tangent).sum() for gradient, tangent in zip(gradients, ALONG, strict=True))


@pytest.mark.parametrize("way", [by_dual_numbers, beside_gradients, by_torch_func, over_vmap])
@pytest.mark.parametrize("name", CALLS)
def test_a_tangent_is_the_gradients_along_it(name, way):
    call, leaves = CALLS[name], leaves_of()
    y = call(*leaves)
    tangent = way(call)
    assert tangent.shape == y.shape
    for seed in range(3):
        dy = draw(*y.shape, seed=seed) - 0.5
        gradients = torch.autograd.grad(y, leaves, dy, retain_graph=True, materialize_grads=True)
        assert close((tangent * dy).sum(), along(gradients))


@pytest.mark.parametrize("name", CALLS)
def test_a_tangent_of_a_gradient(name):
    def loss(*tensors):
        return CALLS[name](*tensors).pow(3).sum()

    _, found = torch.func.jvp(torch.func.grad(loss, argnums=(0, 1, 2, 3)), GIVEN, ALONG)
    leaves = leaves_of()
    first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True, materialize_grads=True)
    expected = torch.autograd.grad(along(first), leaves, materialize_grads=True)
    for one, other in zip(found, expected, strict=True):
        assert close(one, other)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("batch_norm", by_dual_numbers),
        ("batch_norm", by_torch_func),
        ("ghost_batch_norm", by_dual_numbers),
        ("instance_norm", by_dual_numbers),
    ],
)
def test_statistics_move_as_ever(name, way):
    options = {"ghost_size": 2} if name == "ghost_batch_norm" else {}
    moved = []
    for run in (way, lambda call: call(*GIVEN)):
        statistics = running()
        run(lambda x, w, b, r, known=statistics: getattr(F, name)(x, *known, w, b, True, **options))
        moved.append(statistics)
    assert not torch.equal(moved[1][0], running()[0])
    assert all(map(close, *moved))


@pytest.mark.parametrize("name", ["batch_norm", "ghost_batch_norm", "instance_norm"])
def test_no_tangent_stays_in_statistics(name):
    options, known = {"ghost_size": 2} if name == "ghost_batch_norm" else {}, running()
    with forward_ad.dual_level():
        x = forward_ad.make_dual(GIVEN[0], ALONG[0])
        getattr(F, name)(x, *known, None, None, True, **options)
        assert [forward_ad.unpack_dual(statistic).tangent for statistic in known] == [None, None]


def test_out_is_refused():
    with forward_ad.dual_level():
        x = forward_ad.make_dual(GIVEN[0], ALONG[0])
        with pytest.raises(OptionError, match="out= must be given only where no gradient is wanted"):
            F.group_norm(x, 2, out=torch.empty_like(GIVEN[0]))


def test_every_function_is_here():
    assert set(F.__all__) == {name.split(",")[0].split()[0] for name in CALLS}


@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
@pytest.mark.parametrize("way", [by_dual_numbers, by_torch_func])
def test_a_tangent_far_below_zero_is_none(way, activation):
    """exp(-z) overflows there, in float32 from -88 on."""

    def call(x, w, b, r):
        return F.layer_norm(x.mT.float(), (6,), residual=r.mT.float() - 95, activation=activation)

    tangent = way(call)
    assert float(tangent.abs().max()) < 1e-30


@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
def test_a_gradient_of_a_tangent(activation):
    def call(x):
        return F.layer_norm(x.mT, (6,), activation=activation)

    def loss(x):
        return torch.func.jvp(call, (x,), (ALONG[0],))[1].pow(2).sum()

    x = GIVEN[0].clone().requires_grad_()
    (dx,) = torch.autograd.grad(
        call(x), x, (seed := torch.zeros_like(x.mT).requires_grad_()), create_graph=True
    )
    (tangent,) = torch.autograd.grad(dx, seed, ALONG[0], create_graph=True)
    (expected,) = torch.autograd.grad(tangent.pow(2).sum(), x)
    assert close(torch.func.grad(loss)(GIVEN[0]), expected)


ROWS = {
    "layer_norm": (F.layer_norm, torch.nn.functional.layer_norm, ((6,),)),
    "rms_norm": (F.rms_norm, torch.nn.functional.rms_norm, ((6,),)),
    "group_norm": (F.group_norm, torch.nn.functional.group_norm, (2,)),
}


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # by linearize itself
@pytest.mark.parametrize("name", ROWS)
def test_transforms_in_any_order(name):
    """Where values cannot be asked: of PyTorch's own, which have derivatives of every order too."""
    x, direction = draw(3, 4, 6, seed=0), draw(3, 4, 6, seed=1)
    ours, theirs, settings = ROWS[name]

    def over(function):
        def call(rows):
            return function(rows, *settings)

        return (
            torch.func.jvp(torch.func.vmap(call), (x,), (direction,))[1],
            torch.func.vmap(torch.func.hessian(lambda rows: call(rows).sin().sum()))(x),
            torch.func.linearize(call, x[0])[1](direction[0]),
        )

    for one, other in zip(over(ours), over(theirs), strict=True):
        assert close(one, other)


def test_a_variance_that_overflows_has_a_tangent():
    x, direction = draw(4, 6, seed=0).float() * 1e25, draw(4, 6, seed=1).float() * 1e25
    tangent = torch.func.jvp(lambda rows: F.layer_norm(rows, (6,)), (x,), (direction,))[1]
    small = torch.func.jvp(lambda rows: F.layer_norm(rows, (6,), eps=0.0), (x / 1e25,), (direction / 1e25,))[
        1
    ]
    torch.testing.assert_close(tangent, small, rtol=1e-4, atol=1e-5)
