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


WRITTEN = {
    RoundedBeforeNorm: "rms_norm",
    RoundedAfterNorm: "rms_norm",
    AboutOneNorm: "rms_norm",
    UnweightedNorm: "rms_norm",
    CentredNorm: "layer_norm",
    InItsOwnDtypeNorm: "rms_norm",
    OneWeightNorm: "rms_norm",
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def gradients_of(module, x, dy):
    x = x.clone().requires_grad_()
    y = module(x)
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


def test_no_line_of_it_is_run_again():
    x = torch.randn(3, 24)
    accelerated = accelerate_with_report(RoundedBeforeNorm())[0]
    with torch.no_grad(), torch.profiler.profile() as run:
        accelerated(x)
    called = {event.key for event in run.key_averages()}
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


class WidenedNorm(Norm):
    """float32 comes out of half a dtype, which our operator does not give."""

    def forward(self, x):
        x = x.float()
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


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


class NarrowSquaresNorm(Norm):
    """The squares in another dtype than what is divided by them."""

    def forward(self, x):
        return (self.weight * (x.float() * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))).type_as(
            x
        )


class WithABiasNorm(Norm):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight + 1.0


class InADtypeOfItsOwnNorm(Norm):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True, dtype=torch.float64) + self.eps)


class OverTwoAxesNorm(Norm):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean((-2, -1), keepdim=True) + self.eps)


@pytest.mark.parametrize(
    "kind",
    [
        WidenedNorm,
        OverTheFirstAxisNorm,
        CubedNorm,
        OfAnotherNorm,
        HalfCentredNorm,
        NarrowSquaresNorm,
        WithABiasNorm,
        InADtypeOfItsOwnNorm,
        OverTwoAxesNorm,
    ],
)
def test_what_is_another_formula_stays(kind):
    plain = kind()
    accelerated, report = accelerate_with_report(plain)
    assert report.normalisers[0].became is None
    x = torch.randn(3, 4, 24)
    assert torch.equal(plain(x), accelerated(x))
