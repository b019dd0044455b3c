"""Rivals are found where they are installed; where they are not, or fail, that is said."""

import sys
import types
from dataclasses import replace

import pytest
import torch

from benchmarks.cases import Case
from benchmarks.device import measure, rivals
from benchmarks.device.measure import Job, measure_job
from benchmarks.device.rivals import Rival, offers, presence
from benchmarks.device.speed_table import notes, speed_table

ROWS = Case("rms_norm", (8, 16), normalized_shape=(16,), mode="forward")


def module(name, monkeypatch, **members):
    found = types.ModuleType(name)
    vars(found).update(members)
    monkeypatch.setitem(sys.modules, name, found)


def test_a_rival_that_is_not_installed():
    here = presence(Rival("liger", "no_such_library.ops", rivals.liger))
    assert not here.installed
    assert here.words == "not installed"


def test_a_rival_whose_own_needs_are_not_installed(tmp_path, monkeypatch):
    (tmp_path / "half_a_library.py").write_text("import no_such_library.deep")
    (tmp_path / "broken_library.py").write_text("raise OSError('no driver')")
    monkeypatch.syspath_prepend(tmp_path)
    words = [presence(Rival("x", name, rivals.quack)).words for name in ("half_a_library", "broken_library")]
    assert words == [
        "needs no_such_library, which is not installed",
        "import raises OSError: no driver",
    ]


def test_a_rival_that_is_installed(monkeypatch):
    module("some_library", monkeypatch, __version__="1.2")
    assert presence(Rival("x", "some_library", rivals.quack)).words == "1.2"


def test_what_is_offered_and_why_the_others_are_absent(monkeypatch):
    module("some_library", monkeypatch, fused_rms_norm_affine=lambda x, weight, shape, eps: x * 2)
    listed = (Rival("apex", "some_library", rivals.apex), Rival("liger", "no_such_library", rivals.liger))
    monkeypatch.setattr(rivals, "RIVALS", listed)
    found, absent = offers(ROWS)
    assert list(found) == ["apex"]
    assert absent == {"liger": "not installed"}
    found, absent = offers(Case("batch_norm", (4, 4)))
    assert not found
    assert absent == {"apex": "has nothing for this case", "liger": "not installed"}


FORMULAS = {
    "LigerLayerNormFunction": ("layer_norm", {"normalized_shape": (16,)}),
    "LigerRMSNormFunction": ("rms_norm", {"normalized_shape": (16,)}),
    "LigerGroupNormFunction": ("group_norm", {"groups": 2}),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_liger_is_asked_for_what_it_has(name):
    calls = []
    function = types.SimpleNamespace(apply=lambda *call: calls.append(call) or call[0])
    library = types.SimpleNamespace(**{name: function})
    operator, options = FORMULAS[name]
    case = Case(operator, (4, 8, 16), **options)
    contender = rivals.liger(library, case)
    contender(measure.inputs_of(case, torch.device("cpu"), seed=0))
    assert len(calls) == 1
    assert rivals.liger(library, replace(case, residual=True)) is None


def test_a_rival_that_raises_is_told_and_stops_nobody(monkeypatch):
    def refuse(*_):
        raise ValueError("a multiple of 8, please")

    module("some_library", monkeypatch, fused_rms_norm_affine=refuse)
    monkeypatch.setattr(rivals, "RIVALS", (Rival("apex", "some_library", rivals.apex),))
    rows = measure_job(Job((ROWS, replace(ROWS, mode="step")), device="cpu", seconds=0.0, least=2))
    assert [set(row.seconds) for row in rows] == [{"copy", "ours", "eager"}] * 2
    assert rows[0].absent == {"apex": "raises ValueError: a multiple of 8, please"}
    assert "apex: raises ValueError: a multiple of 8, please, every row" in notes(rows)
    assert len(speed_table(rows).splitlines()) == 4
