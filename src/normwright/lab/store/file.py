"""The SQLite file of an experiment: made, opened, checked, and its faults explained."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normwright.errors import StoreError

# The rollback journal (SQLite's default) rather than WAL. Both survive kill -9, but WAL needs memory that
# all processes share, so it corrupts a file that two hosts open over a network, and it leaves three files
# where the journal leaves one that is safe to copy. Its price, two fsyncs per write, is small because writes
# are few: a claim and a finish per run, and heartbeats, which `lab.work` keeps below 1 % of the time.
SYNCHRONOUS = "PRAGMA synchronous = FULL"

# Longer than any write takes, even on a slow network disk; a process stopped in mid-write is reported.
BUSY_SECONDS = 30.0

APPLICATION_ID = 0x4E574C42  # "NWLB" in the file's header tells our files from other people's
VERSION = 1

# A run is finished when it has a result, running when it has a claim, else pending: no column of states could
# contradict the rows. An array's blob is little-endian and in C order.
SCHEMA = (
    "CREATE TABLE run (hash TEXT PRIMARY KEY, recipe TEXT NOT NULL)",
    "CREATE TABLE claim (hash TEXT PRIMARY KEY REFERENCES run, owner TEXT NOT NULL, host TEXT NOT NULL,"
    " pid INTEGER NOT NULL, started TEXT NOT NULL, heartbeat REAL NOT NULL,"
    " step INTEGER NOT NULL, steps INTEGER NOT NULL)",
    "CREATE TABLE result (hash TEXT PRIMARY KEY REFERENCES run, steps INTEGER NOT NULL,"
    " fields TEXT NOT NULL)",
    "CREATE TABLE array (hash TEXT REFERENCES result, name TEXT, dtype TEXT NOT NULL, shape TEXT NOT NULL,"
    " data BLOB NOT NULL, PRIMARY KEY (hash, name))",
    # SQLite keeps NaN as NULL, so a metric of NULL is NaN.
    "CREATE TABLE test (hash TEXT PRIMARY KEY REFERENCES run, metric REAL)",
    "CREATE TABLE failure (hash TEXT PRIMARY KEY REFERENCES run, traceback TEXT NOT NULL)",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)

_ELSEWHERE = "move it away, or choose another --out; nothing in it was changed"

# By message, because Python 3.10 does not give SQLite's error code.
_FULL = ("the disk is full", "free some space and run the same command again; finished runs are kept")
_FAULTS = (
    ("is full", *_FULL),
    ("no space left", *_FULL),
    ("readonly", "it cannot be written", "choose an --out that you may write to"),
    ("unable to open", "it cannot be opened or made", "choose an --out that you may write to"),
    (
        "disk i/o",
        "the disk refuses to read or write",
        "see whether the disk is full, over its quota or failing, then run the same command again; "
        "finished runs are kept",
    ),
    (
        "locked",
        f"another process has kept it locked for {BUSY_SECONDS:.0f} s",
        "end or continue the normwright process that is stopped, then run the same command again",
    ),
    ("not a database", "it is not an experiment of normwright, or it is damaged", _ELSEWHERE),
    ("malformed", "it is half-written or damaged", _ELSEWHERE),
)


def fault(path: Path, error: Exception) -> StoreError:
    """The StoreError that names the file, what SQLite or the system found, and what to do."""
    for sign, found, remedy in _FAULTS:
        if sign in str(error).lower():
            return StoreError(f"{path}: {found} ({error}); {remedy}")
    return StoreError(
        f"{path}: cannot be read or written ({error}); choose an --out that you may write to, on a sound disk"
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the system into a StoreError about `path`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, StoreError):
            raise
        raise fault(path, error) from error


def connect(path: Path) -> sqlite3.Connection:
    """Opens the experiment's file, making it where there is none.

    Raises:
        StoreError: the file is foreign, newer, half-written or damaged, or cannot be made.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise StoreError(f"{path.parent} must be a folder, but is a file: choose another --out")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute(SYNCHRONOUS)
            connection.execute("PRAGMA foreign_keys = ON")
            if _number(connection, "PRAGMA page_count") == 0:
                _create(connection, path)
            _check(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: all of it happens, or nothing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may already have rolled back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _create(connection: sqlite3.Connection, path: Path) -> None:
    with writing(connection):
        # Another process may have made the tables while this one waited for the lock.
        if _number(connection, "SELECT count(*) FROM sqlite_master") > 0:
            return
        if path.stat().st_size > 0:  # SQLite takes a file of one byte for an empty database
            raise sqlite3.DatabaseError("file is not a database")
        for statement in SCHEMA:
            connection.execute(statement)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if _number(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise StoreError(f"{path}: this is a SQLite file, but not an experiment of normwright; {_ELSEWHERE}")
    version = _number(connection, "PRAGMA user_version")
    if version != VERSION:
        raise StoreError(
            f"{path}: the experiment has format {version}, this normwright reads format {VERSION}; "
            "install the normwright that made it, or choose another --out; nothing in it was changed"
        )
    found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise StoreError(f"{path}: it is half-written or damaged ({found}); {_ELSEWHERE}")
