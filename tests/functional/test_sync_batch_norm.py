"""Synchronised batch norm in real processes is batch norm on their batches laid end to end.

PyTorch's does not run on the CPU (#78078).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import Call, name
from processes import WORLD, run_ranks
from shares import BATCHES, HARD, SECOND_SHARES, hard_call, masked_dy, second_case, second_derivatives, splits
from tolerances import RUNNING, SAME_DERIVATIVE, assert_within, rounded

from normwright.functional import batch_norm, sync_batch_norm
from normwright.reference import moving_average


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the processes saved."""
    return run_ranks(Path(__file__).with_name("shares.py"), tmp_path_factory.mktemp("ranks"))


def assert_right(call, seen):
    """seen: what each rank saved of one split of the call's batch."""
    dy = masked_dy(call).double().numpy()
    expected, bounds = call.expected(dy), call.analysis.gradients(dy, call.parameter_dtype)
    for what in ("y", "dx", "dresidual"):
        if what in seen[0]:
            joined = torch.cat([one[what] for one in seen])
            assert_within(joined, getattr(expected, what), getattr(bounds, what), what)
    for what in ("dweight", "dbias"):
        if what in seen[0]:
            parts = [one[what].double() for one in seen]
            bound = getattr(bounds, what)
            # each share's sum is rounded to the parameter's dtype
            bound = bound + sum(rounded(part.numpy(), call.parameter_dtype) for part in parts)
            assert_within(sum(parts), getattr(expected, what), bound, what)


def assert_running(call, seen):
    """The fourth batch of a cumulative mean; the same bits on every rank."""
    channels = call.x.double().transpose(0, 1).flatten(1).numpy()
    batch = moving_average([channels.mean(1)], [channels.var(1)], [channels.shape[1]], momentum=None)
    for what, moment in (("running_mean", batch.mean), ("running_var", batch.variance)):
        before = getattr(call, what).double().numpy()
        expected = before * 0.75 + moment * 0.25
        unit = RUNNING[torch.float32] if call.parameter_dtype.itemsize < 8 else RUNNING[torch.float64]
        # A share's mean is rounded, 2u·|mean|, as is that of all, and their distance, at most the deviation,
        # squared; the unbiased variance is at most twice the biased.
        apart = 16 * 2.0**-53 * np.abs(batch.mean) * np.sqrt(batch.variance) * 0.25
        size = 0.75 * np.abs(before) + 0.25 * np.abs(moment)
        with np.errstate(over="ignore"):  # beyond the dtype's range it is infinite
            expected = torch.tensor(expected).to(call.parameter_dtype).double().numpy()
        finite = np.isfinite(expected)
        actual = seen[0][what].double().numpy()
        assert (np.isfinite(actual) == finite).all()
        bound = unit * size + apart + rounded(np.where(finite, expected, 0), call.parameter_dtype)
        assert_within(torch.tensor(actual[finite]), expected[finite], bound[finite], what)
        assert torch.equal(seen[0][what], seen[1][what])
    assert seen[0]["batches"] == seen[1]["batches"] == 4


@pytest.mark.parametrize("place", range(len(BATCHES)), ids=lambda place: name(BATCHES[place]))
def test_forward_every_gradient_and_running_statistics(place, ranks):
    call = Call(BATCHES[place])
    for split in splits(call.x.shape[0]):
        seen = [rank["cases"][place][split] for rank in ranks]
        assert_right(call, seen)
        assert_running(call, seen)


@pytest.mark.parametrize("what", HARD)
def test_inputs_on_which_a_careless_formula_fails(what, ranks):
    call = hard_call(what)
    for split in splits(call.x.shape[0]):
        seen = [rank["hard"][list(HARD).index(what)][split] for rank in ranks]
        assert_right(call, seen)
        assert_running(call, seen)
        if what == "constant":
            assert all(not one["dweight"].any() for one in seen)


@pytest.mark.parametrize("activation", [None, "silu"])
def test_the_second_and_third_derivatives(activation, ranks):
    x, dy, v, weight = second_case(activation)
    expected = second_derivatives(batch_norm, x, dy, v, weight, activation)
    by_x, by_dy, by_weight, third = zip(*(rank["second"][str(activation)] for rank in ranks), strict=True)
    assert [len(part) for part in by_x] == list(SECOND_SHARES)
    for actual, model in zip(
        (torch.cat(by_x), torch.cat(by_dy), sum(by_weight), torch.cat(third)), expected, strict=True
    ):
        assert float((actual - model).abs().max()) <= SAME_DERIVATIVE * max(1.0, float(model.abs().max()))


def test_under_the_transforms_of_torch_func(ranks):
    """They refused that running statistics move, in words of their own."""
    for rank in ranks:
        found = rank["transformed"]
        model, gradient = found["gradients"]
        assert float((gradient - model).abs().max()) <= SAME_DERIVATIVE * float(model.abs().max())
        assert torch.equal(*found["running"])
        assert found["running"][0].ne(torch.tensor([[0.0], [1.0]])).all()
        for refused in found["refused"]:
            assert refused.startswith("OptionError: synchronised batch norm must not be mapped over")


def test_one_collective_forward_and_one_backward(ranks):
    expected = {"inference": 0, "forward": 1, "backward": 1, "parameters alone": 1, "a group of one": 0}
    assert [rank["collectives"] for rank in ranks] == [expected] * WORLD


def test_the_same_bits_with_every_number_of_threads(ranks):
    assert all(all(rank["threads"].values()) for rank in ranks)


def test_one_value_per_channel_over_all_processes(ranks):
    for rank, found in enumerate(ranks):
        assert found["one value"].startswith("ShapeError: Expected more than 1 value per channel")
        assert f"[{1 - rank}, 3]), and 1 over all processes" in found["one value"]


def test_nothing_on_any_process(ranks):
    for found in ranks:
        assert found["all empty"][0] == "nothing"
        assert found["all empty"][1].startswith("ShapeError: SyncBatchNorm number of input channels")


def test_what_is_not_finite_stays_in_its_channel(ranks):
    for found in ranks:
        assert found["poisoned"][:, 1].isnan().all()
        assert found["poisoned"][:, ::2].isfinite().all()


def test_in_one_process_it_is_batch_norm_to_the_bit():
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(3)
    for training in (True, False):
        running = [[torch.zeros(3), torch.ones(3)] for _ in range(2)]
        ours = sync_batch_norm(x, *running[0], ones, ones, training, 0.3, 1e-3, activation="gelu")
        model = batch_norm(x, *running[1], ones, ones, training, 0.3, 1e-3, activation="gelu")
        assert all(map(torch.equal, [ours, *running[0]], [model, *running[1]]))
