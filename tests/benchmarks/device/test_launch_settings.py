"""Candidates of launch settings: what they are, how they are timed, and what the page makes of them."""

import argparse
import types
from dataclasses import dataclass

import pytest
import torch

from benchmarks import launch_settings
from benchmarks.cases import Case
from benchmarks.device import trials
from benchmarks.device.candidates import MOVES, candidates
from benchmarks.device.goals import DEVICE_HEADLINE
from benchmarks.device.trials import Trial, TrialResult, Tried, least_part_copies, run_trial
from normwright.backends.gradients import DBIAS, DRESIDUAL, DWEIGHT, DX

ROWS = Case("rms_norm", (8, 16), normalized_shape=(16,))
BATCH = Case("batch_norm", (8, 16, 2, 2), residual=True, activation="relu")


@dataclass(frozen=True)
class Tile:
    rows: int
    warps: int
    programs: int = 1


def test_candidates_begin_with_the_table_s_own():
    own = Tile(rows=1, warps=4)
    found = candidates(own)
    assert found[0] == own
    assert len(set(found)) == len(found)
    assert Tile(2, 4) in found
    assert Tile(2, 8) in found
    assert Tile(4, 4) not in found
    assert all(tile.rows >= 1 and tile.programs >= 1 for tile in found)


@dataclass(frozen=True)
class ChannelsTile:
    channels: int
    rows: int
    block: int
    ranges: int = 1
    warps: int = 8
    stages: int = 3


def test_two_moves_are_of_different_fields():
    found = candidates(ChannelsTile(channels=16, rows=4, block=16))
    assert {tile.block for tile in found} == {8, 16, 32}
    assert {(tile.channels, tile.block) for tile in found} >= {(8, 8), (32, 32)}
    assert {tile.stages for tile in found} == {1, 2, 3, 4}


def test_settings_of_another_kind_have_no_candidates_but_themselves():
    assert candidates(Case("batch_norm", (2, 2))) == [Case("batch_norm", (2, 2))]


@pytest.mark.parametrize(
    ("case", "part", "copies"),
    [(ROWS, "forward", 1.0), (ROWS, "backward", 1.5), (BATCH, "forward", 2.0), (BATCH, "backward", 3.0)],
)
def test_the_least_traffic_of_a_part(case, part, copies):
    assert least_part_copies(Trial(case, part)) == copies


@pytest.fixture
def kernels(monkeypatch):
    """Stands in for the rows family: a good tile, one that raises, and one whose result is wrong."""

    def rows_forward(x, *call, tile=None):
        if tile is not None and tile.warps == 8:
            raise RuntimeError("out of shared memory")
        y = x * (2 if tile is not None and tile.rows == 2 else 1)
        return y, y[:0]

    table = types.SimpleNamespace(rows_tile=lambda length, backward: Tile(1, 4))
    modules = {
        "rows": types.SimpleNamespace(rows_forward=rows_forward, rows_backward=None),
        "settings": table,
    }
    found = types.SimpleNamespace(import_module=lambda name: modules[name.rpartition(".")[2]])
    monkeypatch.setattr(trials, "importlib", found)


def test_a_trial_times_what_computes_the_same(kernels):
    result = run_trial(Trial(ROWS, "forward", device="cpu", seconds=0.0, least=2))
    assert result.own.settings == str(Tile(1, 4))
    assert result.own.fraction > 0
    trouble = {tried.settings: tried.trouble for tried in result.tried if tried.fraction is None}
    assert trouble[str(Tile(1, 8))] == "raises RuntimeError: out of shared memory"
    assert trouble[str(Tile(2, 4))] == "gives another result"
    assert str(Tile(1, 2)) not in trouble
    assert result.best.fraction == max(tried.fraction or 0.0 for tried in result.tried)


@pytest.mark.parametrize("part", ["forward", "backward"])
def test_the_table_of_the_kernels_has_settings_for_every_row(part):
    pytest.importorskip("triton")
    for case in DEVICE_HEADLINE:
        x = torch.empty(case.shape, dtype=case.torch_dtype, device="meta")
        x = x.contiguous(memory_format=case.memory_format)
        settings = trials.own_settings(Trial(case, part), x)
        assert type(settings).__name__ in MOVES
        assert len(candidates(settings)) > 1


def result(own, best):
    case = next(iter(DEVICE_HEADLINE))
    return TrialResult(
        Trial(case, "forward"), (Tried("own", own), Tried("other", best), Tried("bad", None, "raises"))
    )


@pytest.mark.parametrize(
    ("own", "best", "words"),
    [
        (0.80, 0.90, "80.0% -> 90.0% other"),
        (0.80, 0.81, "**0 of 1 rows"),
        (0.90, 0.50, "**0 of 1 rows"),
        (None, 0.50, " -> 50.0% other"),
    ],
)
def test_the_page_names_the_best_where_it_is_worth_it(own, best, words):
    outcome = launch_settings._outcome([result(own, best)], ["a trial: no time was left"])
    assert any(words in line for line in outcome.summary)
    assert "no time was left" in outcome.markdown
    assert "| bad |  | raises |" in outcome.markdown


def test_every_row_of_the_headline_is_tried_in_both_parts():
    options = argparse.Namespace(
        part=launch_settings.PARTS, device="cuda:1", most=24, rehearse=False, only=None
    )
    found = launch_settings.trials(options)
    assert len(found) == len(DEVICE_HEADLINE)
    assert {trial.device for trial in found} == {"cuda:1"}
    options.only = "batch_norm*backward"
    assert {trial.part for trial in launch_settings.trials(options)} == {"backward"}


def test_backward_arguments_are_in_the_order_of_the_schema():
    calls = {}

    def forward(*call, tile=None):
        calls["forward"] = call
        y = call[0]
        return y, y.new_zeros(2, 16), y.new_empty(3, dtype=torch.uint8)

    def backward(*call, tile=None):
        calls["backward"] = call
        return call[0]

    module = types.SimpleNamespace(channels_forward_masked=forward, channels_backward=backward)
    importlib = types.SimpleNamespace(import_module=lambda name: module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "importlib", importlib)
        inputs = trials.inputs_of(BATCH, torch.device("cpu"), seed=0)
        trials._launcher(Trial(BATCH, "backward"), inputs)(None)
    schema = {
        "forward": torch.ops.normwright.channels_forward_masked,
        "backward": torch.ops.normwright.channels_backward,
    }
    for part, packet in schema.items():
        assert len(calls[part]) == len(packet.default._schema.arguments)
    dy, x, residual, *_ = calls["backward"]
    assert torch.equal(dy, inputs.dy)
    assert torch.equal(x, inputs.x.detach())
    assert residual is None
    assert calls["backward"][-1] == DX | DRESIDUAL | DWEIGHT | DBIAS
