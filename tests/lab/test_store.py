"""The store keeps what it was given, through kills, full disks and other people's files."""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from normwright.errors import StoreError
from normwright.lab.recipe import DataRecipe, NetworkRecipe, Recipe, TrainingRecipe
from normwright.lab.run import LayerTrace, RunResult
from normwright.lab.store import Store
from normwright.lab.store.process import SILENCE_SECONDS

HERE = Path(__file__).parent


def recipe(seed: int) -> Recipe:
    training = TrainingRecipe(norm="batch", batch_size=32, lr=0.1, seed=seed)
    return Recipe(network=NetworkRecipe(name="mlp"), data=DataRecipe(name="digits"), training=training)


RECIPES = [recipe(seed) for seed in range(3)]
RUNS = [one.hash for one in RECIPES]


def result(loss: object = (2.5, 1.25), **changes: object) -> RunResult:
    trace = LayerTrace(
        steps=np.array([0, 10], dtype=np.int32),
        places=("norm1", "ñorm · 2"),
        input=np.arange(12.0, dtype=np.float32).reshape(2, 2, 3),
        output=np.asfortranarray(np.arange(12.0).reshape(2, 2, 3)),
        layers=("linear1",),
        gradient=np.array([[1.0], [2.0]], dtype=np.float16),
        update=np.array([[0.5], [0.25]], dtype=">f8"),
    )
    whole = RunResult(
        diverged=False,
        loss=np.asarray(loss, dtype=float),
        evaluation_steps=np.array([1, 2]),
        validation=np.array([0.5, 0.75]),
        milliseconds=1.1,
        peak_bytes=2**40,
        places=2,
        left_out=1,
        trace=trace,
        clock="processor",
    )
    return dataclasses.replace(whole, **changes)


def assert_same(one: object, other: object) -> None:
    """Equal to the bit, field by field, NaN and shapes of nothing included."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if dataclasses.is_dataclass(a):
            assert_same(a, b)
        elif isinstance(a, np.ndarray):
            assert b.dtype == a.dtype.newbyteorder("=")
            assert b.shape == a.shape
            np.testing.assert_array_equal(a, b)
        else:
            assert type(b) is type(a)
            assert b == a or (math.isnan(a) and math.isnan(b))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "out") as store:
        store.add(RECIPES)
        yield store


@contextmanager
def sql(store: Store) -> Iterator[sqlite3.Connection]:
    """The store's file, as another program sees it."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    yield connection
    connection.close()


# What is kept.


def test_a_result_comes_back_to_the_bit(store):
    store.finish(RECIPES[0], result())
    assert_same(result(), store.result(RUNS[0]))


def test_nothing_infinity_and_nan_come_back(store):
    nothing = LayerTrace(
        steps=np.zeros(0, dtype=np.int64),
        places=(),
        input=np.zeros((0, 0, 3)),
        output=np.zeros((0, 4, 3)),
        layers=(),
        gradient=np.zeros((0, 2)),
        update=np.zeros((0, 2)),
    )
    odd = result(
        [math.inf, -math.inf, math.nan, -0.0, 5e-324],
        diverged=True,
        milliseconds=math.nan,
        validation=np.zeros(0, dtype=np.float32),
        trace=nothing,
    )
    store.finish(RECIPES[0], odd)
    kept = store.result(RUNS[0])
    assert_same(odd, kept)
    assert math.copysign(1, kept.loss[3]) == -1
    store.finish(RECIPES[1], result(milliseconds=math.inf))
    assert store.result(RUNS[1]).milliseconds == math.inf


def test_arrays_lie_little_endian_and_without_pickle(store):
    store.finish(RECIPES[0], result())
    with sql(store) as rows:
        found = rows.execute("SELECT dtype, shape, data FROM array WHERE name = 'trace.update'").fetchone()
    assert found == ("<f8", "[2, 1]", np.array([0.5, 0.25], dtype="<f8").tobytes())


def test_an_array_of_objects_is_refused_and_nothing_is_kept(store):
    with pytest.raises(TypeError, match="must hold numbers, but holds object"):
        store.finish(RECIPES[0], result(validation=np.array([None])))
    assert store.result(RUNS[0]) is None


def test_the_first_result_stays(store):
    store.finish(RECIPES[0], result([1.0, 2.0]))
    store.finish(RECIPES[0], result([3.0]))
    assert_same(result([1.0, 2.0]), store.result(RUNS[0]))


def test_adding_again_changes_nothing(store):
    store.finish(RECIPES[0], result())
    store.add(iter(RECIPES))
    assert store.finished(RUNS) == {RUNS[0]}
    assert store.pending(RUNS) == RUNS[1:]


def test_a_reopened_store_holds_everything(store):
    store.finish(RECIPES[0], result())
    store.record_test(RUNS[0], 0.75)
    store.set_meta("command", "first")
    store.set_meta("command", "second")
    store.close()
    with Store.open(store.folder) as again:
        assert again.finished(RUNS) == {RUNS[0]}
        assert again.test(RUNS[0]) == 0.75
        assert again.test(RUNS[1]) is None
        assert again.meta("command") == "second"
        assert again.meta("machine") is None


def test_the_first_test_metric_stays_and_may_be_nan(store):
    store.record_test(RUNS[0], 0.5)
    store.record_test(RUNS[0], 0.75)
    assert store.test(RUNS[0]) == 0.5
    store.record_test(RUNS[1], math.nan)
    assert math.isnan(store.test(RUNS[1]))


def test_a_run_without_its_checkpoint_is_done_again(store):
    store.finish(RECIPES[0], result([1.0]))
    store.record_test(RUNS[0], 0.5)
    store.reopen(RUNS[0])
    assert store.pending(RUNS) == RUNS
    assert store.result(RUNS[0]) is None
    assert store.test(RUNS[0]) is None
    store.finish(RECIPES[0], result([2.0]))
    assert_same(result([2.0]), store.result(RUNS[0]))


# Who works on what.


def test_claims_are_taken_once_and_in_order(store):
    with Store.open(store.folder) as other:
        assert store.claim(RUNS) == RECIPES[0]
        assert other.claim(RUNS) == RECIPES[1]
        assert store.claim(RUNS[:2]) is None
        assert other.claim(list(reversed(RUNS))) == RECIPES[2]
        assert other.claim(RUNS) is None


def test_a_run_that_was_never_added_is_not_claimed(store):
    assert store.claim([recipe(9).hash]) is None


def test_states_and_steps(store):
    store.claim(RUNS)
    store.finish(RECIPES[0], result())
    store.claim(RUNS)
    assert store.progress(RUNS[1], 5, 20)
    assert store.status(RUNS) == [
        (RUNS[0], "finished", 2, 2),
        (RUNS[1], "running", 5, 20),
        (RUNS[2], "pending", 0, 0),
    ]


def test_only_the_holder_releases_and_progresses(store):
    store.claim(RUNS)
    with Store.open(store.folder) as other:
        other.release(RUNS[0])
        other.release_dead(RUNS)
        assert not other.progress(RUNS[0], 1, 2)
        other.fail(RUNS[0], "not mine")
        assert list(other.claims(RUNS)) == [RUNS[0]]
    store.release(RUNS[0])
    assert store.pending(RUNS) == RUNS


def test_closing_gives_back_what_is_held(store):
    with Store.open(store.folder) as other:
        other.claim(RUNS)
        assert list(store.claims(RUNS)) == [RUNS[0]]
    assert store.claims(RUNS) == {}


def test_a_failure_is_kept_and_the_run_stays_pending(store):
    store.claim(RUNS)
    store.fail(RUNS[0], "Traceback: first")
    assert store.pending(RUNS) == RUNS
    store.claim(RUNS)
    store.fail(RUNS[0], "Traceback: second")
    assert store.failure(RUNS[0]) == "Traceback: second"
    assert store.failure(RUNS[1]) is None


def test_a_failure_in_a_file_whose_name_the_locale_cannot_hold_is_kept(store):
    store.fail(RUNS[0], "File \"n\udcc3\udca4ts.py\": '\ud800'")
    assert store.failure(RUNS[0]) == "File \"näts.py\": '\ufffd'"


def test_the_claim_of_a_dead_process_is_taken_over_at_once(store):
    program = (
        "import os, sys; from pathlib import Path; from normwright.lab.store import Store\n"
        "store = Store.open(Path(sys.argv[1])); print(store.claim(sys.argv[2:]).hash, flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, store.folder, *RUNS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline().decode().strip() == RUNS[0]
        assert store.status(RUNS)[0][1] == "running"
        assert store.claim(RUNS[:1]) is None
        holder.kill()
        # Not reaped yet: a zombie holds nothing.
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        assert store.status(RUNS)[0][1] == "pending"
        assert store.claim(RUNS[:1]) == RECIPES[0]


def test_a_pid_that_was_given_again_holds_nothing(store):
    store.claim(RUNS)
    with sql(store) as rows:  # this very process, started at another time
        rows.execute("UPDATE claim SET started = 'another-boot/1'")
    assert store.pending(RUNS) == RUNS
    store.release_dead(RUNS)
    with sql(store) as rows:
        assert rows.execute("SELECT count(*) FROM claim").fetchone() == (0,)


def test_another_host_holds_a_run_until_it_is_silent_for_ten_minutes(store):
    store.claim(RUNS)
    with sql(store) as rows:
        rows.execute(
            "UPDATE claim SET host = ?, pid = 1, heartbeat = ?", ("not-" + socket.gethostname(), time.time())
        )
        assert store.status(RUNS)[0][1] == "running"
        rows.execute("UPDATE claim SET heartbeat = ?", (time.time() - SILENCE_SECONDS,))
    assert store.claim(RUNS) == RECIPES[0]


# Files that are not right.


def damaged(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "experiment.sqlite"
    file.write_bytes(content)
    return file


def assert_refused(folder: Path, match: str) -> None:
    """Opening fails with the file's name and a remedy, and leaves the file as it was."""
    file = folder / "experiment.sqlite"
    before = file.read_bytes()
    with pytest.raises(StoreError, match=match) as caught:
        Store.open(folder)
    assert str(file) in str(caught.value)
    assert "choose another --out" in str(caught.value)
    assert file.read_bytes() == before
    assert os.listdir(folder) == [file.name]


@pytest.mark.parametrize("content", [b"x", b"not a store\n" * 3, b"\0" * 50, os.urandom(10_000)])
def test_garbage_is_refused(tmp_path, content):
    damaged(tmp_path, content)
    assert_refused(tmp_path, "not an experiment of normwright, or it is damaged")


def test_an_empty_file_is_filled(tmp_path):
    damaged(tmp_path, b"")
    with Store.open(tmp_path) as store:
        store.add(RECIPES)
        assert store.pending(RUNS) == RUNS


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.99])
def test_a_truncated_store_is_refused(store, tmp_path, share):
    for one in RECIPES:
        store.finish(one, result(np.arange(2000.0)))
    store.close()
    whole = store.path.read_bytes()
    damaged(tmp_path / "cut", whole[: int(len(whole) * share)])
    assert_refused(tmp_path / "cut", "damaged")


def test_a_store_with_a_wrecked_page_is_refused(store, tmp_path):
    for one in RECIPES:
        store.finish(one, result(np.arange(2000.0)))
    store.close()
    content = bytearray(store.path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    damaged(tmp_path / "wrecked", bytes(content))
    assert_refused(tmp_path / "wrecked", "half-written or damaged")


def test_another_programs_database_is_refused(tmp_path):
    rows = sqlite3.connect(tmp_path / "experiment.sqlite")
    rows.execute("CREATE TABLE holidays (day TEXT)")
    rows.close()
    assert_refused(tmp_path, "not an experiment of normwright")


def test_a_newer_store_is_refused(store, tmp_path):
    with sql(store) as rows:
        rows.execute("PRAGMA user_version = 99")
    store.close()
    assert_refused(store.folder, "the experiment has format 99, this normwright reads format 1")


# Places that cannot be written.


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("a user's file")
    with pytest.raises(StoreError, match=r"file/out/experiment\.sqlite: .*--out that you may write to"):
        Store.open(tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "a user's file"


def test_a_folder_in_the_files_place_is_named(tmp_path):
    (tmp_path / "experiment.sqlite").mkdir()
    with pytest.raises(StoreError, match="cannot be opened or made"):
        Store.open(tmp_path)


@contextmanager
def file_sizes_below(size: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond `size` bytes, as it does over a quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_goes_on(folder: Path) -> None:
    """The first run is whole, the second can be finished now."""
    with Store.open(folder) as store:
        assert store.finished(RUNS) == {RUNS[0]}
        assert_same(result(), store.result(RUNS[0]))
        store.finish(RECIPES[1], result(np.arange(50_000.0)))
        assert_same(result(np.arange(50_000.0)), store.result(RUNS[1]))


def test_a_disk_that_refuses_a_write_keeps_what_was_finished(store):
    store.finish(RECIPES[0], result())
    with file_sizes_below(store.path.stat().st_size + 8192):
        with pytest.raises(
            StoreError, match=r"experiment\.sqlite: the disk refuses .*finished runs are kept"
        ):
            store.finish(RECIPES[1], result(np.arange(50_000.0)))
        assert_same(result(), store.result(RUNS[0]))
    assert_goes_on(store.folder)


def test_a_full_database_says_that_the_disk_is_full(store):
    store.finish(RECIPES[0], result())
    store._connection.execute(f"PRAGMA max_page_count = {store.path.stat().st_size // 4096 + 2}")
    with pytest.raises(StoreError, match=r"experiment\.sqlite: the disk is full .*finished runs are kept"):
        store.finish(RECIPES[1], result(np.arange(50_000.0)))
    assert_goes_on(store.folder)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=256k", "none", disk]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a disk; the tests with RLIMIT_FSIZE and max_page_count remain")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_real_full_disk_loses_nothing(tiny_disk):
    with Store.open(tiny_disk / "out") as store:
        store.add(RECIPES)
        store.finish(RECIPES[0], result())
        with pytest.raises(StoreError, match="the disk is full"):
            store.finish(RECIPES[1], result(np.arange(50_000.0)))
        with pytest.raises(StoreError, match=r"safetensors: the disk is full .*free some space"):
            store.save_checkpoint(RUNS[1], {"weight": torch.zeros(100_000)})
        assert os.listdir(tiny_disk / "out" / "checkpoints") == []
        (tiny_disk / "filler").write_bytes(bytes(os.statvfs(tiny_disk).f_bavail * 4096))
        with pytest.raises(StoreError, match="disk is full"):
            store.claim(RUNS)
    with pytest.raises(StoreError, match="disk is full"):
        Store.open(tiny_disk / "second")
    (tiny_disk / "filler").unlink()
    with Store.open(tiny_disk / "out") as store:
        assert_same(result(), store.result(RUNS[0]))
        assert store.claim(RUNS) == RECIPES[1]


def test_a_read_only_disk_can_be_read_and_says_that_it_cannot_be_written(tiny_disk):
    with Store.open(tiny_disk) as store:
        store.add(RECIPES)
        store.finish(RECIPES[0], result())
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    with Store.open(tiny_disk) as store:
        store.add(RECIPES)
        assert_same(result(), store.result(RUNS[0]))
        with pytest.raises(StoreError, match=r"experiment\.sqlite: it cannot be written"):
            store.claim(RUNS)
        with pytest.raises(StoreError, match="checkpoints"):
            store.save_checkpoint(RUNS[0], {"weight": torch.zeros(2)})
    with pytest.raises(StoreError, match="--out that you may write to"):
        Store.open(tiny_disk / "second")


# Checkpoints.


def test_weights_come_back(store):
    weights = {
        "weight": torch.arange(6.0).reshape(2, 3),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "steps": torch.tensor(7),
        "none": torch.zeros(0, 2),
    }
    store.save_checkpoint(RUNS[0], weights)
    loaded = store.load_checkpoint(RUNS[0])
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype
    assert store.checkpoint_path(RUNS[0]) == store.folder / "checkpoints" / f"{RUNS[0]}.safetensors"
    assert os.listdir(store.folder / "checkpoints") == [f"{RUNS[0]}.safetensors"]


def test_weights_that_share_memory_come_back(store):
    embedding = torch.nn.Embedding(4, 3)
    decoder = torch.nn.Linear(3, 4, bias=False)
    decoder.weight = embedding.weight
    base = torch.arange(12.0).reshape(3, 4)
    weights = {
        **torch.nn.ModuleList([embedding, decoder]).state_dict(),
        "row": base[1],
        "columns": base[:, 1:3],
        "transposed": base.T,
        "expanded": torch.ones(1).expand(5),
    }
    store.save_checkpoint(RUNS[0], weights)
    loaded = store.load_checkpoint(RUNS[0])
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_a_missing_checkpoint_is_named(store):
    with pytest.raises(StoreError, match=rf"{RUNS[0]}\.safetensors: the checkpoint is missing; run the same"):
        store.load_checkpoint(RUNS[0])


@pytest.mark.parametrize("length", [0, 4, 60, 500])
def test_a_half_written_checkpoint_is_named(store, length):
    store.save_checkpoint(RUNS[0], {"weight": torch.zeros(1000)})
    path = store.checkpoint_path(RUNS[0])
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreError, match=r"half-written or unreadable .*delete it and run the same command"):
        store.load_checkpoint(RUNS[0])
    assert path.stat().st_size == length


def test_a_write_that_fails_leaves_the_earlier_checkpoint_and_no_part(store):
    store.save_checkpoint(RUNS[0], {"weight": torch.ones(2)})
    with file_sizes_below(4096), pytest.raises(StoreError, match="safetensors"):
        store.save_checkpoint(RUNS[0], {"weight": torch.zeros(10_000)})
    assert os.listdir(store.folder / "checkpoints") == [f"{RUNS[0]}.safetensors"]
    assert torch.equal(store.load_checkpoint(RUNS[0])["weight"], torch.ones(2))


def test_what_a_killed_process_left_of_a_checkpoint_does_no_harm(store):
    path = store.checkpoint_path(RUNS[0])
    path.parent.mkdir()
    save_file({"weight": torch.zeros(1000)}, path.with_name(path.name + ".part"))
    store.save_checkpoint(RUNS[0], {"weight": torch.ones(2)})
    assert torch.equal(store.load_checkpoint(RUNS[0])["weight"], torch.ones(2))
    assert os.listdir(path.parent) == [path.name]


# Killed while writing.


def test_killed_at_any_moment_of_a_write_the_store_is_whole(tmp_path):
    """Forty writers are killed at random moments; what each said it had finished is there, and whole."""
    program = [sys.executable, HERE / "killed_writers.py", tmp_path / "out", "40"]
    done = subprocess.run(program, capture_output=True, check=False, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    kills, finished = map(int, done.stdout.split())
    assert kills == 40
    assert finished >= kills


def test_an_experiment_is_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="must be a folder, but is a file: choose another"):
        Store.open(tmp_path / "file")


# What the test set said.


def test_answers_come_back_and_take_an_eighth_of_a_byte_each(store):
    right = np.random.default_rng(0).random(359) < 0.9
    store.finish(RECIPES[0], result())
    store.record_answers(RUNS[0], right)
    store.record_answers(RUNS[0], ~right)  # the first stay
    np.testing.assert_array_equal(store.answers(RUNS[0], 359), right)
    assert store.answers(RUNS[1], 359) is None
    assert_same(result(), store.result(RUNS[0]))
    with sql(store) as rows:
        assert rows.execute("SELECT length(data) FROM array WHERE name = 'test.answers'").fetchone() == (45,)
    store.reopen(RUNS[0])
    assert store.answers(RUNS[0], 359) is None
