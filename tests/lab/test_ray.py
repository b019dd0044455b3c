"""A comparison over Ray, on a real cluster of two nodes: the same results and errors as on one machine."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from normwright.errors import MissingExtraError, OptionError, RunError
from normwright.lab import cluster as lab_cluster
from normwright.lab import remote, waiting
from normwright.lab.cluster import reached
from normwright.lab.compare import compare
from normwright.lab.grid import make_base
from normwright.lab.recipe import Recipe
from normwright.lab.shipped import Shipment
from normwright.lab.store import Store
from normwright.lab.training import load_once
from normwright.lab.work import Raised

PATIENCE = 120.0  # seconds until a test gives up; nothing waits for this long when it passes

# In the tests' own process the module's file is in its own folder; where it was sent, in another.
NETS = """
import os, signal, time
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


def raises():
    return Net(no_such_layer)


def no_such_layer():
    raise ValueError("no such layer")


def leaves():
    return Net(lambda: exit("had enough"))


def dies():
    return Net(lambda: (note("died"), os.kill(os.getpid(), signal.SIGKILL)))


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
        from ray.cluster_utils import Cluster

        lean = {"num_cpus": 1, "include_log_monitor": False}
        head = {**lean, "include_dashboard": False, "no_monitor": True, "temp_dir": folder}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        nodes.second = nodes.add_node(**lean, num_gpus=1)
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


# The first one: no cluster runs yet.
def test_the_address_that_a_killed_head_left_is_an_error(tmp_path, monkeypatch):
    """Ray asks there for more than a minute, and then ends the process."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(OptionError, match=r":1' cannot be reached \(.*refused"):
        compare(norms=("nothing",), ray="auto")


def test_two_machines_give_the_bits_of_one_and_train_nothing_twice(cluster, user, signs, tmp_path):
    several = asked(user, "meets", norms=("none", "batch"), lrs=(0.1, 1e20), seeds=1)
    stages = []
    there = compare(**several, ray=cluster.address, on_stage=stages.append)
    trained = noted(signs, "trained")
    assert "training 4 runs, 2 at a time over Ray" in stages
    assert there.machine.endswith("2 at a time over Ray")
    assert len(set(trained)) == 2
    assert set(noted(signs, "read")) == {os.getpid()}  # no other machine must have the data
    here = compare(**{**several, "out": tmp_path / "here"}, jobs=1)
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "here")
    assert any(kept[1] for kept in rows_of(tmp_path / "here").values())  # one of them diverged
    assert [row.test for row in there.rows] == [row.test for row in here.rows]
    assert there.verdicts == here.verdicts
    compare(**several, ray=cluster.address)
    assert noted(signs, "trained") == trained


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What others hold of the cluster, one machine each; the user is told at once that workers wait."""
    monkeypatch.setattr(waiting, "WAIT_SECONDS", 0.0)
    return []


def hold_both(held: list[Any], stage: str) -> None:
    from ray.util import placement_group

    if stage.startswith("training"):
        held += [placement_group([{"CPU": 1}]) for _ in range(2)]
        assert all(other.wait(PATIENCE) for other in held)


def test_an_exception_ends_everything_after_a_wait_for_a_machine(cluster, user, held, caplog, tmp_path):
    def let_go(done: int, total: int, running: list[tuple[str, int, int]]) -> None:
        from ray.util import remove_placement_group

        if "no worker has begun" in caplog.text and held:
            assert not running
            remove_placement_group(held.pop())

    stages = {"on_stage": partial(hold_both, held), "on_progress": let_go}
    with pytest.raises(RunError) as caught:
        compare(**asked(user, "raises"), ray=cluster.address, jobs=2, **stages)
    assert caplog.text.count("each waits until a machine of the Ray cluster has 1 CPU free") == 1
    told = str(caught.value)
    assert told.startswith(f"ValueError: no such layer in the run {user}/nets.py:raises on ")
    assert "Traceback" in told
    assert f'"name":"{user}/nets.py:raises"' in told.replace('": "', '":"')
    assert "same command again" in told
    assert claims_of(tmp_path / "out") == 0
    with Store.open(tmp_path / "out") as store:
        recipe = Recipe.from_json(told.partition("recipe: ")[2].splitlines()[0])
        assert "no such layer" in (store.failure(recipe.hash) or "")


def test_ctrl_c_ends_a_wait_at_once(cluster, user, held, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "GRACE_SECONDS", 2 * PATIENCE)

    def interrupt(done: int, total: int, running: list[tuple[str, int, int]]) -> None:
        if "no worker has begun" in caplog.text:
            raise KeyboardInterrupt

    stages = {"on_stage": partial(hold_both, held), "on_progress": interrupt}
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compare(**asked(user, "plain"), ray=cluster.address, **stages)
    assert time.monotonic() - begin < PATIENCE  # nobody is there who could answer within the grace
    assert claims_of(tmp_path / "out") == 0


def test_code_that_exits_is_an_exception_and_no_death(cluster, user):
    base = make_base(f"{user}/nets.py:leaves", f"{user}/mydata.py:load", norm="batch", batch_size=32, lr=0.1)
    with reached(cluster.address) as connected:
        trainer = remote.Trainer(Shipment.of([base]))
        raised = trainer.train(base, [connected.ray.put(load_once(base.data, None))])
        trainer.stop()
    assert isinstance(raised, Raised)
    assert raised.what == "SystemExit: had enough"
    assert raised.text.endswith("SystemExit: had enough\n")


def test_a_machine_with_another_pytorch_is_refused(cluster, user, tmp_path):
    import ray

    other = tmp_path / "other" / "torch"
    other.mkdir(parents=True)
    for entry in Path(torch.__file__).parent.iterdir():
        (other / entry.name).symlink_to(entry)
    (other / "version.py").unlink()
    text = Path(torch.version.__file__).read_text()
    (other / "version.py").write_text(f"{text}\n__version__ = '99.0'\n")
    there = {"env_vars": {"PYTHONPATH": str(other.parent)}}
    ray.init(cluster.address, runtime_env=there, log_to_driver=False, logging_level="ERROR")
    try:
        with pytest.raises(RunError, match=r"has normwright \S+ and PyTorch 99\.0: install the same there"):
            compare(**asked(user, "plain", seeds=1), ray=cluster.address)
        assert ray.is_initialized()  # the connection is the user's own
    finally:
        ray.shutdown()


def test_a_run_that_kills_two_workers_ends_everything(cluster, user, signs, caplog, tmp_path):
    with pytest.raises(RunError, match=r"a worker on \S+ \(pid \d+\) died, for the second time, in the run"):
        compare(**asked(user, "dies", seeds=1), ray=cluster.address)
    assert len(set(noted(signs, "died"))) == 2
    assert "what it left unfinished is tried once more" in caplog.text
    assert claims_of(tmp_path / "out") == 0


def test_ctrl_c_stops_the_runs_and_leaves_the_store_whole(cluster, user, signs, tmp_path):
    command = [sys.executable, "-m", "normwright.cli", "compare", f"{user}/nets.py:walks"]
    command += ["--data", f"{user}/mydata.py:load", "--norm", "batch", "--batch-size", "32", "--lr", "0.1"]
    command += ["--seeds", "1", "--epochs", "100000", "--records", "2", "--device", "cpu"]
    command += ["--out", tmp_path / "out", "--ray", cluster.address]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: noted(signs, "walked") or process.poll() is not None)
        workers = set(noted(signs, "walked"))
        assert claims_of(tmp_path / "out") == 1
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "stopped: finished runs are kept" in told
    assert claims_of(tmp_path / "out") == 0
    wait_until(lambda: not any(map(is_alive, workers)))


def test_what_the_cluster_does_not_have_is_an_error(cluster, user):
    several = {**asked(user, "plain"), "ray": cluster.address}
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OptionError, match="2 CPU for a run on cpu with threads 2, but none has"):
        compare(**several, threads=2, jobs=1)
    with pytest.raises(OptionError, match="auto, cpu or cuda, but is 'cuda:1'"):
        compare(**{**several, "device": "cuda:1"})
    assert signal.getsignal(signal.SIGTERM) is handler  # a command that is told to stop has words of its own


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


@pytest.mark.parametrize(("speaks", "message"), [(True, "not the head"), (False, "timed out")])
def test_a_server_that_is_no_head_is_an_error(speaks, message, monkeypatch):
    """Ray asks it for more than a minute, and then ends the process."""
    monkeypatch.setattr(lab_cluster, "KNOCK_SECONDS", PATIENCE if speaks else 0.1)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        if speaks:
            threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(OptionError, match=f"cannot be reached.*{message}"):
            compare(ray=f"127.0.0.1:{server.server_address[1]}")


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
    assert caplog.text.count("died in the run") == 1
    assert len(rows_of(tmp_path / "out")) == 2
    assert claims_of(tmp_path / "out") == 0
