"""A user's files written down elsewhere make the same functions there, in another process."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from normwright.lab.grid import make_base
from normwright.lab.recipe import Recipe
from normwright.lab.shipped import Shipment
from normwright.lab.user_code import resolve

FILES = {
    "nets.py": "from layers import SIZE\ndef net(): return SIZE",
    "layers.py": "SIZE = 7",
    "house/__init__.py": "from house.stairs import STEPS",
    "house/stairs.py": "STEPS = 11",
    "house/room/__init__.py": "",
    "house/room/door.py": "from house import STEPS\ndef loss(x, y): return STEPS",
    "beside.py": "raise ImportError('nobody asked for it')",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_imports: None) -> Path:
    home = tmp_path / "home"
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    monkeypatch.chdir(home)
    return tmp_path


def recipe(**names: str) -> Recipe:
    base = make_base("mlp", "digits", norm="none", batch_size=2, lr=1.0)
    network = dataclasses.replace(base.network, name=names.get("network", "mlp"), initialisation="own")
    training = dataclasses.replace(base.training, loss=names.get("loss", "cross_entropy"))
    return dataclasses.replace(base, network=network, training=training)


def test_a_file_and_a_package_are_made_of_what_they_import(folder):
    asked = recipe(network="nets.py:net", loss="house.room.door:loss")
    shipment = Shipment.of([asked, asked])
    home = folder.relative_to("/").as_posix() + "/home"
    assert sorted(shipment.files) == sorted(f"{home}/{name}" for name in FILES if name != "beside.py")
    there = folder / "there"
    shipment.unpack(there)
    led = shipment.at(there, asked)
    assert led.network.name == f"{there}/{home}/nets.py:net"
    assert led.training.loss == asked.training.loss
    for path in (folder / "home").rglob("*.py"):
        path.unlink()
    shown = [
        "import sys; sys.path.append(sys.argv[1])",
        "from normwright.lab.user_code import resolve",
        "print(resolve(sys.argv[2])(), resolve(sys.argv[3])(0, 0))",
    ]
    command = [
        *(sys.executable, "-c", "; ".join(shown)),
        *(f"{there}/{home}", led.network.name, led.training.loss),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout == "7 11\n"


@pytest.mark.parametrize("old", ["in a folder that Ray names", "in the current folder"])
def test_an_older_package_of_the_machine_gives_way(folder, monkeypatch, old):
    shipment = Shipment.of([recipe(loss="house.room.door:loss")])
    monkeypatch.chdir(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "house"]:
        del sys.modules[name]
    (folder / "home/house/stairs.py").write_text("STEPS = 10")
    sys.path[:] = [entry for entry in sys.path if Path(entry) != folder / "home"]
    if old == "in the current folder":
        monkeypatch.chdir(folder / "home")
    else:
        sys.path.insert(0, str(folder / "home"))
    shipment.unpack(folder / "there")
    assert resolve("house.room.door:loss")(0, 0) == 11
    assert os.path.realpath(sys.modules["house"].__file__).startswith(f"{folder}/there/")


def test_what_is_offered_or_installed_is_not_sent(folder):
    shipment = Shipment.of([recipe(), recipe(loss="torch.nn.functional:mse_loss")])
    assert (shipment.files, shipment.names, shipment.roots) == ({}, {}, ())
