"""Modes, company, padding, counting and drift of whole networks."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import normwright.nn
from normwright.doctor.gathering import gather, gather_when_read
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import all_rules, judge
from normwright.doctor.statistics.modes import Comparison
from normwright.doctor.statistics.passes import run_passes
from normwright.doctor.subject import Subject
from normwright.errors import OptionError
from normwright.statistics import count_once


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(count=4, samples=32):
    """Batches of (x, class)."""
    x = draw(count * samples, 6)
    return tuple(zip(x.split(samples), (x.sum(1) > 0).long().split(samples), strict=True))


def network(*extra):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), *extra, nn.Linear(8, 3), nn.BatchNorm1d(3)
    ).double()


def trained(net, batches, steps=3):
    """A little trained, so that both modes differ."""
    net.train()
    for step in range(steps):
        net(batches[step][0])
    return net


def facts_of(net, batches, **options):
    return run_passes(Subject(net, batches, F.cross_entropy, **options))


class Noise(nn.Module):
    """As a variational encoder has it, in either mode."""

    def forward(self, x):
        return x + torch.randn_like(x)


def test_noise_is_the_same_in_both_modes():
    batches = classes()
    modes = facts_of(nn.Sequential(nn.Linear(6, 3), Noise()).double(), batches).modes
    assert modes.outputs == 0
    assert modes.loss_training == modes.loss_inference


def test_modes_are_what_the_network_answers_in_each():
    batches = classes()
    net = trained(network(nn.Dropout(0.5)), batches)
    modes = facts_of(net, batches).modes
    losses, apart, whole, right = [], 0.0, 0.0, [0, 0]
    with torch.no_grad():
        for x, y in batches:
            both = []
            for training in (True, False):
                twin = copy.deepcopy(net).eval()
                for module in twin:
                    module.training = training and isinstance(module, nn.BatchNorm1d)
                both.append(twin(x))
            losses.append([float(F.cross_entropy(outputs, y)) for outputs in both])
            apart += float((both[0] - both[1]).square().sum())
            whole += float((both[0] - both[0].mean(0)).square().sum())
            for mode in (0, 1):
                right[mode] += int((both[mode].argmax(1) == y).sum())
    losses = torch.tensor(losses, dtype=torch.float64)
    assert (modes.samples, modes.batches) == (128, 4)
    assert modes.outputs == pytest.approx(math.sqrt(apart / whole), rel=1e-9)
    assert [modes.loss_training, modes.loss_inference] == pytest.approx(losses.mean(0).tolist(), rel=1e-9)
    gaps = losses[:, 1] - losses[:, 0]
    assert modes.loss_error == pytest.approx(float(gaps.std()) / 2, rel=1e-6)
    assert [modes.accuracy_training, modes.accuracy_inference] == [count / 128 for count in right]


def test_without_a_target_only_outputs_are_compared():
    batches = tuple(x for x, _ in classes())
    modes = run_passes(Subject(network(), batches)).modes
    assert math.isnan(modes.loss_training)
    assert math.isnan(modes.accuracy_training)
    assert modes.outputs > 0


class Mixed(nn.Module):
    """Mixes samples without a normaliser."""

    def forward(self, x):
        return x - x.mean(0)


def test_company_names_the_normaliser_that_depends_on_the_batch():
    net = network()
    leaky = copy.deepcopy(net)
    leaky[1] = nn.BatchNorm1d(8, track_running_stats=False).double()
    batches = classes()
    x = batches[0][0]
    assert facts_of(net, batches).company.layers == ()
    assert facts_of(net, batches).company.outputs < 1e-12
    found = facts_of(leaky, batches).company
    assert [name for name, _ in found.layers] == ["1"]
    leaky.eval()
    with torch.no_grad():
        whole, halves = leaky(x), torch.cat([leaky(x[:16]), leaky(x[16:])])
    apart = (whole - halves).norm() / (whole - whole.mean(0)).norm()
    assert found.outputs == pytest.approx(float(apart), rel=1e-9)
    mixed = facts_of(nn.Sequential(net, Mixed()), batches).company
    assert mixed.outputs > 0.01
    assert mixed.layers == ()


class Alike(nn.Module):
    """Answers all samples alike but for the last digits, which change with the order of its sums."""

    def __init__(self, digits):
        super().__init__()
        self.digits = digits

    def forward(self, x):
        return 1 + 1e-14 * x + len(x) * self.digits


def test_company_takes_no_rounding_for_a_leak():
    """As in a fresh EfficientNet, whose answers to two images differ by less than its rounding."""
    eps = torch.finfo(torch.float64).eps
    assert facts_of(nn.Sequential(network(), Alike(eps)), classes()).company.outputs == 0
    assert facts_of(nn.Sequential(network(), Alike(10 * eps)), classes()).company.outputs > 1


def test_company_is_not_judged_where_the_first_axis_is_not_of_samples():
    rows = tuple((draw(5, 8, 6), torch.zeros(8, dtype=torch.long)) for _ in range(2))
    net = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4)).double()
    evidence = gather(Subject(net, rows, lambda outputs, y: F.cross_entropy(outputs[-1], y)))
    with pytest.raises(SkipError, match="first axis has 5, but the target's 8"):
        _ = evidence.company


def test_company_is_not_judged_where_half_a_batch_fails():
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False)).double()
    evidence = gather(Subject(net, (draw(2, 6), draw(2, 6))))
    with pytest.raises(SkipError, match="half a batch cannot be run: ValueError: Expected more than 1 value"):
        _ = evidence.company


def test_a_second_use_is_held_against_the_statistics_as_they_came():
    norm = nn.BatchNorm1d(6).double()
    x = 3 + 2 * draw(16, 6)
    found = run_passes(Subject(nn.Sequential(norm, norm), (x, x)))
    [facts] = found.moments()
    first = F.batch_norm(x, None, None, training=True)
    # the second is given what the first made, whose moments are 0 and almost 1: no gap
    apart = (first - x / math.sqrt(1 + 1e-5)).norm() ** 2
    assert facts.gap == pytest.approx(float((apart / (2 * first.norm() ** 2)).sqrt()), rel=1e-4)


def test_outputs_that_are_random_in_inference_are_no_leak():
    class Random(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, training=True)

    evidence = gather(Subject(nn.Sequential(network(), Random()), classes(), F.cross_entropy))
    with pytest.raises(SkipError, match="not the same when it is run again"):
        _ = evidence.company


def test_padding_is_held_against_the_other_positions():
    x = 3 + draw(4, 2, 10)
    padding = torch.arange(10) >= torch.tensor([10, 4, 6, 2])[:, None]
    x = x.masked_fill(padding[:, None], 0.0)
    norm = nn.BatchNorm1d(2).double()
    [facts] = run_passes(Subject(norm, (x,), padding=lambda batch: (batch == 0).all(1))).padding.facts()
    rows = x.transpose(1, 2).flatten(0, 1)
    clean = rows[~padding.flatten()]
    mean, variance = clean.mean(0), clean.var(0, unbiased=False)
    assert facts.share == 18 / 40
    shift = ((rows.mean(0) - mean).square() / (variance + 1e-5)).mean().sqrt()
    assert facts.mean_shift == pytest.approx(float(shift), rel=1e-9)
    y, own = F.batch_norm(rows, None, None, training=True), F.batch_norm(clean, None, None, training=True)
    apart = (y[~padding.flatten()] - own).norm() / own.norm()
    assert facts.gap == pytest.approx(float(apart), rel=1e-9)


@pytest.mark.parametrize("mask", [torch.zeros(4, 10), torch.zeros(4, dtype=torch.bool), None])
def test_a_padding_that_is_no_mask_is_refused(mask):
    subject = Subject(nn.BatchNorm1d(2), (torch.randn(4, 2, 10),), padding=lambda batch: mask)
    with pytest.raises(OptionError, match=r"padding\(batch\) must be a \(N, L\) tensor of bool, but is"):
        gather(subject)


class Checkpointed(nn.Module):
    """Runs a part anew in the backward."""

    def __init__(self, norm, *, reentrant):
        super().__init__()
        self.part, self.reentrant = nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU()), reentrant

    def forward(self, x):
        return checkpoint(self.part, x.requires_grad_(), use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["torch", "ours", "counted once", "used twice"])
def test_checkpointing_is_told_from_a_second_use(kind, reentrant):
    norm = (normwright.nn if kind == "ours" else nn).BatchNorm1d(8)
    net = Checkpointed(norm, reentrant=reentrant).double()
    if kind == "counted once":
        count_once(net)
    if kind == "used twice":
        net = nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 8), norm).double()
    evidence = gather(Subject(net, classes(), F.cross_entropy))
    [counts] = evidence.counts
    expected = {
        "torch": (1, 1, 2, 1),
        "ours": (1, 1, 1, 0),
        "counted once": (1, 1, 1, 0),
        "used twice": (2, 0, 2, 0),
    }
    assert (counts.runs, counts.recomputed, counts.moves, counts.moves_recomputed) == expected[kind]
    assert judge(all_rules()["double_update"], evidence)[0].outcome == (
        "finding" if kind == "torch" else "pass"
    )


def everything_of(subject):
    tensors = [*subject.network.state_dict().values(), *(x for batch in subject.batches for x in batch)]
    modes = [module.training for module in subject.network.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in subject.network.modules()]
    held = [v for state in subject.optimiser.state.values() for v in state.values()]
    return [tensor.clone() for tensor in (*tensors, *held, torch.get_rng_state())], modes, hooks


@pytest.mark.parametrize("fails", [False, True])
def test_the_subject_is_left_to_the_bit(fails):
    batches = classes()
    net = network(nn.Dropout(0.5))
    optimiser = torch.optim.Adam(net.parameters())
    F.cross_entropy(net(batches[0][0]), batches[0][1]).backward()
    optimiser.step()
    net[1].eval()

    def loss(outputs, y):
        if fails:
            raise RuntimeError("no such class")
        return F.cross_entropy(outputs, y)

    subject = Subject(net, batches, loss, optimiser)
    before = everything_of(subject)
    if fails:
        with pytest.raises(RuntimeError, match="no such class"):
            gather(subject)
    else:
        assert gather(subject).running[0].frozen
    after = everything_of(subject)
    assert all(map(torch.equal, before[0], after[0]))
    assert before[1:] == after[1:]


class Auxiliary(nn.Module):
    """Answers with more in training, as Inception does."""

    def __init__(self):
        super().__init__()
        self.inside = network()

    def forward(self, x):
        scores = self.inside(x)
        return {"scores": scores, "more": scores} if self.training else scores


def test_a_loss_that_takes_what_training_gives_is_not_known_in_inference():
    subject = Subject(Auxiliary().double(), classes(), lambda given, y: F.cross_entropy(given["scores"], y))
    evidence = gather(subject)
    assert math.isnan(evidence.modes.loss_inference)
    assert evidence.modes.outputs > 0
    assert len(evidence.losses) == 4


def test_a_loss_that_is_no_scalar_is_refused_all_the_same():
    with pytest.raises(OptionError, match="must be a scalar"):
        run_passes(Subject(network(), classes(), lambda scores, y: scores))


class OfEachSample(nn.Module):
    """Gives a tensor for each sample, as detectors do; with_mean makes it leak."""

    def __init__(self, with_mean):
        super().__init__()
        self.with_mean = with_mean

    def forward(self, x):
        return list((x - x.mean(0)) if self.with_mean else x)


@pytest.mark.parametrize("with_mean", [False, True])
def test_answers_of_each_sample_are_held_against_those_of_the_halves(with_mean):
    company = run_passes(Subject(OfEachSample(with_mean), (draw(8, 4),))).company
    assert (company.outputs > 0.1) is with_mean


def time_first(kind):
    torch.manual_seed(0)
    inside = {
        "recurrent": lambda: nn.LSTM(6, 6),
        "attention": lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0),
    }[kind]()
    return _TimeFirst(inside).double()


class _TimeFirst(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside, self.norm = inside, nn.LayerNorm(6)

    def forward(self, x):
        y = self.inside(x)
        return self.norm(y[0] if isinstance(y, tuple) else y)


@pytest.mark.parametrize("kind", ["recurrent", "attention"])
def test_time_on_the_first_axis_is_a_note_and_blames_no_layer_norm(kind):
    x = draw(40, 4, 6)  # more rows than are looked at of a layer norm
    subject = Subject(time_first(kind), (x,))
    assert run_passes(subject).company.layers == ()
    [finding] = judge(all_rules()["leak_across_batch"], gather_when_read(subject))[1]
    assert (finding.severity, finding.layer) == ("note", "")
    assert "halves along the second axis give the same" in finding.message


def test_a_layer_norm_after_a_leak_is_not_blamed():
    net = nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 6), nn.LayerNorm(6))
    company = run_passes(Subject(net.double(), (draw(160, 6),))).company
    assert [layer for layer, _ in company.layers] == ["0"]


def samples(*sizes):
    return tuple((draw(size, 6), torch.zeros(size, dtype=torch.long)) for size in sizes)


@pytest.mark.parametrize(
    ("sizes", "refused"), [((9, 9, 9, 9, 1, 9, 9), [4]), ((9, 9, 9, 9, 1, 1, 9), [4, 5])]
)
def test_only_batches_of_one_are_refused(sizes, refused):
    assert [found.place for found in facts_of(network(), samples(*sizes)).refused] == refused


def test_a_network_that_refuses_every_batch_in_either_mode_is_told_so():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4)).double()
    passes = run_passes(Subject(net, (draw(4, 3, 1, 1),)))
    assert [found.layer for found in passes.refused] == ["1"]
    assert "one value per channel" in passes.company.because


class Observed(nn.Module):
    """Keeps the range of each channel in a buffer that it gives a size, as observers of quantisation do."""

    def __init__(self):
        super().__init__()
        self.inside = network()
        self.register_buffer("greatest", torch.empty(0))

    def forward(self, x):
        self.greatest.resize_(x.shape[1]).copy_(x.detach().amax(0))
        return self.inside(x)


def test_a_buffer_that_changes_its_size_is_put_back():
    net = Observed()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    evidence = gather(Subject(net, classes(), F.cross_entropy, optimiser))
    assert len(evidence.losses) == 4
    assert evidence.covariate_shift
    assert net.greatest.shape == (0,)


def test_the_error_of_a_gap_keeps_the_digits_of_large_losses():
    """Of losses of 10,000 that float32 has to 0.001, as of sums over images."""
    comparison = Comparison()
    for step in range(4):
        comparison.add((draw(2, 3),), draw(2, 3), draw(2, 3), (0.0, 1e4 + 1e-4 * step, 0.0))
    assert comparison.facts().loss_error == pytest.approx(1e-4 * math.sqrt(5 / 3) / 2, rel=1e-6)
