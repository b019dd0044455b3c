"""A comparison over Ray, on a real cluster of two nodes: the same results and errors as on one machine."""

from __future__ import annotations

import itertools
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from normwright.errors import MissingExtraError, OptionError, RunError
from normwright.lab import cluster as lab_cluster
from normwright.lab import remote
from normwright.lab.compare import compare
from normwright.lab.grid import make_base
from normwright.lab.recipe import TrainingRecipe
from normwright.lab.shipped import Shipment
from normwright.lab.store import Store
from normwright.lab.training import load_once
from normwright.lab.work import Raised

PATIENCE = 120.0  # seconds until a test gives up; nothing waits for this long when it passes

# In the tests' own process the module's file is in its own folder; where it was sent, in another.
NETS = """
import os, time
from pathlib import Path

from torch import nn

from blocks import block

SIGNS = Path({signs!r})
IS_SENT = str(Path(__file__).parent) != {folder!r}


def note(file):
    with open(SIGNS / file, "a") as signs:
        signs.write(f"{{os.getpid()}}\\n")


class Net(nn.Sequential):
    def __init__(self, act):
        super().__init__(block(), nn.Linear(8, 3))
        self.act = act

    def forward(self, x):
        if IS_SENT and self.training:
            self.act()
        return super().forward(x)


def plain():
    return Net(lambda: note("trained"))


def meets():
    # runs are short: one machine could train all before the other has begun
    return Net(meet)


def meet():
    note("trained")
    while len(set((SIGNS / "trained").read_text().split())) < 2:
        time.sleep(0.001)


def leaves():
    return Net(lambda: exit("had enough"))


def waits():
    # after a few steps, until it may go on
    return Net(wait)


def wait(steps=[]):
    steps.append(None)
    while len(steps) > 10 and not (SIGNS / "open").exists():
        time.sleep(0.001)


def walks():
    # so slowly that it comes to no end
    return Net(lambda: (note("walked"), time.sleep(0.01)))
"""

BLOCKS = """
from torch import nn


def block():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
"""

DATA = """
import os
from pathlib import Path

import torch


def load():
    with open(Path({signs!r}) / "read", "a") as signs:
        signs.write(f"{{os.getpid()}}\\n")
    y = torch.arange(96) % 3
    x = torch.randn(96, 4, generator=torch.Generator().manual_seed(0)) + y[:, None]
    return x[:64], y[:64], x[64:], y[64:]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, of which one says that it has a GPU, too."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is written to the home folder
        patch.setenv("RAY_worker_niceness", "0")  # else the trainings wait for all other tests
        patch.setenv("TMPDIR", folder)
        Path(folder, "ray").mkdir()  # where Ray notes the address
        from ray.cluster_utils import Cluster

        lean = {"num_cpus": 1, "include_log_monitor": False}
        head = {**lean, "include_dashboard": False, "no_monitor": True, "temp_dir": folder}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        nodes.second = nodes.add_node(**lean, num_gpus=1)
        nodes.folder = Path(folder)
        yield nodes
        nodes.shutdown()
    signal.signal(signal.SIGTERM, handler)  # which a cluster of this process takes for itself


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    (tmp_path / "signs").mkdir()
    return tmp_path / "signs"


@pytest.fixture
def user(tmp_path: Path, signs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a user's files, of which no module is left when the test has ended."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "nets.py").write_text(NETS.format(signs=str(signs), folder=str(folder)))
    (folder / "blocks.py").write_text(BLOCKS)
    (folder / "mydata.py").write_text(DATA.format(signs=str(signs)))
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


def asked(user: Path, network: str, **others: Any) -> dict[str, Any]:
    """The arguments of a small comparison: two runs, unless others are asked for."""
    small = {"norms": ("batch",), "batch_sizes": (32,), "lrs": (0.1,), "seeds": 2, "epochs": 2, "records": 2}
    names = {"network": f"{user}/nets.py:{network}", "data": f"{user}/mydata.py:load"}
    return {**names, **small, "device": "cpu", "out": user.parent / "out", **others}


def noted(signs: Path, file: str) -> list[int]:
    return [int(pid) for pid in (signs / file).read_text().split()] if (signs / file).exists() else []


def rows_of(out: Path) -> dict[str, list[Any]]:
    """All that the runs left but the time that they took, from the file itself."""
    found = {}
    with closing(sqlite3.connect(out / "experiment.sqlite")) as connection, Store.open(out) as store:
        for run, recipe in connection.execute("SELECT hash, recipe FROM run"):
            arrays = "SELECT name, dtype, shape, data FROM array WHERE hash = ? ORDER BY name"
            kept = store.result(run)
            assert kept is not None
            weights = {name: value.tolist() for name, value in store.load_checkpoint(run).items()}
            found[run] = [recipe, kept.diverged, store.test(run), repr(weights)]
            found[run] += connection.execute(arrays, (run,))
    return found


def claims_of(out: Path) -> int:
    with closing(sqlite3.connect(out / "experiment.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM claim").fetchone()[0])


def folders_of(cluster: Any) -> set[Path]:
    """Where the user's files lie on the machines of the cluster."""
    return set(cluster.folder.glob("normwright-*"))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_machines_give_the_bits_of_one_and_train_nothing_twice(cluster, user, signs, tmp_path):
    several = asked(user, "meets", norms=("none", "batch"), lrs=(0.1, 1e20), seeds=1)
    stages = []
    there = compare(**several, ray=cluster.address, on_stage=stages.append)
    trained = noted(signs, "trained")
    assert "training 4 runs, 2 at a time over Ray" in stages
    assert there.machine.endswith("2 at a time over Ray")
    assert len(set(trained)) == 2
    assert not set(noted(signs, "read")) & set(trained)  # no other machine must have the data
    here = compare(**{**several, "out": tmp_path / "here"}, jobs=1)
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "here")
    assert any(kept[1] for kept in rows_of(tmp_path / "here").values())  # one of them diverged
    assert [row.test for row in there.rows] == [row.test for row in here.rows]
    assert there.verdicts == here.verdicts
    compare(**several, ray=cluster.address)
    assert noted(signs, "trained") == trained
    wait_until(lambda: not any(map(is_alive, trained)))
    assert not folders_of(cluster)


def test_an_exception_on_another_machine_ends_everything(cluster, user, tmp_path):
    with pytest.raises(RunError) as caught:
        compare(**asked(user, "leaves"), ray=cluster.address, jobs=1)
    told = str(caught.value)
    assert told.startswith(f"SystemExit: had enough in the run {user}/nets.py:leaves on ")
    assert "Traceback" in told
    assert "same command again" in told
    assert claims_of(tmp_path / "out") == 0
    with Store.open(tmp_path / "out") as store:
        assert "had enough" in (store.failure(told.partition("recipe ")[2].partition(",")[0]) or "")
    assert not folders_of(cluster)


def test_a_machine_with_another_pytorch_is_refused(user):
    base = make_base(f"{user}/nets.py:plain", f"{user}/mydata.py:load", norm="batch", batch_size=32, lr=0.1)
    trainer = remote.Trainer(Shipment.of([base]))
    raised = trainer.train(base, load_once(base.data, None), {"normwright": "9", "PyTorch": "99.0"})
    trainer.clear()
    assert isinstance(raised, Raised)
    assert "must have normwright 9 and PyTorch 99.0, as the one that asks, but this one has" in raised.what


@pytest.mark.parametrize(
    "connects", [False, True], ids=["in a run", "while a head that stands still is asked"]
)
def test_ctrl_c_ends_the_command(cluster, user, signs, tmp_path, connects):
    command = [sys.executable, "-m", "normwright.cli", "compare", f"{user}/nets.py:walks"]
    command += ["--data", f"{user}/mydata.py:load", "--norm", "batch", "--batch-size", "32", "--lr", "0.1"]
    command += ["--seeds", "1", "--epochs", "100000", "--records", "2", "--device", "cpu"]
    command += ["--out", tmp_path / "out", "--ray", cluster.address]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    with ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert any(line.startswith("training") for line in process.stderr)
        wait_until(lambda: claims_of(tmp_path / "out") == 1)
        if connects:  # a worker imports Ray now, and does not come back from its first call
            for info in itertools.chain(*cluster.head_node.all_processes.values()):
                info.process.send_signal(signal.SIGSTOP)
                stack.callback(info.process.send_signal, signal.SIGCONT)
        else:
            wait_until(lambda: noted(signs, "walked") or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "stopped: finished runs are kept" in told
    assert claims_of(tmp_path / "out") == 0
    wait_until(lambda: not any(map(is_alive, noted(signs, "walked"))))
    assert not folders_of(cluster)


def test_what_the_cluster_does_not_have_is_an_error(cluster, user):
    several = {**asked(user, "plain"), "ray": cluster.address}
    with pytest.raises(OptionError, match="2 CPU for a run on cpu with threads 2, but none has"):
        compare(**several, threads=2, jobs=1)


def test_a_gpu_is_rays_to_choose():
    recipe = TrainingRecipe(norm="batch", batch_size=32, lr=0.1, device="cuda:1")
    with pytest.raises(OptionError, match="auto, cpu or cuda, but is 'cuda:1'"):
        lab_cluster.Cluster("10.0.0.1:6379", ({"CPU": 8.0, "GPU": 8.0},)).jobs(recipe, 1)


@pytest.mark.parametrize(
    ("address", "message"),
    [("nonsense", "it is not HOST:PORT"), ("127.0.0.1:1", "refused"), ("ray://127.0.0.1:1", "HOST:PORT")],
)
def test_a_cluster_that_is_not_there_is_an_error(address, message):
    with pytest.raises(OptionError, match=rf"cannot be reached.*{message}.*ray start --head"):
        compare(ray=address)


@pytest.mark.parametrize("address", [True, 6379, b"auto"])
def test_what_is_no_address_is_an_error(address):
    with pytest.raises(OptionError, match=r"ray must be auto, HOST:PORT .* but is "):
        compare(ray=address)


def test_a_server_that_is_no_head_is_an_error(monkeypatch):
    """Ray itself asks it for more than a minute."""
    monkeypatch.setattr(lab_cluster, "ANSWER_SECONDS", 0.5)
    too_late = pytest.raises(OptionError, match=r"cannot be reached \(it has not answered for 0.5 s\)")
    with socket.create_server(("127.0.0.1", 0)) as server, too_late:
        compare(ray=f"127.0.0.1:{server.getsockname()[1]}")


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'normwright\[ray\]'"):
        compare(ray="auto")


# The last one: a node is gone after it.
def test_the_run_of_a_machine_that_is_lost_is_tried_on_another(cluster, user, signs, caplog, tmp_path):
    def lose_one(done: int, total: int, running: list[tuple[str, int, int]]) -> None:
        if cluster.second is not None and sum(step > 0 for _, step, _ in running) == 2:
            cluster.remove_node(cluster.second)
            cluster.second = None
            (signs / "open").touch()

    compare(**asked(user, "waits", epochs=10), ray=cluster.address, on_progress=lose_one)
    assert caplog.text.count("what it left unfinished is tried once more") == 1
    assert len(rows_of(tmp_path / "out")) == 2
    assert claims_of(tmp_path / "out") == 0
