"""These tests run where Triton's kernels do: in its interpreter (`make test`), or on a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

for folder in (HERE.parents[1], HERE.parents[1] / "functional", HERE):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

from tolerances import KERNELS_ARE_TRITONS  # noqa: E402  # found by the lines above

collect_ignore_glob = [] if KERNELS_ARE_TRITONS else ["test_*.py"]


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    """Tests change the tables that a call was recorded by."""
    from normwright.backends.triton import replay

    replay.forget()
