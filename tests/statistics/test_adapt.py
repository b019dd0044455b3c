"""Statistics moved to a shifted domain. PEERS, "Adaptation at test time"."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from seen_inputs import assert_statistics
from tolerances import UNIT
from torch import nn
from torch.nn import functional as F
from whole_state import STATISTICS, FrozenBatchNorm2d, draw, same_state, small_network, state_of

import normwright as nw
from normwright.errors import CollapseError, DataError, OptionError
from normwright.statistics.blend import Evidence, chosen_share

SHAPES = {nn.BatchNorm1d: (5,), nn.BatchNorm2d: (5, 4, 6), nn.BatchNorm3d: (5, 2, 3, 4)}


def channels(x):
    return x.double().movedim(1, 0).flatten(1).numpy()


def source(kind=nn.BatchNorm1d, features=5):
    """A normaliser whose statistics are none of the defaults."""
    norm = kind(features).eval()
    norm.running_mean.copy_(torch.linspace(-1, 1, features))
    norm.running_var.copy_(torch.linspace(0.5, 2, features))
    return norm


@pytest.mark.parametrize("weight", [0, 6, 1000])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_blend_is_the_mixture_in_any_dimension(kind, weight):
    """PEERS: 2-D only; the blended variance forgets the difference of the means. arXiv:2006.16971."""
    norm = source(kind)
    mean, variance = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
    batches = [draw(n, *SHAPES[kind], seed=n) * 2 + 3 for n in (8, 4)]
    handle = nw.adapt(norm, batches, source_weight=weight)
    target = channels(torch.cat(batches))
    share = weight / (weight + 12)
    apart = np.square(mean - target.mean(1))
    assert_statistics(
        norm,
        share * mean + (1 - share) * target.mean(1),
        share * variance + (1 - share) * target.var(1) + share * (1 - share) * apart,
    )
    assert handle.layers[0].source_share == pytest.approx(share)
    assert handle.samples == 12


@pytest.mark.parametrize("method", ["zca", "iterative"])
@pytest.mark.parametrize("shape", [(), (4, 3)], ids=["vectors", "images"])
def test_whitening_blends_covariances_as_of_both_laid_end_to_end(shape, method):
    one, other = draw(16, 4, *shape).cumsum(1), draw(16, 4, *shape, seed=1) * 2 + 4
    kind = nw.nn.WhiteningNorm2d if shape else nw.nn.WhiteningNorm1d
    norm = kind(4, group_size=2, method=method).eval()
    nw.recalibrate(norm, [one])
    handle = nw.adapt(norm, [other[:6], other[6:]], source_weight=16)
    both = channels(torch.cat([one, other]))
    # The products of m positions are float32 within a call, and the source's statistics rounded to it.
    bound = (channels(one).shape[1] + 4) * UNIT[torch.float32] * np.square(both).sum(0).mean()
    expected = np.stack([np.cov(group, ddof=0) for group in np.split(both, 2)])
    assert np.abs(norm.running_covariance.double().numpy() - expected).max() <= bound
    assert np.abs(norm.running_mean.double().numpy() - both.mean(1)).max() <= bound
    assert handle.layers[0].source_share == 0.5
    before = channels(one).var(1) + norm.eps
    ratios = (both.var(1) + norm.eps) / before
    assert handle.layers[0].variance_ratio == pytest.approx((ratios.min(), ratios.max()), rel=1e-5)
    shift = np.abs(both.mean(1) - channels(one).mean(1)) / np.sqrt(before)
    assert handle.layers[0].mean_shift == pytest.approx(shift.max(), rel=1e-5)


def test_a_stream_is_whitened_by_its_own_covariances():
    x = (draw(64, 4) * 3).cumsum(1)
    norm = nw.nn.WhiteningNorm1d(4, affine=False, eps=1e-9).eval()
    before = state_of(norm)
    with nw.AdaptedStream(norm, source_weight=0) as adapted:
        y = adapted(x).double()
    assert same_state(state_of(norm), before)
    torch.testing.assert_close(y.T @ y / 64, torch.eye(4).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shift", [0, 0.3, 9])
def test_whitening_chooses_the_share_that_batch_norm_does(shift):
    source, target = ([part.cumsum(1) for part in draw(3, 40, 4, seed=seed)] for seed in (0, 1))
    shares = []
    for norm in (nw.nn.WhiteningNorm1d(4).eval(), nn.BatchNorm1d(4).eval()):
        nw.recalibrate(norm, source)
        handle = nw.adapt(norm, [part + shift for part in target])
        shares.append(handle.layers[0].source_share)
    assert shares[0] == pytest.approx(shares[1], rel=1e-5)


def test_the_blend_of_equal_parts_is_the_variance_of_both_laid_end_to_end():
    one, other = draw(16, 3), draw(16, 3, seed=1) + 4
    norm = nn.BatchNorm1d(3).eval()
    nw.recalibrate(norm, [one])
    nw.adapt(norm, [other], source_weight=16)
    both = channels(torch.cat([one, other]))
    # the source's statistics were rounded to float32 in between
    np.testing.assert_allclose(norm.running_var.numpy(), both.var(1), rtol=4 * 2.0**-24)


def evidence(x, mean):
    """Of (n, C, L) samples."""
    return Evidence.of_samples(x.mean(2), x.var(2, unbiased=False), x.shape[2], mean, 0.0)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.2, 1.0])
def test_the_chosen_weight_is_near_the_best(shift):
    """PEERS: the prior is one fixed number. The blend's error is compared with that of every fixed share."""
    generator = torch.Generator().manual_seed(0)
    zeros, ones = torch.zeros(64, dtype=torch.float64), torch.ones(64, dtype=torch.float64)
    truth = shift * torch.randn(64, generator=generator, dtype=torch.float64)
    losses, chosen = [], []
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    for _ in range(40):
        levels = 0.5 * torch.randn(8, 64, 1, generator=generator, dtype=torch.float64)
        x = levels + 0.75**0.5 * torch.randn(8, 64, 9, generator=generator, dtype=torch.float64)
        seen = evidence(x + truth[:, None], zeros)
        share = chosen_share(seen, zeros, ones)
        estimate = seen.elements.mean

        def loss(share, estimate=estimate):
            return float(((1 - share) * estimate - truth).square().sum())

        losses.append([loss(share) for share in grid])
        chosen.append(loss(share))
    best = float(torch.tensor(losses).mean(0).min())
    target_alone = float(torch.tensor(losses)[:, 0].mean())
    # The best fixed share knows the shift. Σ over 64 channels of a squared error has a relative deviation of
    # √(2/64); choosing from one batch costs about so much, and where there is no shift what is chosen is not
    # quite all of the source.
    assert np.mean(chosen) <= best * (1 + (2 / 64) ** 0.5) + 0.1 * target_alone
    assert np.mean(chosen) < 1.05 * target_alone


def test_each_layer_has_a_weight_of_its_own():
    """Per-layer choice: what shifts is adapted, what does not stays."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(32), nn.Linear(32, 32), nn.BatchNorm1d(32)).eval()
    nw.recalibrate(network, [draw(4096, 32)])
    handle = nw.adapt(network, [draw(256, 32, seed=1) + 2])
    first, second = handle.layers
    assert first.source_share < 0.05
    assert second.source_share > 0.5
    by_name = nw.adapt(network, [draw(64, 32)], source_weight={"0": 64, "2": 0})
    assert [layer.source_share for layer in by_name.layers] == [0.5, 0.0]


def test_only_the_layers_asked_for():
    network = small_network().eval()
    handle = nw.adapt(network, [draw(4, 3, 9, 9) + 2], layers=["1"])
    assert [layer.reason for layer in handle.layers] == ["", "not chosen"]
    assert torch.equal(network[4].running_mean, torch.zeros(6))


def test_a_later_layer_sees_what_the_adapted_one_makes():
    network = small_network().eval()
    x = draw(8, 3, 9, 9) * 3 + 2
    nw.adapt(network, [x], source_weight=8)
    with torch.no_grad():
        given = network[:4](x)
    target = channels(given)
    # The first normaliser used the statistics that it now holds; then by our kernel, now by PyTorch's.
    np.testing.assert_allclose(network[4].running_mean.numpy(), target.mean(1) / 2, rtol=1e-4, atol=1e-5)


def test_only_the_statistics_change_and_undo_brings_them_back():
    network = small_network()
    network[1].num_batches_tracked += 7
    network.append(nn.Dropout(0.5)).eval()
    before = state_of(network)
    handle = nw.adapt(network, [draw(4, 3, 9, 9)], source_weight=1)
    assert same_state(before, state_of(network), but=STATISTICS)
    assert not same_state(before, state_of(network))
    handle.undo()
    assert same_state(before, state_of(network))
    with nw.adapt(network, [draw(4, 3, 9, 9)], source_weight=1):
        assert not same_state(before, state_of(network))
    assert same_state(before, state_of(network))


def test_frozen_and_instance_norm_are_left_alone():
    network = nn.Sequential(
        FrozenBatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True), nn.BatchNorm2d(3)
    ).eval()
    handle = nw.adapt(network, [draw(4, 3, 9, 9)])
    assert [layer.reason for layer in handle.layers if layer.name in ("1", "2")] == [
        "normalises each sample by itself",
        "",
    ]
    assert torch.equal(network[0].running_mean, torch.zeros(3))
    assert torch.equal(network[1].running_mean, torch.zeros(3))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var)


def test_functional_calls_adapt():
    network, x = Functional().eval(), draw(16, 3) + 5
    nw.adapt(network, [x], source_weight=0)
    assert_statistics(network, channels(x).mean(1), channels(x).var(1))


# --- the guard


def prejudiced():
    """Answers class 0 or 1 by the sign of its input's first channel, after batch norm."""
    norm = nn.BatchNorm1d(2).eval()
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        linear.bias.zero_()
    return nn.Sequential(norm, linear).eval()


def raises(network, batches, error, match, **options):
    before = state_of(network)
    with pytest.raises(error, match=match):
        nw.adapt(network, batches, **options)
    assert same_state(before, state_of(network))


SIGNS = torch.tensor([[1.0, 3.0], [-1.0, 5.0]]).repeat(8, 1)


class Torn(nn.Module):
    """Its normaliser is used twice, and adapting to one use moves the other's inputs all one way."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.classes = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.classes.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))

    def forward(self, x):
        self.norm(x + 100)
        return self.classes(self.norm(x))


def test_predictions_all_of_one_class_are_refused():
    """PEERS: collapses after some epochs without a guard."""
    raises(
        Torn().eval(), [SIGNS], CollapseError, "all 16 predictions .* class 1, where .* predicts 2 classes"
    )


def test_a_source_that_says_one_class_too_is_no_collapse():
    network = prejudiced()
    handle = nw.adapt(network, [SIGNS.abs() + 1], source_weight=1e9)
    assert handle.report.judged == 1


def falling(count):
    """Batches whose predictions grow surer one by one."""
    return [(n + 1) * torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(8, 1) for n in range(count)]


def test_entropy_that_falls_without_end_is_refused():
    network = prejudiced()
    # with the source's statistics kept, each batch is surer than the last
    raises(network, falling(30), CollapseError, r"entropy fell 10 batches in a row", source_weight=1e9)
    nw.adapt(network, falling(10), source_weight=1e9)


def test_entropy_that_falls_by_little_is_no_collapse():
    batches = [(1 + 0.001 * n) * SIGNS for n in range(30)]
    assert nw.adapt(prejudiced(), batches, source_weight=1e9).samples == 480


@pytest.mark.parametrize(
    "wrap",
    [lambda y: (y, None), lambda y: {"logits": y}, lambda y: y.softmax(1)],
    ids=["tuple", "dict", "probabilities"],
)
def test_class_scores_are_found(wrap):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = prejudiced()

        def forward(self, x):
            return wrap(self.inner(x))

    raises(Wrapped().eval(), falling(30), CollapseError, "entropy", source_weight=1e9)


@pytest.mark.parametrize(
    ("found", "words"), [(torch.ones(4), r"a tensor \(4,\)"), ("scores", "str"), ([0.5, 0.5], "list")]
)
def test_what_is_no_class_scores_is_refused(found, words):
    network = prejudiced()
    before = state_of(network)
    with pytest.raises(OptionError, match=f"scores_of= must find class scores.*found {words}"):
        nw.adapt(network, falling(1), scores_of=lambda output: found)
    assert same_state(before, state_of(network))


def test_without_class_scores_the_report_says_that_nothing_guards():
    handle = nw.adapt(nn.BatchNorm1d(1).eval(), [draw(4, 1)])
    assert handle.report.judged == 0
    assert "nothing guards against a collapse" in str(handle)
    nw.adapt(prejudiced(), falling(30), source_weight=1e9, scores_of=lambda output: None)


# --- streams


def test_each_batch_is_predicted_by_statistics_that_it_has_moved():
    network = nn.Sequential(source(nn.BatchNorm1d, 3)).eval()
    before = state_of(network)
    with nw.AdaptedStream(network, source_weight=0) as adapted:
        for seed in range(3):
            x = draw(32, 3, seed=seed) * (seed + 1) + 10 * seed
            y = adapted((x, None))
            expected = F.batch_norm(x, None, None, training=True)
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    assert same_state(before, state_of(network))
    assert (adapted.batches, adapted.samples, adapted.refused) == (3, 96, 0)


def test_decay_keeps_some_of_what_came_before():
    network = source(nn.BatchNorm1d, 3)
    old, new = draw(8, 3) + 1, draw(8, 3, seed=1) - 3
    with nw.AdaptedStream(network, source_weight=0, decay=0.5) as adapted:
        adapted(old)
        y = adapted(new)
    weights = torch.cat([torch.full((8, 1), 0.5), torch.ones(8, 1)]).double() / 12
    both = torch.cat([old, new]).double()
    mean = (weights * both).sum(0)
    variance = (weights * (both - mean).square()).sum(0)
    torch.testing.assert_close(y.double(), (new - mean) / (variance + 1e-5).sqrt(), rtol=1e-5, atol=1e-5)


def test_a_stream_that_collapses_is_answered_by_the_source():
    network = Torn().eval()
    with torch.no_grad():
        expected = network(SIGNS)
    with nw.AdaptedStream(network) as adapted:
        with pytest.warns(UserWarning, match="all 16 predictions"):
            assert torch.equal(adapted(SIGNS), expected)
        assert torch.equal(adapted(SIGNS), expected)
    assert (adapted.batches, adapted.refused) == (2, 2)


def test_a_stream_of_a_network_without_numbers_is_refused():
    with pytest.raises(OptionError, match="on the device meta"):
        nw.AdaptedStream(nn.BatchNorm1d(2, device="meta"))


class TornInPlace(Torn):
    """Writes into the batch that it is given."""

    def forward(self, x):
        return super().forward(x.mul_(2))


def test_the_source_answers_the_batch_that_came_whatever_was_written_into_it():
    network = TornInPlace().eval()
    with torch.no_grad():
        expected = network(SIGNS.clone())
    with (
        nw.AdaptedStream(network) as adapted,
        pytest.warns(UserWarning, match="all 16 predictions"),
    ):
        assert torch.equal(adapted(SIGNS.clone()), expected)


class Faulty(nn.Module):
    """Passes on what it is given, or fails."""

    fails = False

    def forward(self, x):
        if self.fails:
            raise ConnectionError("a link is down")
        return x


def test_a_stream_goes_on_after_a_batch_that_failed():
    network, x = nn.Sequential(source(nn.BatchNorm1d, 3), Faulty()).eval(), draw(8, 3)
    with nw.AdaptedStream(network, decay=0.5) as adapted:
        adapted(x)
        with pytest.raises(DataError, match=r"in batch 2 .* channel 1 held NaN"):
            adapted(torch.tensor([[0.0, torch.nan, 0.0]]).repeat(4, 1))
        network[1].fails = True
        with pytest.raises(ConnectionError):
            adapted(x + 9)
        network[1].fails = False
        after = adapted(x)
    with nw.AdaptedStream(network, decay=0.5) as adapted:
        adapted(x)
        assert torch.equal(adapted(x), after)


def test_a_stream_is_used_as_a_context():
    adapted = nw.AdaptedStream(nn.BatchNorm1d(3).eval())
    with pytest.raises(OptionError, match="inside its context"):
        adapted(draw(4, 3))


# --- bad input


def test_a_stream_refuses_a_network_whose_calls_it_cannot_see():
    class ByHand(nn.BatchNorm1d):
        def forward(self, x):
            return (x - self.running_mean) / (self.running_var + self.eps).sqrt()

    with nw.AdaptedStream(ByHand(3).eval()) as adapted, pytest.raises(OptionError, match="arithmetic of its"):
        adapted(torch.randn(8, 3))


@pytest.mark.parametrize("training", [False, True])
def test_the_module_of_an_exported_program_acts_as_the_network_did(training):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)).double()
    network.append(nn.BatchNorm2d(4, dtype=torch.float64)).train(training)
    x = torch.randn(8, 2, 9, 9, dtype=torch.float64) * 3 + 1
    module = torch.export.export(network, (x,)).module()
    network.eval()
    with nw.AdaptedStream(network) as one, nw.AdaptedStream(module) as other:
        assert torch.equal(other(x), one(x))
    for act in (nw.adapt, nw.recalibrate):
        act(network, [x])
        act(module, [x])
        assert all(map(torch.equal, module.state_dict().values(), network.state_dict().values()))


@pytest.mark.parametrize("seed", range(3))
def test_one_sample_is_little_against_the_source(seed):
    norm = source()
    handle = nw.adapt(norm, [draw(1, 5, seed=seed)])
    assert handle.layers[0].source_share == 16 / 17


def test_an_empty_loader():
    raises(small_network().eval(), [], DataError, "at least one sample to adapt from")


def test_a_loader_that_raises_half_way():
    def loader():
        yield draw(4, 3, 9, 9)
        raise OSError("the disk is gone")

    raises(small_network().train(), loader(), OSError, "the disk is gone")


def test_nan_is_named_by_layer_and_batch():
    bad = draw(4, 3, 9, 9)
    bad[0, 0, 0, 0] = torch.nan
    raises(small_network().eval(), [draw(4, 3, 9, 9), bad], DataError, r"layer '1' .*in batch 2")


@pytest.mark.parametrize("network", [nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)], ids=str)
def test_nothing_to_adapt(network):
    raises(network, [draw(4, 3)], OptionError, "must have a normaliser that keeps statistics")


@pytest.mark.parametrize("weight", [-1.0, float("nan"), {"nowhere": 1.0}], ids=str)
def test_weights_out_of_range(weight):
    raises(nn.Sequential(nn.BatchNorm1d(3)), [draw(4, 3)], OptionError, "source_weight", source_weight=weight)


def test_a_decay_out_of_range():
    with pytest.raises(OptionError, match="decay must be at least 0 and less than 1"):
        nw.AdaptedStream(nn.BatchNorm1d(3), decay=1.0)


def test_the_report_is_plain_values():
    report = nw.adapt(nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2)).eval(), [draw(4, 2)]).report
    plain = json.loads(json.dumps(dataclasses.asdict(report)))
    assert plain["layers"][1]["reason"] == "keeps no statistics"
    assert str(report.table()).startswith(
        "1 of 2 normalisers moved to the target, from 4 samples in 1 batch."
    )
