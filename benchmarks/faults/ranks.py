"""A fault of processes that train together, in two of them.

python -m benchmarks.faults.ranks FAULT STATE FOLDER RANK
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import torch

from benchmarks.faults.catalogue import FAULTS
from benchmarks.faults.examination import Examination, begin, examined, made_sick

WORLD = 2


def examined_by_ranks(name: str, state: str) -> Examination:
    """What the doctor says in the first of two processes that plant the fault together."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.faults.ranks", name, state, folder]
        # gloo asks for the host's name, which not every machine can resolve
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        ranks = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(WORLD)]
        assert [rank.wait(timeout=300) for rank in ranks] == [0] * WORLD
        reply: Examination = pickle.loads((Path(folder) / "reply").read_bytes())
    return reply


def main(name: str, state: str, folder: str, rank: str) -> None:
    """One of the processes."""
    begin()
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=int(rank),
        world_size=WORLD,
        timeout=timedelta(seconds=120),
    )
    assert state in ("fresh", "trained")
    reply = examined(made_sick(FAULTS[name], "fresh" if state == "fresh" else "trained"))
    if rank == "0":
        (Path(folder) / "reply").write_bytes(pickle.dumps(reply))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    # not taken down: gloo's threads abort an interpreter that ends meanwhile (pytorch/pytorch#179291)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
