"""The real command, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from normwright.lab.user_code import resolve

COMMAND = (sys.executable, "-m", "normwright")
SMALL = ("--epochs", "1", "--seeds", "1", "--depth", "1", "--width", "8", "--records", "3", "--jobs", "1")
PATIENCE = 300.0


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    status: int
    output: str
    errors: str


class CommandLine:
    """The command in one folder, where the user's own files lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "NO_COLOR": "1"}

    def run(self, *arguments: str, program: tuple[str, ...] = COMMAND) -> Outcome:
        """Runs the command to its end."""
        done = subprocess.run([*program, *arguments], **self._how, timeout=PATIENCE)
        return Outcome(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, program: tuple[str, ...] = COMMAND, **how: Any) -> subprocess.Popen[str]:
        """Starts the command in a group of processes of its own, as a terminal does."""
        return subprocess.Popen([*program, *arguments], **(self._how | how), start_new_session=True)

    def small(self, *arguments: str) -> Outcome:
        """Runs the smallest comparison that these arguments allow."""
        return self.run("compare", *SMALL, *arguments)

    @property
    def _how(self) -> dict[str, Any]:
        pipe = subprocess.PIPE
        return {
            "cwd": self.folder,
            "env": self.environment,
            "stdin": subprocess.DEVNULL,
            "stdout": pipe,
            "stderr": pipe,
            "text": True,
        }


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """The command in an empty folder."""
    return CommandLine(tmp_path)


@pytest.fixture(scope="module")
def shared_cli(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command in a folder that the tests of a module share."""
    return CommandLine(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Path, subprocess.Popen[str]], None]:
    """Waits until a file is there; fails where the process ends before, or after two minutes."""

    def wait(path: Path, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                output, errors = process.communicate()
                pytest.fail(f"{path.name} never came: {output}\n{errors}")
            time.sleep(0.005)

    return wait


NETS = """
from torch import nn

def resnet():
    from transformers import ResNetConfig, ResNetForImageClassification  # takes seconds, which few need
    config = ResNetConfig(num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1],
                          layer_type="basic", num_labels=10)
    return ResNetForImageClassification(config)

def wider():
    from transformers import ResNetConfig, ResNetForImageClassification
    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[4, 8], depths=[1, 1],
                          layer_type="basic", num_labels=10)
    return ResNetForImageClassification(config)

def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def sized(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[-1] ** 2, classes))

def picky(width, depth, kind):
    return None

def number():
    return 3

def broken():
    raise LookupError("no [bold]such[/bold] layer")

def normed():
    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x):
        if x.shape[1] != 1:
            raise ValueError("one channel, please")
        return self.norm(x)

def own():
    return nn.Sequential(Own())

def words():
    return nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.BatchNorm1d(12))
"""

# Batches of a user's own; `gated` waits in the second one for the file `gate` to go.
BATCHES = """
import time
from pathlib import Path
import torch
from torch.utils.data import DataLoader, TensorDataset

here = Path(__file__).parent
generator = torch.Generator().manual_seed(0)
X, Y = torch.randn(40, 1, 8, 8, generator=generator), torch.arange(40) % 10

def loader():
    print("making a loader")
    return DataLoader(TensorDataset(X, Y), batch_size=16)

def stream():
    for x in X.split(16):
        yield {"pixel_values": x, "labels": Y[:len(x)]}

def empty():
    return DataLoader(TensorDataset(X[:0], Y[:0]), batch_size=16)

def colour():
    yield X.expand(-1, 3, -1, -1)

def larger():
    return [X.repeat(1, 1, 2, 1)]

def double():
    return [(X.double(), Y)]

def labelled():
    return [{"pixel_values": X, "labels": Y + 7}]

def indices():
    return [torch.full((8, 3), 9)]

def nothing():
    return []

def named():
    return [{"x": X}]

def raises():
    yield X[:16]
    raise OSError("the disk with the images is gone")

def nan():
    yield X[:16]
    yield X[:16] * torch.nan

def one():
    yield X[:1, :, :1, :1]

def gated():
    yield X[:16]
    (here / "waiting").touch()
    while (here / "gate").exists():
        time.sleep(0.005)
    yield X[16:]
"""


@pytest.fixture(scope="module")
def resnet_cli(shared_cli: CommandLine) -> Iterator[CommandLine]:
    """The command in a folder with a Transformers ResNet, its checkpoint and batches."""
    pytest.importorskip("transformers")
    (shared_cli.folder / "nets.py").write_text(NETS)
    (shared_cli.folder / "batches.py").write_text(BATCHES)
    before = list(sys.path)
    write_checkpoints(shared_cli.folder)
    yield shared_cli
    sys.path[:] = before  # other tests have files of these names, too


@pytest.fixture(scope="module")
def doctor_cli(shared_cli: CommandLine) -> Iterator[CommandLine]:
    """The command in a folder with the networks, losses, optimisers and batches of `doctor_files`."""
    pytest.importorskip("transformers")
    for file in (Path(__file__).parent / "doctor_files").glob("*.py"):
        shutil.copy(file, shared_cli.folder)
    before = list(sys.path)
    yield shared_cli
    sys.path[:] = before  # other tests have files of these names, too


def write_checkpoints(folder: Path) -> None:
    """Weights of a ResNet as Transformers saves them, with statistics that are not those of the start."""
    network = resolve(f"{folder / 'nets.py'}:resnet")()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2.0, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(generator=generator)
    network.save_pretrained(folder / "saved")
    for name in ("plain", "normed", "own", "words"):
        torch.save(resolve(f"{folder / 'nets.py'}:{name}")().state_dict(), folder / f"{name}.pt")
