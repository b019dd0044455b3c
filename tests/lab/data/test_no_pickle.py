"""Nothing that a user did not write is ever unpickled: no code of the package can unpickle at all."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import normwright

PACKAGE = Path(normwright.__file__).parent
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"torch.load", "torch.jit.load", "torch.hub.load", "torch.serialization.load", "pandas.read_pickle"}


def unpickling(source: str) -> list[str]:
    """Every import or use in the source of something that unpickles."""
    tree = ast.parse(source)
    aliases: dict[str, str] = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.asname or alias.name.split(".")[0]) for alias in node.names]
            aliases |= {bound: full if bound != full.split(".")[0] else bound for full, bound in names}
            found += [full for full, _ in names if full.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            full_names = [f"{node.module}.{alias.name}" for alias in node.names]
            aliases |= {a.asname or a.name: full for a, full in zip(node.names, full_names, strict=True)}
            found += [full for full in full_names if full.split(".")[0] in MODULES or full in CALLS]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            head, _, rest = ast.unparse(node).partition(".")
            if f"{aliases.get(head, head)}.{rest}" in CALLS:
                found.append(ast.unparse(node))
        elif (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            found.append("allow_pickle")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x', weights_only=True)",
        "from torch import load",
        "from torch import jit\njit.load('x')",
        "import torch\nread = torch.load",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', allow_pickle=choice)",
        "def f():\n    import joblib.externals",
    ],
)
def test_every_way_is_recognised(source: str) -> None:
    assert unpickling(source)


@pytest.mark.parametrize("source", ["from safetensors.torch import load_file", "load(x)", "np.load('x')"])
def test_other_loading_is_not(source: str) -> None:
    assert not unpickling(source)


# Other people's checkpoints are read here, by PyTorch's reader that runs no code; `pickle` has its error.
CHECKPOINTS = PACKAGE / "lab/weights/read.py"


def test_the_package_unpickles_nothing() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert PACKAGE / "lab/data/cifar.py" in files
    found = {file: ways for file in files if (ways := unpickling(file.read_text()))}
    assert found == {CHECKPOINTS: ["pickle", "torch.load"]}


def test_checkpoints_are_read_as_weights_only() -> None:
    source = CHECKPOINTS.read_text()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    loads = [node for node in calls if ast.unparse(node.func) == "torch.load"]
    assert loads
    for load in loads:
        assert {k.arg: ast.unparse(k.value) for k in load.keywords}["weights_only"] == "True"
    used = {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert {name for name in used if name.startswith("pickle.")} == {"pickle.UnpicklingError"}
