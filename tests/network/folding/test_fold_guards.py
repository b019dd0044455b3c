"""Folding networks that do more than their trace shows: nothing may change without being seen."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from same import randomise
from torch import nn
from torch.nn import functional as F

import normwright as nw
from normwright.errors import DataError, FoldError, OptionError
from normwright.network import fold_with_report
from normwright.network.calling import call_of
from normwright.network.folding import difference
from normwright.network.folding import fold as fold_module

# float64 throughout: a fold that is exact differs by roundings of 2^-53 in a few hundred operations.
EXACT = 1e-12


@pytest.fixture(autouse=True)
def _no_long_timing(monkeypatch):
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)


def draw(*shape, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


class Net(nn.Module):
    """Modules by name, and a forward."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.way = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args):
        return self.way(self, *args)


class Clamped(nn.BatchNorm2d):
    """A batch norm that overwrites something by the way."""

    way = ""

    def forward(self, x):
        if float(self.eps) < 0:  # read from the module, so that torch.fx traces it too
            return x
        if self.way == "input":
            x.clamp_(max=0.1)
        if self.way == "statistics":
            self.running_mean.mul_(0.5)
        y = super().forward(x)
        if self.way == "result":
            y.clamp_(max=0.1)
        if self.way == "list":
            torch._foreach_clamp_max_([y], 0.1)
        return y


def recorded_only(monkeypatch):
    """Makes torch.export fail, so that a call is recorded."""

    def fails(*_, **__):
        raise RuntimeError("no export")

    monkeypatch.setattr(torch.export, "export", fails)


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("way", ["input", "result", "list", "statistics"])
def test_a_norm_that_overwrites_is_no_map(way, exported, monkeypatch):
    if not exported:
        recorded_only(monkeypatch)
    norm = Clamped(4)
    norm.way = way
    network = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 2, 1))
    randomise(network).eval()
    x = draw(2, 3, 4, 4, scale=5.0)
    before = copy.deepcopy(network)
    result, report = fold_with_report(network, x)
    assert all(record.place in ("", "before") for record in report.normalisers)
    assert isinstance(result[1], Clamped)
    with torch.no_grad():
        for _ in range(2):
            expected = before(x)
            assert float((result(x) - expected).abs().max()) <= EXACT * float(expected.abs().max())


def _in_no_grad(self, x):
    x = torch.relu(x)
    z = self.bn(x)
    with torch.no_grad():
        x.clamp_(max=0.1)
    return self.conv(z), x


def _in_a_list(self, x):
    x = torch.relu(x)
    z = self.bn(x)
    torch._foreach_clamp_max_([x], 0.1)
    return self.conv(z), x


def _by_out(self, x):
    x = torch.relu(x)
    z = self.bn(x)
    torch.clamp(z, max=0.1, out=x)
    return self.conv(z), x


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("forward", [_in_no_grad, _in_a_list, _by_out])
def test_an_overwritten_input_is_seen(forward, exported, monkeypatch):
    # the multiply-add keeps its own result; a fold into the convolution would read what was overwritten
    if not exported:
        recorded_only(monkeypatch)
    network = Net(forward, bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 1))
    randomise(network).eval()
    x = draw(2, 3, 4, 4, scale=5.0)
    result, report = fold_with_report(network, 1e-3 * x.abs())
    assert report.normalisers[0].place == "multiply-add"
    with torch.no_grad():
        for expected, actual in zip(network(x), result(x), strict=True):
            assert float((actual - expected).abs().max()) <= EXACT * float(expected.abs().max())


def test_a_hook_beside_weight_norm_is_seen():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))
    network[1].register_forward_pre_hook(lambda module, given: (given[0].clamp(max=0.1),))
    randomise(network).eval()
    x = draw(2, 3, 5, 5, scale=5.0)
    result, report = fold_with_report(network, -x.abs())
    assert report.normalisers[0].place == "multiply-add"
    assert "1 has hooks" in report.normalisers[0].reason
    with torch.no_grad():
        assert float((result(x) - network(x)).abs().max()) <= EXACT * float(network(x).abs().max())


class Result:
    """What `tensors_of` does not know."""

    def __init__(self, raw):
        self.raw = raw


@pytest.mark.parametrize("made", [lambda y: [Result(y), y.relu()], lambda y: {"sizes": (3, None)}])
def test_outputs_that_cannot_be_compared_are_refused(made):
    network = Net(lambda self, x: made(self.bn(self.conv(x))), conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4))
    randomise(network).eval()
    with pytest.raises(FoldError, match=r"must return tensors.*, or leave it out \(.*use_cache=False"):
        fold_with_report(network, draw(2, 3, 4, 4), inplace=True)
    assert type(network.bn) is nn.BatchNorm2d


class Off(nn.Module):
    """A network that is off by something."""

    def __init__(self, by):
        super().__init__()
        self.by = by


def test_each_output_is_judged_by_its_own_limit():
    class Wrong(Off):
        def forward(self, x):
            return 1e9 * x, x + self.by

    x = draw(2, 3).float()
    assert difference.compare(Wrong(0.0), Wrong(0.0), call_of(x), None).tolerance > 1.0
    with pytest.raises(FoldError, match="in output 1 of 2"):
        difference.compare(Wrong(0.0), Wrong(1e-3), call_of(x), None)


class Decided(Off):
    """The larger of two rows by sums that differ by less than float32 tells: another one in float64."""

    def forward(self, x):
        rows = torch.stack([x, -x]) + self.by
        sums = torch.stack([x.new_tensor(1.0), 1.0 + x.new_tensor(1e-9)])
        return rows[sums.argmax()]


@pytest.mark.parametrize("tolerance", [None, 1e-4])
def test_where_rounding_decides_the_two_networks_are_compared_in_float64(tolerance):
    x = draw(2, 3).float()
    found = difference.compare(Decided(0.0), Decided(1e-6), call_of(x), tolerance)
    assert found.unfolded > x.abs().max()
    assert found.folded > x.abs().max()
    assert 0 < found.in_float64 <= found.tolerance < 1e-2
    with pytest.raises(FoldError, match="unfolded network, where both run in float64, must be at most"):
        difference.compare(Decided(0.0), Decided(0.1), call_of(x), tolerance)


def test_a_right_fold_that_decides_otherwise_by_rounding_passes():
    class Otherwise(Decided):
        def forward(self, x):
            return super().forward(x) * (1.0 if x.dtype == torch.float64 else -1.0)

    x = draw(2, 3).float()
    found = difference.compare(Decided(0.0), Otherwise(1e-6), call_of(x), None)
    assert found.difference > x.abs().max()


def test_the_report_says_that_rounding_decides():
    class Network(Decided):
        def __init__(self):
            super().__init__(0.0)
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            return super().forward(self.bn(self.conv(x)))

    network = randomise(Network()).float().eval()
    _, report = fold_with_report(network, draw(2, 3, 4, 4).float())
    assert report.error.in_float64 <= report.error.tolerance
    assert "Rounding decides something in the network" in str(report)


def test_a_margin_is_for_rounding_and_not_for_a_wrong_fold():
    class Larger(Off):
        def forward(self, x):
            return x * (1.0 + self.by)

    x = draw(2, 3).float()
    found = difference.compare(Larger(0.0), Larger(2e-6), call_of(x), None, margin=8.0)
    assert found.folded_ulps > difference.LEAST_ULPS
    for by, margin in ((2e-6, 1.0), (1e-3, 8.0), (1e-3, 1e9)):
        with pytest.raises(FoldError, match="largest error against float64"):
            difference.compare(Larger(0.0), Larger(by), call_of(x), None, margin=margin)


class Sum(nn.Module):
    def __init__(self, first, last):
        super().__init__()
        self.first, self.last = first, last

    def forward(self, x):
        y = torch.full_like(x[0], self.first)
        for part in x:  # one after the other, as a convolution sums from its bias
            y = y + part
        return y + self.last


@pytest.mark.parametrize(
    ("folded", "what"),
    [(Sum(1.0, 0.0), "so that the rest of it is rounding"), (Sum(0.0, 1.001), "which is no rounding")],
)
def test_a_refusal_says_whether_it_is_for_rounding(folded, what):
    x = draw(2000, 64, scale=1e-3).float()
    with pytest.raises(FoldError, match=f"where both run in float64 they differ by .*, {what}"):
        difference.compare(Sum(0.0, 1.0), folded, call_of(x), None)


def test_an_index_that_rounding_decides_must_be_the_unfolded_networks():
    class Index(Decided):
        def forward(self, x):
            return x, (super().forward(x) == x + self.by).long() + int(self.by)

    x = draw(2, 3).float()
    assert difference.compare(Index(0), Index(0), call_of(x), None).examples == 1
    with pytest.raises(FoldError, match="in output 1 of 2"):
        difference.compare(Index(0), Index(1), call_of(x), None)


def test_a_norm_with_a_call_of_its_own_stays():
    class Calling(nn.BatchNorm2d):
        def __call__(self, x):
            return super().__call__(x).clamp(max=0.1)

    network = nn.Sequential(nn.Conv2d(3, 4, 1), Calling(4))
    randomise(network).eval()
    x = draw(2, 3, 4, 4, scale=5.0)
    result, report = fold_with_report(network, x, tolerance=1e9)
    assert report.normalisers[0].place == ""
    assert "__call__" in report.normalisers[0].reason
    with torch.no_grad():
        assert float((result(x) - network(x)).abs().max()) <= EXACT * float(network(x).abs().max())


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("quiet", [nn.Identity, nn.Dropout])
@pytest.mark.parametrize("changes", [False, True])
def test_a_hooked_module_without_operators_is_seen(quiet, exported, changes, monkeypatch):
    if not exported:
        recorded_only(monkeypatch)
    seen = []

    def hook(module, given, result):
        seen.append(result.clone())
        return result.clamp(max=0.1) if changes else None

    for place in (1, 2):
        layers = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)]
        layers.insert(place, quiet())
        network = nn.Sequential(*layers)
        network[place].register_forward_hook(hook)
        randomise(network).eval()
        x = draw(2, 3, 4, 4)
        result, report = fold_with_report(network, x, tolerance=1e9)
        places = [record.place for record in report.normalisers]
        # what does not cross the hook is folded
        assert places == (["after", "before"] if place == 1 else ["before", "before"])
        seen.clear()
        with torch.no_grad():
            expected, actual = network(x), result(x)
        assert float((actual - expected).abs().max()) <= EXACT * float(expected.abs().max())
        assert float((seen[1] - seen[0]).abs().max()) <= EXACT * float(seen[0].abs().max())


@pytest.mark.parametrize("called", ["never", "on a tensor", "on nothing"])
def test_a_hook_on_a_module_that_returns_nothing(called):
    class Observer(nn.Module):
        def forward(self, x):
            return None

    def forward(self, x):
        y = self.conv(x)
        if called != "never":
            self.observer(y if called == "on a tensor" else 3)
        return self.bn(y)

    network = Net(forward, conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4), observer=Observer())
    network.observer.register_forward_hook(lambda module, given, result: None)
    randomise(network).eval()
    record = fold_with_report(network, draw(2, 3, 4, 4))[1].normalisers[0]
    assert record.place == {"never": "before", "on a tensor": "multiply-add", "on nothing": ""}[called]
    assert ("observer has hooks" in record.reason) == (called == "on nothing")


def _padded_to_fours(self, x):
    y = self.bn(x)
    return self.conv(F.pad(y, (0, -y.shape[-1] % 4, 0, -y.shape[-2] % 4)))


def _padding_by_size(self, x):
    h, w = x.shape[-2:]
    return F.conv2d(self.bn(x), self.conv.weight, self.conv.bias, 2, padding=(h % 2, w % 2))


def _pooling_by_size(self, x):
    h, w = x.shape[-2:]
    return self.conv(F.avg_pool2d(self.bn(x), 2, 2, padding=(h % 2, w % 2)))


def _order_by_size(self, x):
    return self.conv(x) if x.shape[-1] > 8 else self.conv(self.bn(x))


class BySize(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) / x.shape[-1] ** 0.5


BY_SIZE = {
    "padded": Net(_padded_to_fours, bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 4, 4)),
    "padding": Net(_padding_by_size, bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 3)),
    "pooling": Net(_pooling_by_size, bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 3)),
    "order": Net(_order_by_size, bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 4, 3)),
    "scale": nn.Sequential(nn.Conv2d(3, 4, 3), BySize(4)),
    "batch": Net(
        lambda self, x: self.conv(self.bn(x) if x.shape[0] < 3 else x),
        bn=nn.BatchNorm2d(3),
        conv=nn.Conv2d(3, 4, 3),
    ),
}


@pytest.mark.parametrize("name", BY_SIZE)
def test_what_depends_on_the_size_is_refused(name):
    network = randomise(BY_SIZE[name]).eval()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(FoldError, match=r"at \(4, 3, 11, 9\) it does not"):
        fold_with_report(network, draw(2, 3, 8, 8), inplace=True)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_reshape_that_depends_on_the_size_is_refused():
    network = Net(
        lambda self, x: self.lin(self.bn(x).reshape(x.shape[0], -1, 4)),
        bn=nn.BatchNorm1d(4),
        lin=nn.Linear(4, 5),
    )
    randomise(network).eval()
    with pytest.raises(FoldError, match=r"at \(6, 4, 2\) it does not"):
        fold_with_report(network, draw(3, 4, 1))


def test_the_sizes_that_were_checked_are_told():
    def notes(*layers):
        state = torch.get_rng_state()
        report = fold_with_report(randomise(nn.Sequential(*layers)).eval(), draw(2, 3, 8, 8))[1]
        assert torch.equal(torch.get_rng_state(), state)
        return report.notes

    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    assert notes(*layers) == ("Checked at (4, 3, 11, 9) too.", fold_module._TAKEN_FOR_GRANTED)
    assert notes(*layers, nn.Flatten(), nn.Linear(144, 2))[0] == "Checked at (4, 3, 8, 8) too."
    fixed = Net(lambda self, x: x.view(2, 3, 8, 8))
    assert "the example's sizes" in notes(fixed, *layers)[0]


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # PyTorch's own, of its programs
def test_a_program_is_checked_where_its_sizes_are_free():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.bn(self.conv(x)).relu()

    network, x = randomise(Two()).eval(), draw(2, 3, 8, 8)
    for free, notes in (
        (None, ()),
        (({0: torch.export.Dim.AUTO},), ("Checked at (4, 3, 8, 8) too.",)),
        (({2: torch.export.Dim.AUTO},), ("Checked at (2, 3, 11, 8) too.",)),
    ):
        program = torch.export.export(network, (x,), dynamic_shapes=free, strict=False)
        assert fold_with_report(program, None)[1].notes == notes


def test_a_stored_value_that_changes_is_told():
    def forward(self, x):
        self.raw = self.conv(x)
        self.result = self.bn(self.raw)
        return self.result

    network = Net(forward, conv=nn.Conv2d(3, 4, 1), bn=nn.BatchNorm2d(4))
    randomise(network).eval()
    with pytest.warns(UserWarning, match="stores in raw is no longer"):
        report = fold_with_report(network, draw(2, 3, 4, 4))[1]
    assert report.normalisers[0].place == "before"
    assert "stores in raw is" in report.notes[0]
    assert not hasattr(network, "raw")


@pytest.mark.parametrize(
    ("example", "what"),
    [(torch.full((2, 3, 8, 8), torch.nan), "nowhere finite"), (torch.zeros(0, 3, 8, 8), "empty")],
)
def test_an_example_that_shows_nothing_is_refused(example, what):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(DataError, match=what):
        nw.fold(network, example, inplace=True)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert type(network[1]) is nn.BatchNorm2d


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf"), "1", True])
def test_a_tolerance_that_is_none(tolerance):
    with pytest.raises(OptionError, match=r"tolerance= must be a number, 0 or more"):
        nw.fold(nn.Linear(2, 2), torch.ones(1, 2), tolerance=tolerance)


def test_a_network_on_meta():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval().to("meta")
    with pytest.raises(OptionError, match=r"'0\.weight' is on the device meta"):
        nw.fold(network, torch.ones(1, 2, device="meta"))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_part_that_is_scripted(place):
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.BatchNorm1d(3))
    randomise(network).eval()
    x = draw(5, 4)
    expected = network(x).detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that it is of yesterday
        network[place] = torch.jit.script(network[place])
        result, report = fold_with_report(network, x)
    actual = result(x).detach()
    assert float((actual - expected).abs().max()) <= EXACT * float(expected.abs().max())
    assert report.normalisers


def hooked(forward, **hooks):
    """A network whose norm folds into its convolution, and three modules that hand on what they get."""
    handing_on = {name: nn.Identity() for name in ("gate", "other", "seen")}
    network = Net(forward, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4), **handing_on)
    for name, hook in hooks.items():
        network.get_submodule(name).register_forward_hook(hook)
    return randomise(network).eval()


def look(module, given, result):
    return None


def raise_it(module, given, result):
    return result + 1e9


def shortcut(self, x):
    """Takes the norm or not, as what comes out of the gates says."""
    small = self.other(self.gate(self.seen(x))).sum() < 1e9
    x = self.conv(x)
    return self.norm(x) if small else x


@pytest.mark.parametrize("others", [{}, {"seen": look}], ids=["alone", "beside another"])
def test_a_hook_that_steers_a_branch_is_named(others):
    with pytest.raises(FoldError, match=r"Without the hooks of 'gate' it is right.*handle\.remove\(\)"):
        nw.fold(hooked(shortcut, gate=raise_it, **others), draw(2, 3, 4, 4))


def test_hooks_that_steer_together_are_named_together():
    network = hooked(shortcut, gate=raise_it, other=raise_it)
    with pytest.raises(FoldError, match="Without the hooks of 'gate', 'other' it is right"):
        nw.fold(network, draw(2, 3, 4, 4))


def test_hooks_are_not_blamed_for_what_they_do_not_do():
    network = hooked(
        lambda self, x: self.norm(self.conv(x)) if x.shape[0] < 3 else self.conv(self.seen(x)), seen=look
    )
    with pytest.raises(FoldError) as refusal:
        nw.fold(network, draw(2, 3, 4, 4))
    assert "hook" not in str(refusal.value)


class Standardising(nn.Sequential):
    """Writes into its input: each call of it standardises the same tensor once more."""

    def forward(self, x):
        return super().forward(x.sub_(0.25).div_(0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_that_writes_into_its_input_is_folded_and_the_example_stays(dtype):
    network = randomise(Standardising(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).to(dtype).eval()
    x = draw(2, 3, 6, 6).to(dtype)
    folded = nw.fold(network, x)
    assert torch.equal(x, draw(2, 3, 6, 6).to(dtype))
    assert isinstance(folded[1], nn.Identity)
    assert torch.allclose(folded(x.clone()), network(x.clone()), atol=1e-5)


class Adding(nn.Module):
    """Returns its very input, to which it has added something."""

    def __init__(self, added):
        super().__init__()
        self.added = nn.Parameter(torch.tensor(added, dtype=torch.float64))

    def forward(self, x):
        x += self.added
        return x


def test_an_output_is_not_judged_by_memory_that_later_calls_write_into():
    with pytest.raises(FoldError, match="must be at most"):
        difference.compare(Adding(1.0), Adding(2.0), call_of(draw(2, 3)), None)


class PaddingItself(nn.Conv2d):
    """Says that it pads with zeros, and pads in its own way."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.weight, self.bias)


def padded_outside(self, x):
    x = F.pad(self.norm(x.relu()), (1, 1, 1, 1), mode="reflect")
    return F.conv2d(x, self.conv.weight, self.conv.bias)


def padded_both_ways(self, x):
    y = self.norm(x.relu())
    return self.conv(y), F.conv2d(y, self.conv.weight, self.conv.bias)


@pytest.mark.parametrize(
    ("way", "kind", "place"),
    [
        (lambda self, x: self.conv(self.norm(x.relu())), PaddingItself, "after"),
        (padded_outside, nn.Conv2d, "after"),
        (padded_both_ways, nn.Conv2d, "multiply-add"),
    ],
)
def test_what_a_convolution_pads_is_asked_of_its_call(way, kind, place):
    network = Net(way, norm=nn.BatchNorm2d(3), conv=kind(3, 4, 3, padding=1))
    randomise(network).double().eval()
    folded, report = fold_with_report(network, draw(2, 3, 6, 6))
    assert [record.place for record in report.normalisers] == [place]
    x = draw(3, 3, 7, 8)
    with torch.no_grad():
        both = zip(folded(x), network(x), strict=True)
    for one, other in both:
        assert float((one - other).abs().max()) <= EXACT * float(other.abs().max())
