"""`compare` of the report is `compare` of the lab, and leaves three files."""

from __future__ import annotations

import dataclasses
import inspect
import json
import stat

import pytest

from normwright.errors import OptionError, StoreError
from normwright.lab import compare as lab
from normwright.lab.records import Interval
from normwright.report.comparison import compare, write_files
from normwright.report.markdown import to_markdown

SMALL = {"norms": ("none", "batch"), "lrs": (1.0,), "seeds": 1, "epochs": 1, "jobs": 1}
FILES = ("report.html", "table.md", "comparison.json")
SIZE = {"depth": 1, "width": 4, "records": 2}


def test_arguments_are_those_of_the_lab():
    assert inspect.signature(compare) == inspect.signature(lab.compare)
    assert compare.__annotations__ == lab.compare.__annotations__


def test_help_tells_the_files_and_the_arguments():
    what, _, arguments = inspect.getdoc(compare).partition("\nArgs:\n")
    assert all(name in what for name in ("report.html", "table.md", "comparison.json"))
    assert "batch_sizes: samples per training step." in arguments


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_no_comparison_made_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    stages = []
    with pytest.raises(OptionError, match=f"holds a {name} and no experiment: choose another"):
        compare(out=tmp_path, on_stage=stages.append, **SMALL, **SIZE)
    assert stages == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_files_hold_what_is_returned(tmp_path):
    stages = []
    found = compare(out=tmp_path, on_stage=stages.append, **SMALL, **SIZE)
    assert stages[-1] == "writing the report"
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == to_markdown(found)
    records = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert records == json.loads(found.to_json(curves=True))
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert list(tmp_path.glob("*.tmp")) == list(tmp_path.glob(".*.tmp")) == []


def test_files_of_a_name_that_the_locale_cannot_hold_are_written(make_comparison, tmp_path):
    write_files(make_comparison(network="n\udcc3\udca4ts.py:net", data="d\udce4ta.py:load"), tmp_path)
    for name in ("report.html", "table.md"):
        assert "näts.py:net on d\ufffdta.py:load" in (tmp_path / name).read_text(encoding="utf-8")


def test_json_has_no_number_that_json_lacks(make_comparison):
    comparison = make_comparison()
    row = dataclasses.replace(comparison.rows[0], test=Interval(float("nan"), float("-inf"), float("inf"), 3))
    text = dataclasses.replace(comparison, rows=(row,)).to_json(curves=True)

    def refuse(name):
        raise AssertionError(name)

    (found,) = json.loads(text, parse_constant=refuse)["rows"]
    assert found["test"] == {"mean": None, "low": None, "high": None, "count": 3}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_link_stays_one(make_comparison, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).symlink_to("elsewhere/it")
    write_files(make_comparison(), tmp_path)
    assert (tmp_path / name).is_symlink()
    assert (tmp_path / "elsewhere" / "it").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_a_link_that_leads_nowhere_is_told_before_the_work(tmp_path, name):
    (tmp_path / name).symlink_to("gone/it")
    stages = []
    with pytest.raises(StoreError, match=f"{name} must be in a folder that exists, but is a link into"):
        compare(out=tmp_path, on_stage=stages.append, **SMALL, **SIZE)
    assert not stages


@pytest.mark.parametrize("name", FILES)
def test_file_that_cannot_be_written_is_told_and_leaves_no_draft(make_comparison, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=f"{name}.* cannot be written"):
        write_files(make_comparison(), tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_where_the_report_cannot_be_written_the_runs_are_kept_and_it_is_told_how_it_is_made_of_them(tmp_path):
    compare(out=tmp_path, **SMALL, **SIZE)
    (tmp_path / "table.md").unlink()
    (tmp_path / "table.md").mkdir()
    with pytest.raises(StoreError, match=r"table.md .* All runs are done and kept in .*: the same command"):
        compare(out=tmp_path, **SMALL, **SIZE)
    (tmp_path / "table.md").rmdir()
    stages = []
    compare(out=tmp_path, on_stage=stages.append, **SMALL, **SIZE)
    assert any("2 of them done already" in stage for stage in stages)
    assert (tmp_path / "table.md").is_file()


def test_folder_that_is_gone_is_told(make_comparison, tmp_path):
    with pytest.raises(StoreError, match="a folder that exists"):
        write_files(make_comparison(), tmp_path / "gone")


def test_new_files_replace_old_ones_whole(make_comparison, tmp_path):
    write_files(make_comparison(), tmp_path)
    before = {path.name: path.stat()[stat.ST_INO] for path in tmp_path.iterdir()}
    write_files(make_comparison(network="lenet"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(before)
    assert all(path.stat()[stat.ST_INO] != before[path.name] for path in tmp_path.iterdir())
    assert "lenet" in (tmp_path / "table.md").read_text(encoding="utf-8")
