"""SyncBatchNorm in two real processes trains as BatchNorm does in one, on the joined batch.

PyTorch's does not run on the CPU (#78078), nor compile whole (#156680).
"""

from pathlib import Path

import pytest
import torch
from processes import WORLD, run_ranks
from synchronised import SHARES, WAYS, alone, assert_as_in_one_process, close, images

from normwright import nn
from normwright.errors import OptionError


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the processes saved."""
    return run_ranks(Path(__file__).with_name("synchronised.py"), tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def joined():
    """The state after the same steps in one process."""
    return alone()


@pytest.mark.parametrize("way", WAYS)
def test_parameters_and_statistics_are_those_of_one_process(way, ranks, joined):
    assert_as_in_one_process(way, ranks, joined)


def test_accumulating_over_micro_batches_and_ranks(ranks):
    everything = torch.cat([images(step) for step in range(len(SHARES))]).transpose(0, 1).flatten(1)
    mean = 0.1 * everything.mean(1)
    variance = 0.9 + 0.1 * everything.var(1)
    for seen in ranks:
        assert close(seen["accumulated"][0], mean)
        assert close(seen["accumulated"][1], variance)
        assert seen["accumulated"][2] == 1


def test_a_copy_has_the_same_group(ranks):
    assert [seen["copies"] for seen in ranks] == [True] * WORLD


def test_who_is_alone_in_the_group_or_outside_it_normalises_alone(ranks):
    assert [seen["of the first"] for seen in ranks] == [True] * WORLD


def test_a_process_that_does_not_come_is_an_error_within_the_time_limit(ranks):
    assert "Timed out waiting 1000ms" in ranks[0]["left alone"]


def test_a_process_that_dies_is_an_error(ranks):
    assert "127.0.0.1" in ranks[0]["died"]  # a connection's, as gloo words it


# What follows needs no second process.


def test_converting_keeps_what_the_module_holds():
    old = nn.BatchNorm2d(3, momentum=None, activation="relu").eval()
    old.weight.requires_grad_(False)
    seen = []
    old.register_forward_hook(lambda *_: seen.append(1))
    part = torch.nn.ModuleList([old, torch.nn.Sequential(old, torch.nn.BatchNorm1d(3))])
    assert nn.SyncBatchNorm.convert_sync_batchnorm(part, process_group=None) is part
    new = part[0]
    assert type(new) is nn.SyncBatchNorm
    assert part[1][0] is new
    assert type(part[1][1]) is nn.SyncBatchNorm
    assert part[1][1].activation is None
    assert all(one is other for one, other in zip(new.parameters(), old.parameters(), strict=True))
    assert new.running_var is old.running_var
    assert (new.training, new.momentum, new.activation) == (False, None, "relu")
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(new(x), old(x))
    assert seen == [1, 1]
    new.weight = None
    assert old.weight is not None


def test_hooks_of_a_converted_module_know_the_new_one_and_can_be_removed():
    """Loading a state raised that a hook's module is dead, and a handle removed nothing."""
    part = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    seen = []
    part[0].register_load_state_dict_pre_hook(lambda module, *_: seen.append(module))
    handle = part[0].register_forward_hook(lambda *_: seen.append("called"))
    nn.SyncBatchNorm.convert_sync_batchnorm(part)
    part.load_state_dict(part.state_dict())
    handle.remove()
    part(torch.randn(2, 3))
    assert seen == [part[0]]


def test_converting_a_batch_norm_itself_or_a_synchronised_one():
    new = nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.SyncBatchNorm(3), "a group")
    assert (type(new), new.process_group) == (nn.SyncBatchNorm, "a group")
    again = nn.SyncBatchNorm.convert_sync_batchnorm(new, "another")
    assert (again.process_group, new.process_group) == ("another", "a group")


class Scaled(torch.nn.BatchNorm2d):
    """A subclass with a behaviour of its own."""

    def forward(self, x):
        return super().forward(x) * 2


def test_converting_a_subclass_would_lose_its_behaviour():
    """#187298: dropped in silence, a network that had trained to 0.82 was exported at 0."""
    part = torch.nn.Sequential(torch.nn.BatchNorm2d(3), Scaled(3))
    with pytest.raises(OptionError, match=r"'1' is a .*Scaled, whose behaviour would be lost"):
        nn.SyncBatchNorm.convert_sync_batchnorm(part)
    assert type(part[0]) is torch.nn.BatchNorm2d
