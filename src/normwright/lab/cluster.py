"""A Ray cluster: what its machines have, and how many runs there is room for.

A process that has called Ray ends when Ray lets it. So the process of a comparison never calls it: it asks a
child, and its worker processes train over Ray (`lab.remote`); either is killed where it does not end.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from dataclasses import dataclass

from normwright.errors import MissingExtraError, OptionError
from normwright.lab.crew import child_environment
from normwright.lab.recipe import TrainingRecipe

# How long the cluster may take to answer; Ray itself goes on asking for more than five minutes.
ANSWER_SECONDS = 60.0

# Leaves at once when it has told, without waiting for Ray.
_ASK = """
import json, os, ray, sys
ray.init(sys.stdin.read(), log_to_driver=False, logging_level="ERROR")
machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
print(json.dumps({"address": ray.get_runtime_context().gcs_address, "machines": machines}), flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster that has answered.

    Args:
        address: HOST:PORT of its head.
        machines: what each machine has in all, as in {"CPU": 8.0, "GPU": 1.0}.
    """

    address: str
    machines: tuple[dict[str, float], ...]

    def jobs(self, recipe: TrainingRecipe, runs: int) -> int:
        """Runs at once: as many as the machines have room for when they are idle, no more than there are.

        Raises:
            OptionError: no machine has room for one.
        Example:
            >>> recipe = TrainingRecipe(norm="batch", batch_size=32, lr=0.1, threads=2)
            >>> Cluster("10.0.0.1:6379", ({"CPU": 8.0}, {"CPU": 5.0, "GPU": 1.0})).jobs(recipe, 12)
            6
        """
        if recipe.device not in ("cpu", "cuda"):
            raise OptionError(
                f"over Ray, which gives every run a GPU of its own, device must be auto, cpu or cuda, but is "
                f"{recipe.device!r}"
            )
        needs = needs_of(recipe)
        room = sum(
            min(int(has.get(name, 0.0) // amount) for name, amount in needs.items()) for has in self.machines
        )
        if not room:
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
            raise OptionError(
                f"one machine of the Ray cluster must have {wanted} for a run on {recipe.device} with "
                f"threads {recipe.threads}, but none has: take fewer threads or another device"
            )
        return max(1, min(room, runs))


def needs_of(recipe: TrainingRecipe) -> dict[str, float]:
    """What Ray reserves for a run: a CPU for each of its threads, and on a GPU one for itself.

    Example:
        >>> needs_of(TrainingRecipe(norm="batch", batch_size=32, lr=0.1, device="cuda"))
        {'CPU': 1.0, 'GPU': 1.0}
    """
    return {"CPU": float(recipe.threads)} | ({} if recipe.device == "cpu" else {"GPU": 1.0})


def cluster_at(address: str) -> Cluster:
    """The cluster at an address.

    Args:
        address: `auto`, the cluster that this machine belongs to or the environment's RAY_ADDRESS names; or
            HOST:PORT of its head.
    Raises:
        MissingExtraError: Ray is not installed.
        OptionError: it is no address, or there is no such cluster.
    """
    if not isinstance(address, str):
        raise OptionError(f"ray must be auto, HOST:PORT of a cluster that runs or None, but is {address!r}")
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError(
            "training on a cluster needs Ray, which is not installed: install it on every machine with "
            "pip install 'normwright[ray]'"
        )
    try:
        if address != "auto":
            _knock(address)
        return _asked(address)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"ray must be auto or HOST:PORT of a cluster that runs, but {address!r} cannot be reached "
            f"({error}): start one with `ray start --head` and join machines with `ray start --address`"
        ) from error


def _knock(address: str) -> None:
    """Tells at once where nobody is."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        raise ValueError("it is not HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


def _asked(address: str) -> Cluster:
    try:
        done = subprocess.run(  # noqa: S603  # the words are those above
            [sys.executable, "-c", _ASK],
            input=address,
            capture_output=True,
            text=True,
            env=child_environment(),
            timeout=ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"it has not answered for {ANSWER_SECONDS:g} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ConnectionError(said[-1] if said else f"asking it ended with exit status {done.returncode}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Cluster(answer["address"], tuple(answer["machines"]))
