"""What acts on a whole network, on the device: the answers are those of the network, and its state stays."""

from __future__ import annotations

import copy

import pytest
import torch
from placed import (
    CASES,
    ROUNDING,
    TIMES_OWN,
    WAYS,
    answer,
    apart,
    assert_as_exact_as,
    place,
    placement,
    same,
    values,
)
from torch import nn

import normwright as nw
from normwright.errors import DeviceError
from normwright.network import (
    accelerate_with_report,
    convert_with_report,
    find_normalisers,
    fold_with_report,
)
from normwright.network.folding import fold as fold_module

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _no_timing(monkeypatch):
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_fold(name, way, device):
    case = place(name, way, device)
    x = case.batches[0]
    before, where = values(case.network), placement(case.network)
    folded, report = fold_with_report(case.network, x.to(device))
    assert {record.place for record in report.normalisers} == {"before"}
    assert same(values(case.network), before)
    assert placement(case.network) == where
    kept = placement(folded)
    assert all(kept[key] == where[key] for key in kept.keys() & where.keys() if not key.endswith("()"))
    assert {value.device for value in folded.state_dict().values()} == {device}
    with torch.no_grad():
        exact, model = answer(case.exact, x.double()), case.answer(case.network, x)
        assert_as_exact_as(case, case.answer(folded, x), model, exact)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("to", ["frozen", "synchronised", "group", "layer"])
def test_convert_there_and_back(to, way, device):
    case = place("residual", way, device)
    x = case.batches[0]
    before, where = values(case.network), placement(case.network)
    converted = nw.convert(case.network, to)
    assert {value.device for value in converted.state_dict().values()} == {device}
    assert not any(module.training for module in converted.modules())
    with torch.no_grad():
        y, model = case.answer(converted, x), case.answer(case.network, x)
        if to in ("frozen", "synchronised"):
            assert_as_exact_as(case, y, model, case.exact(x.double()))
        else:
            assert_as_exact_as(case, y, y, nw.convert(case.exact, to)(x.double()))
    back = nw.convert(converted, "batch")
    assert same(values(back), before)
    assert placement(back) == where


@pytest.mark.parametrize("metric", [None, lambda y, labels: float(nn.functional.cross_entropy(y, labels))])
def test_group_norm_is_fitted_as_on_the_cpu(metric, device):
    case = place("residual", "float64", device)
    batches = [(x, torch.arange(len(x))) for x in case.batches]
    options = {"calibrate": batches, "metric": metric}
    fitted, report = convert_with_report(case.network, "group", **options)
    exact, expected = convert_with_report(case.exact, "group", **options)
    for (key, value), model in zip(fitted.state_dict().items(), exact.state_dict().values(), strict=True):
        assert apart(value, model) <= ROUNDING, key
    for one, other in zip(vars(report.gap).values(), vars(expected.gap).values(), strict=True):
        assert one == pytest.approx(other, rel=ROUNDING)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_freeze_and_unfreeze(name, way, device):
    case = place(name, way, device)
    where, x = placement(case.network), case.batches[0]
    frozen = nw.freeze(case.network).train()
    before = dict(values(frozen))
    y = case.answer(frozen, x)
    assert same(values(frozen), before)
    with torch.no_grad():
        assert_as_exact_as(case, y, case.answer(case.network, x), answer(case.exact, x.double()))
    thawed = nw.unfreeze(frozen)
    case.answer(thawed, x)
    moved = {key for key, value in values(thawed).items() if not torch.equal(value, before[key])}
    assert len(moved) == 3 * len(find_normalisers(thawed))
    assert placement(thawed.eval()) == where


def step(answer, network, x):
    """The answer, every gradient, and what the step made of the state."""
    y = answer(network, x)
    (y.double() * torch.linspace(-1, 1, y.numel()).cos().view(y.shape).to(y.device)).sum().backward()
    gradients = {f"d {name}": parameter.grad for name, parameter in network.named_parameters()}
    return {"y": y, **gradients, **dict(network.named_buffers())}


@pytest.mark.parametrize(("name", "way"), CASES)
def test_accelerate(name, way, device):
    case = place(name, way, device)
    where = placement(case.network)
    fast, report = accelerate_with_report(case.network)
    assert all(record.became for record in report.normalisers)
    # in MONAI's UNet a PReLU follows, which no kernel computes
    assert any(record.fused for record in report.normalisers) == (name != "MONAI UNet")
    kept = {key: place for key, place in placement(fast).items() if not key.endswith("()")}
    assert kept.items() <= where.items()
    for training in (True, False):
        check_step(case, fast, training)


def check_step(case, fast, training):
    """A step of the accelerated network against those of the network, there and in float64 on the CPU."""
    x = case.batches[0]
    networks = [copy.deepcopy(network).train(training) for network in (fast, case.network, case.exact)]
    found, model = (step(case.answer, network, x) for network in networks[:2])
    exact = step(answer, networks[2], x.double())
    assert found.keys() == exact.keys()
    for key, value in exact.items():
        if not value.is_floating_point():
            assert torch.equal(found[key].cpu(), value), key
        elif not key.startswith("d "):
            assert_as_exact_as(case, found[key], model[key], value, key)
    if case.smooth:
        check_each_gradient(case, found, model, exact)
    else:
        check_gradients_together(case, found, model, exact)


def check_each_gradient(case, found, model, exact):
    """One that is zero but for roundings is as small as those of the largest."""
    gradients = {key: value for key, value in exact.items() if key.startswith("d ")}
    largest = max(float(value.abs().max()) for value in gradients.values())
    for key, value in gradients.items():
        assert_as_exact_as(case, found[key], model[key], value, key, largest)


def check_gradients_together(case, found, model, exact):
    """A rounding may tell on which side of a ReLU's kink a value lies: an element of some thousands."""
    keys = [key for key in exact if key.startswith("d ")]
    found, model, exact = (
        torch.cat([part[key].detach().cpu().double().flatten() for key in keys])
        for part in (found, model, exact)
    )
    own = float((model - exact).norm() / exact.norm())
    assert float((found - exact).norm() / exact.norm()) <= 1e-2 + TIMES_OWN * (own + case.unit)


def test_a_call_with_tensors_on_two_devices_is_refused(device):
    """What PyTorch does not ask of a library's operator."""
    other = "meta" if device.type == "cpu" else "cpu"
    x = torch.ones(4, 3, 2, 2, device=other)
    for norm in (nn.BatchNorm2d(3), nn.GroupNorm(3, 3), nn.LayerNorm([3, 2, 2]), nn.RMSNorm([3, 2, 2])):
        fast = nw.accelerate(nn.Sequential(norm.to(device)))
        for mode in (True, False):
            with pytest.raises(DeviceError, match=r"same device.*\.to\(device\)"):
                fast.train(mode)(x)


def test_an_example_on_another_device_folds_nothing(device):
    network = copy.deepcopy(place("residual", "float32", device).network)
    before = values(network)
    other = "meta" if device.type == "cpu" else "cpu"
    with pytest.raises(Exception, match=r"device|meta|cuda"):
        nw.fold(network, torch.ones(2, 3, 12, 12, device=other), inplace=True)
    assert same(values(network), before)
