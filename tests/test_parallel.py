"""Sharded tensors, spread networks, groups, wrappers and pipelines in two real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processes import run_ranks
from tolerances import SAME_DERIVATIVE


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the processes saved."""
    return run_ranks(Path(__file__).with_name("parallel_process.py"), tmp_path_factory.mktemp("ranks"))


def close(one, other):
    # float64; the number of sums stands for the order of the derivative
    return float((one - other).abs().max()) <= SAME_DERIVATIVE * max(1.0, float(other.abs().max()))


def test_a_layer_on_a_sharded_input_is_the_layer_on_all_of_it(ranks):
    for rank in ranks:
        for case, found in rank["layers"].items():
            for one, other in zip(found["together"], found["alone"], strict=True):
                assert close(one.double(), other.double()), case


def test_a_sharded_output_tells_how_it_lies(ranks):
    """A slice of a DTensor gave one that told the slice's strides, so that it could not be viewed."""
    for rank in ranks:
        for way, (told, alone) in rank["strides"].items():
            assert told == alone, way


REFUSED = {
    "filter responses": "the input of filter response norm with a threshold or a learned eps must be",
    "LSTM": "the input of a normalised LSTM must be a plain tensor",
    "ghost": "the input of ghost, split and masked batch norm must be a plain tensor",
    "renormalised": "the input of batch renormalisation must be a plain tensor",
    "synchronised": "the input of synchronised batch norm must be a plain tensor",
    "whitening": "the input of whitening must be a plain tensor",
    "plain weight": "weight, bias and residual must be DTensors where the input is one",
    "plain statistics": "running statistics must be replicated DTensors where the input is a DTensor",
    "out": "out= must be None with a DTensor",
    "plain input of batch norm": "the input must be a DTensor where weight is one, but is a plain tensor",
    "plain input of RMS norm": "the input must be a DTensor where weight is one, but is a plain tensor",
    "plain input of tanh": "the input must be a DTensor where weight is one, but is a plain tensor",
    "plain input and a residual": "the input must be a DTensor where residual is one, but is a plain tensor",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_done_with_sharded_tensors_is_said(case, ranks):
    for rank in ranks:
        assert rank["refused"][case].startswith(f"OptionError: {REFUSED[case]}")


def test_an_accelerated_block_in_sequence_parallelism_has_the_gradients_of_one_process(ranks):
    for rank in ranks:
        found = rank["tensor parallel"]
        for name, gradient in found["alone"].items():
            assert close(found["together"][name], gradient), name


def test_a_spread_network_in_bfloat16_has_the_gradients_of_float32(ranks):
    """PyTorch's batch norm refuses parameters in bfloat16 beside statistics in float32, as these are."""
    for rank in ranks:
        found = rank["in bfloat16"]
        assert found["bfloat16"].keys() == found["float32"].keys()
        for name, gradient in found["float32"].items():
            if name == "0.bias":  # before batch norm: what is left is rounding
                continue
            error = found["bfloat16"][name] - gradient
            assert float(error.norm()) <= 0.05 * float(gradient.norm()), name


def test_a_monitor_reads_the_norms_of_all_shards(ranks):
    for rank in ranks:
        for name, read in rank["watched"]["spread"].items():
            for one, other in zip(read, rank["watched"]["whole"][name], strict=True):
                assert one == pytest.approx(other, rel=1e-4, abs=1e-6), name


def test_a_monitor_reads_no_norms_of_pieces(ranks):
    """Each process told those of its own piece, as if they were the whole parameters'."""
    for found in (way for rank in ranks for way in rank["watched flat"]):
        assert "FullyShardedDataParallel flattens the parameters" in found["gradients"]
        assert "FullyShardedDataParallel flattens the parameters" in found["layer gradients"]
        assert any(layer.endswith("1") for layer in found["heard"])


def test_a_monitor_of_shards_in_one_process_is_refused_and_not_left_waiting(ranks):
    assert "watched in each of them" in ranks[0]["watched by the first"][0]
    assert "but 1 of 2 watch" in ranks[0]["watched by the first"][0]
    assert ranks[1]["watched by the first"][0] == "nothing"


def test_a_second_try_of_all_is_not_counted_with_the_first(ranks):
    """The processes' numbers had come apart: one refused for ever, and the other waited for it."""
    assert [rank["watched by the first"][1] for rank in ranks] == ["nothing", "nothing"]


def test_recalibrating_a_spread_network_is_recalibrating_the_whole(ranks):
    for rank in ranks:
        found = rank["recalibrated"]
        for one, other in zip(found["spread"], found["whole"], strict=True):
            assert torch.equal(one, other)


def test_unequal_shares_of_a_spread_network_are_an_error_in_every_process(ranks):
    """One would wait in its forward, and the other for its share."""
    for rank in ranks:
        found = rank["recalibrated"]
        assert found["unequal"].startswith("RankError: every process of the group must have as many batches")
        assert "rank 0 has no more where rank 1 has one" in found["unequal"]
        assert found["as it was"]


def test_reading_of_a_spread_network_ends_when_every_process_has_enough(ranks):
    """The one that had enough first was told to have no more batches."""
    assert [rank["recalibrated"]["read"][0] for rank in ranks] == [16, 16]
    assert ranks[0]["recalibrated"]["read"][1] == "the 4 samples asked for were reached"


def test_without_a_group_a_spread_network_is_told_to_need_as_many_batches(ranks):
    """Those without a batch were aborted where the others waited in their forward."""
    for rank in ranks:
        (warning,) = rank["recalibrated"]["warned"]
        assert "have fewer batches, since fully_shard spread the network" in warning
        assert "Pass process_group=torch.distributed.group.WORLD" in warning


def test_a_forward_that_fails_in_one_process_tells_what_failed(ranks):
    """It was aborted with its error unsaid, since what it told the others met the collective they were in."""
    assert ranks[1]["broken off"]["error"] == "ArithmeticError: the forward failed"
    assert ranks[0]["broken off"]["error"].startswith("RuntimeError: ")
    assert all(rank["broken off"]["as it was"] for rank in ranks)


def test_a_guard_of_one_process_does_not_wait_for_the_others_in_a_forward_of_its_own(ranks):
    """A spread network's forward waits for all, but one process alone asked what the source answers."""
    for rank in ranks:
        for what in ("statistics", "answers"):
            one, other = rank["adapted"][what]
            assert torch.equal(one, other), what


@pytest.mark.parametrize("verb", ["fold", "diagnose"])
def test_what_copies_a_network_says_that_a_spread_one_cannot_be(verb, ranks):
    for rank in ranks:
        assert "but fully_shard spread its parameters over processes" in rank["recalibrated"][verb]


def test_synchronising_batch_norm_comes_before_fully_shard(ranks):
    for rank in ranks:
        assert "must be synchronised before fully_shard" in rank["recalibrated"]["synchronise"]


def test_a_group_must_be_one_of_this_process(ranks):
    assert ranks[0]["grouped"]["outside"] == "nothing"
    assert "is one that this process is not in" in ranks[1]["grouped"]["outside"]
    for rank in ranks:
        assert "must be a torch.distributed.ProcessGroup" in rank["grouped"]["no group"]


def test_a_copy_shares_the_process_group(ranks):
    assert [rank["grouped"]["copied"] for rank in ranks] == [True, True]


def test_the_doctor_waits_for_nobody_that_does_not_come(ranks):
    for rank in ranks:
        assert "must have as many batches where batch norm is synchronised" in rank["grouped"]["unequal"]
        assert "2 / 3" in rank["grouped"]["unequal"]
        assert rank["grouped"]["without"].startswith("OptionError: process_group must be given")
    assert "rank 1 failed: DataError: batches must hold" in ranks[0]["grouped"]["one fails"]
    assert ranks[1]["grouped"]["one fails"].startswith("DataError: batches must hold")


def test_converting_what_is_wrapped_refuses_what_the_wrapper_would_not_know(ranks):
    for rank in ranks:
        assert "'module.1.weight' would be a new one" in rank["wrapped"]["new parameters"]
        assert "must keep a buffer" in rank["wrapped"]["no buffers"]
        assert rank["wrapped"]["same parameters"] == "nothing"


def test_a_normaliser_that_is_sharded_by_itself_is_told_as_such(ranks):
    """What was told was a __deepcopy__ of its own, which is fully_shard's."""
    for rank in ranks:
        assert "fully_shard was called on it itself: convert the network first" in rank["wrapped"]["sharded"]
        assert "called on it itself: accelerate the network first" in rank["wrapped"]["accelerated"]


def test_optimisers_of_several_processes(ranks):
    for rank in ranks:
        assert rank["optimised"]["zero"] == "nothing"
        assert "PostLocalSGDOptimizer does not" in rank["optimised"]["local"]


def test_a_traced_stage_has_its_gradients(ranks):
    for rank in ranks:
        plain, accelerated = rank["staged"]["plain"], rank["staged"]["accelerated"]
        assert plain.keys() == accelerated.keys()
        for name, value in plain.items():
            torch.testing.assert_close(accelerated[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_traced_stage_that_would_have_wrong_gradients_says_so(ranks):
    for rank in ranks:
        assert "must not train synchronised batch norm" in rank["synchronised stage"]
