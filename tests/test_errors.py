"""Errors are caught by code that catches PyTorch's."""

from __future__ import annotations

import pytest

from normwright import errors


@pytest.mark.parametrize(
    ("error", "parents"),
    [
        (errors.ShapeError, (ValueError, RuntimeError, IndexError)),
        (errors.DtypeError, (NotImplementedError, TypeError)),
        (errors.OptionError, (ValueError, RuntimeError)),
        (errors.UserCodeError, (ValueError,)),
        (errors.DataError, (ValueError,)),
        (errors.StoreError, (OSError,)),
        (errors.CheckpointError, (ValueError,)),
        (errors.RunError, (RuntimeError,)),
        (errors.MissingExtraError, (ImportError,)),
    ],
)
def test_what_an_error_is(error, parents):
    assert issubclass(error, errors.NormwrightError)
    assert all(issubclass(error, parent) for parent in parents)
    assert str(error("what came")) == "what came"


def test_a_file_without_its_function_is_told_how_one_is_named():
    message = str(errors.unknown_name("data set", "my/data.py", ["digits", "path/to/file.py:function"]))
    assert message.startswith(
        "unknown data set 'my/data.py': name a function in it, as my/data.py:function ("
    )


def test_an_unknown_name_far_from_all_others_has_no_guess():
    message = str(errors.unknown_name("normaliser", "xyz", ["batch", "layer"]))
    assert message == "unknown normaliser 'xyz' (offered: batch, layer)"
