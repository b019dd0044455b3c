"""A Ray cluster: reached at its address, and how many runs it has room for."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from normwright.errors import MissingExtraError, OptionError
from normwright.lab.devices import device_of
from normwright.lab.recipe import TrainingRecipe

# Ray goes on asking a head that is not there for more than five minutes, and then ends the process.
KNOCK_SECONDS = 5.0

# A head speaks gRPC, so it answers the beginning of HTTP/2 with settings. A web server, such as Ray's own
# dashboard, does not.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Args:
        ray: the package, which is imported by those who ask for a cluster alone.
    """

    ray: Any

    def device_of(self, device: str) -> str:
        """The device that is meant: `auto` is a GPU where the cluster has some.

        Raises:
            OptionError: it names one GPU of several, or is not on this machine, where networks are checked
                and tests are taken.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise OptionError(
                f"over Ray, which gives every run a GPU of its own, device must be auto, cpu or cuda, but is "
                f"{device!r}"
            )
        found = ("cuda" if self.room({"GPU": 1.0}) else "cpu") if device == "auto" else device
        try:
            return device_of(found)
        except OptionError as error:
            raise OptionError(
                f"{error}, or start on a machine of the cluster that has one: there networks are checked and "
                "tests are taken"
            ) from error

    def room(self, needs: Mapping[str, float]) -> int:
        """How many runs with these needs the machines hold at once, were they all idle."""
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(
            min(int(has.get(name, 0.0) // amount) for name, amount in needs.items()) for has in machines
        )

    def jobs(self, recipe: TrainingRecipe, runs: int) -> int:
        """Runs at once: as many as the machines have room for, no more than there are.

        Raises:
            OptionError: no machine has room for one.
        """
        needs = needs_of(recipe)
        room = self.room(needs)
        if not room:
            raise OptionError(
                f"one machine of the Ray cluster must have {in_words(needs)} for a run on {recipe.device} "
                f"with threads {recipe.threads}, but none has: take fewer threads or another device"
            )
        return max(1, min(room, runs))


def needs_of(recipe: TrainingRecipe) -> dict[str, float]:
    """What Ray reserves for a run: a CPU for each of its threads, and on a GPU one for itself.

    Example:
        >>> needs_of(TrainingRecipe(norm="batch", batch_size=32, lr=0.1, device="cuda"))
        {'CPU': 1.0, 'GPU': 1.0}
    """
    return {"CPU": float(recipe.threads)} | ({} if recipe.device == "cpu" else {"GPU": 1.0})


def in_words(needs: Mapping[str, float]) -> str:
    """What a run needs, for a sentence.

    Example:
        >>> in_words({"CPU": 2.0, "GPU": 1.0})
        '2 CPU and 1 GPU'
    """
    return " and ".join(f"{amount:g} {name}" for name, amount in needs.items())


@contextmanager
def reached(address: str | None) -> Iterator[Cluster | None]:
    """Inside, this process is connected to the cluster; None is no cluster.

    A connection that the user's program has made before is taken as it is, and kept.

    Args:
        address: `auto`, the cluster that this machine belongs to or the environment's RAY_ADDRESS names; or
            HOST:PORT of its head.
    Raises:
        MissingExtraError: Ray is not installed.
        OptionError: it is no address, or there is no such cluster.
    """
    if address is None:
        yield None
        return
    if not isinstance(address, str):
        raise OptionError(f"ray must be auto, HOST:PORT of a cluster that runs or None, but is {address!r}")
    ray = _package()
    if ray.is_initialized():
        yield Cluster(ray)
        return
    _connect(ray, address)
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _package() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as fault:
        raise MissingExtraError(
            f"training on a cluster needs Ray, which cannot be imported ({fault}); "
            "install it on every machine with: pip install 'normwright[ray]'"
        ) from fault


def _connect(ray: Any, address: str) -> None:
    try:
        if address == "auto":
            address = os.environ.get("RAY_ADDRESS") or _noted_address() or address
        if address != "auto":
            _knock(address)
        with _own_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"ray must be auto or HOST:PORT of a cluster that runs, but {address!r} cannot be reached "
            f"({error}): start one with `ray start --head` and join machines with `ray start --address`"
        ) from error


def _noted_address() -> str | None:
    """Where Ray finds the cluster of this machine; None where another Ray than ours does not tell.

    A head that was killed leaves its address behind, so it is knocked at as any other.

    Raises:
        ConnectionError: there is none.
    """
    try:
        find = importlib.import_module("ray._private.services").canonicalize_bootstrap_address
    except (ImportError, AttributeError):  # what is not public may go; nothing public tells it
        return None
    found: str | None = find("auto")
    return found


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        raise ValueError("it is not HOST:PORT")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return  # which says nothing before a handshake, and that is Ray's
        connection.sendall(_PREFACE)
        answer = connection.recv(9)
    if answer[3:4] != bytes((_SETTINGS,)):
        raise ConnectionError("what answers there is not the head of a Ray cluster")


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it connects; a command that is told to stop has words of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
