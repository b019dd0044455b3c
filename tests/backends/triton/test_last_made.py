"""What was made last is kept: so many, and so many bytes."""

import pytest

from normwright.backends.triton.last_made import LastMade


@pytest.fixture
def kept():
    """Of at most three byte strings, and eight bytes."""
    return LastMade(most=3, size=len, most_bytes=8)


def made(kept, *sizes):
    """The sizes that had to be made."""
    found = []
    for size in sizes:
        assert len(kept.get(size, lambda size=size: found.append(size) or bytes(size))) == size
    return found


@pytest.mark.parametrize(
    ("asked", "again", "expected"),
    [
        ((1, 2, 3), (1, 2, 3), []),
        ((1, 2, 3, 4), (1,), [1]),  # too many
        ((1, 2, 3, 1, 4), (1, 2), [2]),  # what was asked for last stays
        ((2, 7), (7, 2), [2]),  # too many bytes
        ((1, 9), (9, 1), [1]),  # more than fit alone
    ],
)
def test_the_last_are_kept(kept, asked, again, expected):
    made(kept, *asked)
    assert made(kept, *again) == expected


def test_what_is_held_stays(kept):
    made(kept, 1, 2)
    assert kept.hold(1) == bytes(1)
    assert made(kept, 9, 2, 3, 4, 5, 6, 7, 8) == [9, 2, 3, 4, 5, 6, 7, 8]
    assert made(kept, 1) == []
    assert kept.hold(1) == bytes(1)


def test_what_is_held_takes_no_place(kept):
    made(kept, 1, 4)
    kept.hold(4)
    made(kept, 3, 2)
    assert made(kept, 1, 3, 2) == []


def test_only_what_is_kept_can_be_held(kept):
    assert kept.hold(3) is None
    assert made(kept, 3) == [3]
