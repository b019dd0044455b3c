"""RMS and layer norm that a forward writes out become one operator, in every dtype that it takes."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from normwright.network.acceleration.accelerate import accelerate_with_report


class Norm(nn.Module):
    """What they have in common; a name that tells what it is."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 2, 24))
        self.eps = 1e-6


class RoundedBeforeNorm(Norm):
    """Llama's: x̂ is rounded, and then weighted."""

    def forward(self, x):
        dtype = x.dtype
        x = x.to(torch.float32)
        variance = x.pow(2).mean(-1, keepdim=True)
        x = x * torch.rsqrt(variance + self.eps)
        return self.weight * x.to(dtype)


class RoundedAfterNorm(Norm):
    """OLMo's."""

    def forward(self, x):
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.weight * wide).to(x.dtype)


class AboutOneNorm(Norm):
    """Gemma's, whose weight is a distance from 1."""

    def _norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    def forward(self, x):
        return (self._norm(x.float()) * (1.0 + self.weight.float())).type_as(x)


class UnweightedNorm(Norm):
    """Llama 4's, with a root in other words."""

    def forward(self, x):
        wide = x.float()
        return (wide * (torch.square(wide).mean(dim=-1, keepdim=True) + self.eps).pow(-0.5)).type_as(x)


class CentredNorm(Norm):
    """Cohere's layer norm."""

    def forward(self, x):
        dtype = x.dtype
        x = x.to(torch.float32)
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        x = (x - mean) * torch.rsqrt(variance + self.eps)
        return (self.weight.to(torch.float32) * x).to(dtype)


class InItsOwnDtypeNorm(Norm):
    """Never in float32 but where x is."""

    def forward(self, x):
        return x * torch.rsqrt(torch.mean(x * x, -1, keepdim=True) + self.eps) * self.weight


class OneWeightNorm(Norm):
    """A weight of another shape, which is broadcast."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5]))

    forward = RoundedAfterNorm.forward


class WidenedNorm(Norm):
    """float32 comes out of half a dtype."""

    def forward(self, x):
        x = x.float()
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class NarrowSquaresNorm(Norm):
    """The squares in another dtype than what is divided by them."""

    def forward(self, x):
        wide = x.float() * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.weight * wide).type_as(x)


class SquaredInTwoDtypesNorm(Norm):
    """float32 comes out of half a dtype, by one factor of the squares alone."""

    def forward(self, x):
        return self.weight * (x * torch.rsqrt((x * x.float()).mean(-1, keepdim=True) + self.eps))


class AsItsWeightIsNorm(Norm):
    """T5's: float32 comes out of all but a weight of half a dtype."""

    def forward(self, x):
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        x = x * torch.rsqrt(variance + self.eps)
        if self.weight.dtype in [torch.float16, torch.bfloat16]:
            x = x.to(self.weight.dtype)
        return self.weight * x


class PowerNorm(Norm):
    """Gemma 4's, whose root is a function that takes numbers too."""

    def forward(self, x):
        mean_squared = x.float().pow(2).mean(-1, keepdim=True) + self.eps
        return (x.float() * torch.pow(mean_squared, -0.5) * self.weight.float()).type_as(x)


class NarrowRootNorm(Norm):
    """DeepSeek 4's, without a weight."""

    def forward(self, x):
        return x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps).to(x.dtype)


class WeightedFirstNorm(Norm):
    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class QuotientNorm(Norm):
    """ImageGPT's."""

    def forward(self, x):
        return x / torch.sqrt(torch.mean(torch.square(x), axis=-1, keepdim=True) + self.eps) * self.weight


class BiasedNorm(Norm):
    """DeBERTa's layer norm."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.linspace(3, -1, 24))

    def forward(self, x):
        dtype = x.dtype
        x = x.float()
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight * x.to(dtype) + self.bias


class OfAVarianceNorm(BiasedNorm):
    """Pocket TTS's."""

    def forward(self, x):
        variance = x.var(-1, unbiased=False, keepdim=True)
        x = (x - x.mean(-1, keepdim=True)) * torch.rsqrt(variance + self.eps)
        return x * self.weight + self.bias


class ShiftedNorm(Norm):
    """What follows stays as it is written."""

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight + 1.0


class OfAValueNorm(Norm):
    """The norm of what is no argument, with an activation after it."""

    def forward(self, x):
        y = nn.functional.silu(x)
        return torch.relu(self.weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)))


WRITTEN = {
    RoundedBeforeNorm: "rms_norm",
    RoundedAfterNorm: "rms_norm",
    AboutOneNorm: "rms_norm",
    UnweightedNorm: "rms_norm",
    CentredNorm: "layer_norm",
    InItsOwnDtypeNorm: "rms_norm",
    OneWeightNorm: "rms_norm",
    WidenedNorm: "rms_norm",
    NarrowSquaresNorm: "rms_norm",
    SquaredInTwoDtypesNorm: "rms_norm",
    AsItsWeightIsNorm: "rms_norm",
    PowerNorm: "rms_norm",
    NarrowRootNorm: "rms_norm",
    WeightedFirstNorm: "rms_norm",
    QuotientNorm: "rms_norm",
    BiasedNorm: "layer_norm",
    OfAVarianceNorm: "layer_norm",
    ShiftedNorm: "rms_norm",
    OfAValueNorm: "rms_norm",
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def gradients_of(module, x, dy, *more):
    x = x.clone().requires_grad_()
    y = module(x, *more)
    y.backward(dy.to(y.dtype))
    return [y.detach(), x.grad, *(p.grad for p in module.parameters() if p.grad is not None)]


@pytest.mark.parametrize("dtypes", list(itertools.product(DTYPES, DTYPES)))
@pytest.mark.parametrize("kind", WRITTEN)
def test_it_is_one_operator_and_has_the_same_dtype_values_and_gradients(kind, dtypes):
    of_x, of_weight = dtypes
    plain = kind().to(of_weight)
    accelerated, report = accelerate_with_report(plain)
    assert report.normalisers[0].became == f"normwright.functional.{WRITTEN[kind]}"
    draw = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(4, 5, 24, generator=draw)).to(of_x)
    dy = torch.randn(4, 5, 24, generator=draw)
    # rounded where it was written out: in the coarsest of the dtypes that meet, in float32 for float64
    eps = max(torch.finfo(dtype).eps for dtype in (*dtypes, torch.float32))
    for one, other in zip(gradients_of(accelerated, x, dy), gradients_of(plain, x, dy), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert float((one - other).double().abs().max()) <= 8 * eps * float(other.double().abs().max())


def operators_of(module, *args, **named):
    with torch.no_grad(), torch.profiler.profile() as run:
        module(*args, **named)
    return {event.key for event in run.key_averages()}


def test_no_line_of_it_is_run_again():
    called = operators_of(accelerate_with_report(RoundedBeforeNorm())[0], torch.randn(3, 24))
    assert "normwright::rows_inference" in called
    assert not {"aten::pow", "aten::mean", "aten::rsqrt", "aten::mul"} & called


def test_what_it_read_counts_when_it_is_changed():
    accelerated = accelerate_with_report(RoundedBeforeNorm())[0]
    plain = RoundedBeforeNorm()
    x = torch.randn(3, 24)
    for module in (plain, accelerated):
        module.eps = 3.0
    assert torch.equal(plain(x), accelerated(x))
    again = pickle.loads(pickle.dumps(accelerate_with_report(copy.deepcopy(plain))[0]))
    assert torch.allclose(plain(x), again(x))


class OverTheFirstAxisNorm(Norm):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(0, keepdim=True) + self.eps) * self.weight


class CubedNorm(Norm):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + self.eps) * self.weight


class OfAnotherNorm(Norm):
    """The squares of what was shifted, and not of x."""

    def forward(self, x):
        return x * torch.rsqrt((x + 1).pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class HalfCentredNorm(Norm):
    def forward(self, x):
        return (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class InADtypeOfItsOwnNorm(Norm):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True, dtype=torch.float64) + self.eps)


class OverTwoAxesNorm(Norm):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean((-2, -1), keepdim=True) + self.eps)


class UnbiasedNorm(Norm):
    def forward(self, x):
        variance = x.var(-1, keepdim=True)
        return (x - x.mean(-1, keepdim=True)) * torch.rsqrt(variance + self.eps)


class NotCentredNorm(Norm):
    """x itself over its deviation."""

    def forward(self, x):
        return x * torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + self.eps)


class OutsideTheRootNorm(Norm):
    def forward(self, x):
        return x / (torch.sqrt(x.pow(2).mean(-1, keepdim=True)) + self.eps)


class InverseNorm(Norm):
    """The norm of one value upside down."""

    def forward(self, x):
        return torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) / x


class OfTwoValuesNorm(Norm):
    def forward(self, x):
        y = x + 1
        return x * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class TellsItsRootNorm(Norm):
    """The root is computed once, and told."""

    def forward(self, x):
        root = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return x * root, root


class ChangedBetweenNorm(Norm):
    """x is another one by the time that it is divided."""

    def forward(self, x):
        x = x * 1
        squares = x * x
        squares.add_(1.0)
        return x * torch.rsqrt(squares.mean(-1, keepdim=True) + self.eps)


class ByTheDtypeOfItsInputNorm(Norm):
    """A branch on what only a call tells."""

    def forward(self, x):
        y = x if x.dtype == torch.float16 else x.double()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class ByASetOfDtypesNorm(Norm):
    def forward(self, x):
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return y * 2 if x.dtype in {torch.float32, torch.float16} else y


class ByTheIdentityOfADtypeNorm(Norm):
    def forward(self, x):
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return y * 2 if x.dtype is torch.float32 else y


@pytest.mark.parametrize(
    "kind",
    [
        OverTheFirstAxisNorm,
        CubedNorm,
        OfAnotherNorm,
        HalfCentredNorm,
        InADtypeOfItsOwnNorm,
        OverTwoAxesNorm,
        UnbiasedNorm,
        NotCentredNorm,
        OutsideTheRootNorm,
        InverseNorm,
        OfTwoValuesNorm,
        TellsItsRootNorm,
        ChangedBetweenNorm,
        ByTheDtypeOfItsInputNorm,
        ByASetOfDtypesNorm,
        ByTheIdentityOfADtypeNorm,
    ],
)
def test_what_is_another_formula_stays(kind):
    plain = kind()
    accelerated, report = accelerate_with_report(plain)
    assert report.normalisers[0].became is None
    x = torch.randn(3, 4, 24)
    for one, other in zip(unpacked(plain(x)), unpacked(accelerated(x)), strict=True):
        assert torch.equal(one, other)


def unpacked(output):
    return output if isinstance(output, tuple) else (output,)


def test_a_weight_whose_dtype_decides_is_followed_to_another_one():
    plain = AsItsWeightIsNorm()
    accelerated = accelerate_with_report(plain)[0]
    x = torch.randn(3, 24)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        plain.to(dtype)
        accelerated.to(dtype)
        assert accelerated(x).dtype == plain(x).dtype == dtype
        # a network that is converted to float64 runs its own forward
        assert ("normwright::rows_inference" in operators_of(accelerated, x)) == (dtype != torch.float64)
    assert torch.equal(plain(x), accelerated(x))


ACTIVATIONS = {"silu": nn.SiLU, "sigmoid": nn.Sigmoid}


class GatedNorm(Norm):
    """Qwen3-Next's."""

    def forward(self, x, gate):
        dtype = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        x = self.weight * x.to(dtype)
        return (x * ACTIVATIONS["silu"]()(gate.to(torch.float32))).to(dtype)


class PerhapsGatedNorm(Norm):
    """Kimi's, which cannot do without a gate, but says so."""

    def forward(self, x, gate=None):
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.weight.float() * wide * ACTIVATIONS["sigmoid"]()(gate.float())).to(x.dtype)


class OrNotGatedNorm(Norm):
    def forward(self, x, gate=None):
        if gate is not None:
            x = x * torch.sigmoid(gate)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [GatedNorm, PerhapsGatedNorm, OrNotGatedNorm])
def test_a_gate_is_left_beside_the_operator(kind, dtype):
    plain = kind().to(dtype)
    accelerated, report = accelerate_with_report(plain)
    assert report.normalisers[0].became == "normwright.functional.rms_norm"
    draw = torch.Generator().manual_seed(0)
    x, gate, dy = torch.randn(3, 2, 5, 24, generator=draw).to(dtype).unbind()
    assert "normwright::rows_inference" in operators_of(accelerated, x, gate)
    assert "normwright::rows_inference" in operators_of(accelerated, x, gate=gate)
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    for one, other in zip(
        gradients_of(accelerated, x, dy, gate), gradients_of(plain, x, dy, gate), strict=True
    ):
        assert one.dtype == other.dtype
        assert float((one - other).double().abs().max()) <= 8 * eps * float(other.double().abs().max())


def test_where_there_is_no_gate_there_is_none():
    accelerated, plain = accelerate_with_report(OrNotGatedNorm())[0], OrNotGatedNorm()
    x = torch.randn(3, 24)
    assert "normwright::rows_inference" in operators_of(accelerated, x)
    assert torch.allclose(accelerated(x), plain(x))
