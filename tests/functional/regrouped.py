"""One of the processes of test_collectives: whom compiled code finds in the groups, as these come and go.

python regrouped.py RANK FOLDER
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import torch  # in the folder above lies what is shared
from processes import process_group
from torch import Tensor

from normwright.functional.collectives import Ranks, ranks_of


def asked(x: Tensor, group: Any = None) -> tuple[Tensor, Ranks | None]:
    """A computation, for the compiler to have one, and the ranks."""
    return x + 1, ranks_of(group)


def main(rank: int, folder: Path) -> None:
    """Saves, of each group in turn, what compiled code and what plain code finds."""
    compiled = torch.compile(asked, fullgraph=True, backend="eager")
    found = []

    def ask(group: Any = None) -> None:
        told = (way(torch.zeros(2), group)[1] for way in (compiled, asked))
        found.append([None if ranks is None else tuple(ranks) for ranks in told])

    ask()
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/before",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    ask()
    ask(torch.distributed.new_group([0, 1], backend="cpu:gloo"))
    ask(torch.distributed.new_group([0, 1], backend="gloo"))
    torch.distributed.destroy_process_group()
    ask()
    with process_group(rank, folder, "cpu:gloo"):
        ask()
        ask(torch.distributed.new_group([0, 1], backend="gloo"))
        ask(torch.distributed.new_group([0]))
        torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
