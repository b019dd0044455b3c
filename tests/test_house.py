"""The house stands as it was drawn: imports run one way, and the public names are the ones meant."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import normwright

SOURCE = Path(normwright.__file__).parent

# Upper floors first; a floor imports only from those below it, or from itself.
FLOORS = (
    "cli",
    "report",
    "lab",
    "doctor",
    "shift",
    "statistics",
    "network",
    "nn",
    "functional",
    "backends",
    "reference",
    "errors",
)


def imports_of(path):
    """The floors that a file imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "normwright":
                names = [f"normwright.{alias.name}" for alias in node.names if alias.name != "__version__"]
        for name in names:
            if name.startswith("normwright."):
                yield name.split(".")[1]


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_run_downwards(path):
    floor = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if floor in ("__init__", "__main__"):
        return
    for imported in imports_of(path):
        assert imported in FLOORS, f"{path} imports {imported}, which no floor is named after"
        assert FLOORS.index(floor) <= FLOORS.index(imported), (
            f"{floor} imports {imported}, which lies above it"
        )


def test_every_folder_is_a_floor():
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(FLOORS)


def test_a_file_holds_one_concept():
    long = {path.name: lines for path in FILES if (lines := len(path.read_text().splitlines())) > 400}
    assert not long


PUBLIC = {
    "normwright": [
        "AdaptedStream",
        "Monitor",
        "__version__",
        "accelerate",
        "adapt",
        "backends",
        "compare",
        "convert",
        "diagnose",
        "find_batch_size",
        "fold",
        "freeze",
        "functional",
        "lr_range_test",
        "nn",
        "recalibrate",
        "reference",
        "run_claims",
        "shift_test",
        "statistics",
        "unfreeze",
    ],
    "normwright.functional": [
        "batch_norm",
        "batch_renorm",
        "dynamic_tanh",
        "filter_response_norm",
        "ghost_batch_norm",
        "group_norm",
        "instance_norm",
        "layer_norm",
        "local_response_norm",
        "masked_batch_norm",
        "maxout",
        "recurrent_batch_norm",
        "rms_norm",
        "split_batch_norm",
        "standardise_weight",
        "sync_batch_norm",
        "weight_norm",
        "whitening_norm",
    ],
    "normwright.nn": [
        "BatchNorm1d",
        "BatchNorm2d",
        "BatchNorm3d",
        "BatchNormLSTM",
        "BatchRenorm1d",
        "BatchRenorm2d",
        "BatchRenorm3d",
        "DynamicTanh",
        "FilterResponseNorm",
        "FrozenBatchNorm1d",
        "FrozenBatchNorm2d",
        "FrozenBatchNorm3d",
        "GhostBatchNorm1d",
        "GhostBatchNorm2d",
        "GhostBatchNorm3d",
        "GroupNorm",
        "InstanceNorm1d",
        "InstanceNorm2d",
        "InstanceNorm3d",
        "LayerNorm",
        "LayerNormLSTM",
        "LocalResponseNorm",
        "MaskedBatchNorm1d",
        "Maxout",
        "RMSNorm",
        "RecurrentBatchNorm",
        "SplitBatchNorm1d",
        "SplitBatchNorm2d",
        "SplitBatchNorm3d",
        "SyncBatchNorm",
        "WeightNorm",
        "WeightStandardization",
        "WhiteningNorm1d",
        "WhiteningNorm2d",
        "WhiteningNorm3d",
        "domain",
        "init_weight_norm_",
        "weight_norm",
        "weight_standardization",
    ],
    "normwright.network": [
        "BlockRecord",
        "Conversion",
        "ConversionReport",
        "FoldDifference",
        "FoldRecord",
        "FoldReport",
        "FoldSpeed",
        "FreezeRecord",
        "FreezeReport",
        "Gap",
        "NormaliserRecord",
        "Report",
        "accelerate",
        "accelerate_with_report",
        "convert",
        "convert_with_report",
        "find_normalisers",
        "fold",
        "fold_with_report",
        "freeze",
        "freeze_with_report",
        "replace_module",
        "unfreeze",
    ],
    "normwright.doctor": [
        "Diagnosis",
        "Evidence",
        "Fault",
        "Finding",
        "Outcome",
        "Rule",
        "Subject",
        "Treatment",
        "all_rules",
        "diagnose",
    ],
    "normwright.shift": ["Feature", "LayerShift", "LeftOut", "NetworkShift", "Recovery", "ShiftReport"],
    "normwright.statistics": [
        "Adaptation",
        "AdaptationReport",
        "AdaptedStream",
        "Counting",
        "LayerAdaptation",
        "LayerChange",
        "Recalibration",
        "RecalibrationReport",
        "accumulate",
        "adapt",
        "count_once",
        "recalibrate",
    ],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module):
    loaded = importlib.import_module(module)
    assert sorted(loaded.__all__) == PUBLIC[module]
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        normwright.nonsense  # noqa: B018  # the access is the test


def test_importing_normwright_brings_no_command_along():
    heavy = [
        "sklearn",
        "scipy",
        "plotly",
        "jinja2",
        "typer",
        "rich",
        "safetensors",
        "polars",
        "narwhals",
        "ray",
    ]
    heavy += [
        "normwright.doctor",
        "normwright.lab",
        "normwright.network",
        "normwright.reference",
        "normwright.statistics",
    ]
    code = f"import sys, normwright; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
