"""BatchNormLSTM's statistics: per time step, their cap, inference, and what was never seen."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sequences import EPS, UNITS, lstm_of, reference_of, sequences, weights_of
from tolerances import recurrent
from torch.utils.checkpoint import checkpoint

from normwright import nn
from normwright.errors import OptionError, ShapeError

PARTS = ("ih", "hh", "c")


def unbiased_of(moments, counts):
    """(T, C) each, of one of the three normalisers."""
    means = np.stack([step.mean for step in moments])
    variances = [step.variance * n / (n - 1) for step, n in zip(moments, counts, strict=True)]
    return means, np.stack(variances)


def close(got, expected):
    difference = np.abs(got.detach().numpy() - expected).max()
    assert difference <= recurrent(torch.float64, 6) * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("momentum", [0.1, 0.25, None])
@pytest.mark.parametrize("lengths", [[6, 6, 6, 6], [4, 6, 2, 6]], ids=str)
def test_each_step_has_running_statistics(momentum, lengths):
    module = lstm_of("BatchNormLSTM", bidirectional=True, momentum=momentum)
    counts = [sum(length > step for length in lengths) for step in range(6)]
    expected = {}
    for number in range(3):
        x = sequences(seed=number)
        *_, moments = reference_of(module, x, lengths)
        module(x, lengths=lengths)
        share = momentum if momentum is not None else 1 / (number + 1)
        for suffix, taken in moments.items():
            for part, of_part in zip(PARTS, zip(*taken, strict=True), strict=True):
                batch = unbiased_of(of_part, counts)
                before = expected.get((suffix, part), (np.zeros(1), np.ones(1)))
                moved = tuple(share * new + (1 - share) * old for new, old in zip(batch, before, strict=True))
                expected[suffix, part] = moved
    for (suffix, part), (mean, variance) in expected.items():
        norm = getattr(module, f"norm_{part}_{suffix}")
        close(norm.running_mean, mean)
        close(norm.running_var, variance)
        assert norm.num_batches_tracked.tolist() == [3] * 6


def test_inference_is_the_formula_with_running_statistics():
    module, lengths = lstm_of("BatchNormLSTM"), [4, 6, 2, 6]
    module(sequences(), lengths=lengths)
    module.eval()
    before = copy.deepcopy(module.state_dict())
    x = sequences(seed=9)
    output, (last, _) = module(x, lengths=lengths)
    weights = weights_of(module, "l0")
    statistics = {
        part: (norm.running_mean.numpy(), norm.running_var.numpy())
        for part, norm in zip(PARTS, module.children(), strict=True)
    }
    sigmoid = lambda value: 1 / (1 + np.exp(-value))  # noqa: E731

    def normalised(part, step, value, gain):
        mean, variance = statistics[part]
        return (value - mean[step]) / np.sqrt(variance[step] + EPS) * gain

    for row, length in enumerate(lengths):
        h = c = np.zeros(UNITS)
        for step in range(length):
            z = normalised("ih", step, weights.weight_ih @ x[step, row].numpy(), weights.gain_ih)
            z = z + normalised("hh", step, weights.weight_hh @ h, weights.gain_hh) + weights.bias
            i, f, g, o = np.split(z, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(normalised("c", step, c, weights.gain_c) + weights.bias_c)
            close(output[step, row], h)
        close(last[0, row], h)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    alone = module(x[:, 1:2])[0]
    close(alone[:, 0], output[:, 1].detach().numpy())  # nothing depends on its company


@pytest.mark.parametrize("training", [True, False])
def test_an_ensemble(training):
    x = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layers = [nn.BatchNormLSTM(2, 5, max_length=6, dtype=torch.float64) for _ in range(3)]
    for layer in layers:
        if not training:
            layer(x)
        layer.train(training)
    parameters, buffers = torch.func.stack_module_state(layers)
    alone_at_its_end = {"lengths": [4, 2, 2]}

    def call(*state):
        return torch.func.functional_call(layers[0], state, (x,), alone_at_its_end)[0]

    several = torch.vmap(call)(parameters, buffers)
    torch.testing.assert_close(several, torch.stack([layer(x, **alone_at_its_end)[0] for layer in layers]))
    for name, found in buffers.items():
        torch.testing.assert_close(found, torch.stack([layer.get_buffer(name) for layer in layers]))


def test_past_the_cap_the_last_step_s_statistics_serve():
    """In training each later step moves them in turn; in inference they stand for all."""
    capped, whole = (lstm_of("BatchNormLSTM", max_length=cap) for cap in (3, 6))
    x = sequences()
    assert torch.equal(capped(x)[0], whole(x)[0])  # training normalises every step by itself
    for ours, theirs in zip(capped.children(), whole.children(), strict=True):
        assert torch.equal(ours.running_mean[:2], theirs.running_mean[:2])
        assert ours.num_batches_tracked.tolist() == [1, 1, 4]
        start = torch.zeros(1).double(), torch.ones(1).double()
        for name, value in zip(("running_mean", "running_var"), start, strict=True):
            moved = getattr(theirs, name)[2:]  # 0.1·batch + 0.9·start
            for step in moved:
                value = 0.9 * value + (step - 0.9 * start[0 if name == "running_mean" else 1])
            close(getattr(ours, name)[2], value.numpy())
    capped.eval()
    with torch.no_grad():
        for norm, other in zip(capped.children(), whole.children(), strict=True):
            rows = [0, 1, 2, 2, 2, 2]
            other.running_mean.copy_(norm.running_mean[rows])
            other.running_var.copy_(norm.running_var[rows])
    assert torch.equal(capped(x)[0], whole.eval()(x)[0])
    long = sequences(40)
    assert capped(long)[0].shape == (40, 4, UNITS)


def test_a_cap_of_one_shares_the_statistics_among_all_steps():
    module = lstm_of("BatchNormLSTM", max_length=1)
    module(sequences())
    assert module.norm_hh_l0.running_mean.shape == (1, 4 * UNITS)
    assert module.norm_hh_l0.num_batches_tracked.tolist() == [6]


def test_sequences_longer_than_training_has_seen():
    module = lstm_of("BatchNormLSTM", max_length=10)
    module.eval()(sequences(12))  # fresh: the statistics that it starts with, as batch norm's
    module.train()(sequences(6))
    module.eval()
    module(sequences(6))
    for steps in (7, 12):
        with pytest.raises(ShapeError, match=f"at most 6 steps.*one has {steps}.*max_length=10"):
            module(sequences(steps))
    with pytest.raises(ShapeError, match="at most 6 steps long in inference"):
        module(sequences(7), lengths=[7, 3, 2, 1])
    module(sequences(8), lengths=[6, 3, 2, 1])  # what lies past the lengths is no step
    module.train()(sequences(12))
    module.eval()(sequences(30))


def test_a_lone_sequence_at_the_end_takes_the_running_statistics():
    """One value has no variance over the batch: normalised by itself, a sequence would lose what it holds."""
    module, lengths = lstm_of("BatchNormLSTM"), [3, 6, 2, 3]
    module(sequences())  # every step seen
    twin = copy.deepcopy(module)
    x = sequences(seed=4)
    output = module(x, lengths=lengths)[0].detach()
    for norm, other in zip(module.children(), twin.children(), strict=True):
        assert norm.num_batches_tracked.tolist() == [2, 2, 2, 1, 1, 1]
        assert torch.equal(norm.running_mean[3:], other.running_mean[3:])
    tail = twin.eval()
    for norm, source in zip(tail.children(), module.children(), strict=True):
        for name in ("running_mean", "running_var"):
            getattr(norm, name).copy_(getattr(source, name).roll(-3, 0))
    with torch.no_grad():
        first = lstm_of("BatchNormLSTM")
        whole, (h, c) = first(x[:3], lengths=[3, 3, 2, 3])
        close(whole, output[:3].numpy())
        rest, _ = tail(x[3:, 1:2], (h[:, 1:2], c[:, 1:2]))
    close(rest[:, 0], output[3:, 1].numpy())


def test_a_lone_sequence_at_a_step_never_seen_takes_the_last_one_seen():
    module = lstm_of("BatchNormLSTM")
    output, _ = module(sequences(), lengths=[6, 3, 3, 3])
    assert module.norm_c_l0.num_batches_tracked.tolist() == [1, 1, 1, 0, 0, 0]
    output.sum().backward()
    assert output.isfinite().all()
    assert output[3:, 0].abs().min() > 0
    for parameter in module.parameters():
        assert parameter.grad.isfinite().all()


def test_a_batch_of_one():
    module = lstm_of("BatchNormLSTM")
    before = copy.deepcopy(module.state_dict())
    for x in (sequences(batch=1), sequences(batch=1)[:, 0]):
        with pytest.raises(ShapeError, match=r"more than 1 value per channel.*a batch of 1"):
            module(x)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert module.eval()(sequences(batch=1))[0].shape == (6, 1, UNITS)


def test_frozen_normalisers_keep_their_statistics_in_training():
    module = lstm_of("BatchNormLSTM")
    module(sequences())
    module.norm_hh_l0.eval()
    before = copy.deepcopy(module.state_dict())
    module(sequences(seed=2))
    after = module.state_dict()
    assert torch.equal(after["norm_hh_l0.running_mean"], before["norm_hh_l0.running_mean"])
    assert not torch.equal(after["norm_ih_l0.running_mean"], before["norm_ih_l0.running_mean"])


def test_under_activation_checkpointing_statistics_move_once():
    module, twin, x = lstm_of("BatchNormLSTM"), lstm_of("BatchNormLSTM"), sequences().requires_grad_()
    checkpoint(lambda x: module(x)[0], x, use_reentrant=False).sum().backward()
    twin(x)[0].sum().backward()
    for one, other in zip(module.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(module.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    output = checkpoint(lambda x: module(x, lengths=[6, 3, 2, 3])[0], x, use_reentrant=False)
    with pytest.raises(OptionError, match="alone at its end cannot be run again"):
        output.sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length must be at least 1 and a whole number, but is 0"),
        ({"momentum": 1.5}, "momentum must lie between 0 and 1"),
    ],
)
def test_bad_constructors(options, message):
    with pytest.raises(OptionError, match=message):
        nn.BatchNormLSTM(3, 5, **options)
