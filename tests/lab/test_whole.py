"""A file that is written is whole, and a link to it stays one."""

from __future__ import annotations

import os

import pytest

from normwright.errors import StoreError
from normwright.lab.store.whole import write_whole


@pytest.fixture
def folder(tmp_path):
    """With `far/run.txt`, and a link to it, through another link, beside it."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "latest.txt").symlink_to("run.txt")
    (tmp_path / "link.txt").symlink_to("far/latest.txt")
    return tmp_path


@pytest.mark.parametrize("there", [True, False])
def test_what_a_link_leads_to_is_written_and_the_link_stays(folder, there):
    if there:
        (folder / "far" / "run.txt").write_bytes(b"old")
    (folder / "far" / ".run.txt.0123abcd.tmp").write_bytes(b"of a process that was killed")
    write_whole(folder / "link.txt", b"new")
    assert (folder / "far" / "run.txt").read_bytes() == b"new"
    assert (folder / "link.txt").is_symlink()
    assert sorted(path.name for path in folder.rglob("*")) == ["far", "latest.txt", "link.txt", "run.txt"]


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("loop.txt", "is a link that leads to itself"),
        ("gone/run.txt", "is a link into .*gone, which does not"),
        ("/dev/null", "must be a file, but is a device"),
    ],
)
def test_a_link_that_leads_nowhere_is_told(tmp_path, to, said):
    link = tmp_path / "loop.txt"
    link.symlink_to(to)
    with pytest.raises(StoreError, match=said):
        write_whole(link, b"new")
    assert link.is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["loop.txt"]


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="must be a file, but is a pipe"):
        write_whole(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo()
