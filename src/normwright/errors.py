"""Every error that normwright raises on purpose.

    NormwrightError
    ├── ShapeError            a tensor or a size that cannot be normalised     (ValueError, RuntimeError)
    ├── OptionError           an argument outside what is offered              (ValueError)
    ├── UserCodeError         a user's function that is missing or returns the wrong thing  (ValueError)
    ├── DataError             a data set that is missing, half-written or inconsistent      (ValueError)
    ├── StoreError            an experiment file that cannot be read or written             (OSError)
    ├── RunError              an exception inside a run, with the recipe that caused it     (RuntimeError)
    └── MissingExtraError     a command whose packages are not installed                    (ImportError)

A message says what must hold, what came, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NormwrightError(Exception):
    """The root of every error that normwright raises on purpose."""


class ShapeError(NormwrightError, ValueError, RuntimeError):
    """A tensor or a size cannot be normalised as asked.

    PyTorch raises ValueError for some of these faults and RuntimeError for others; this is both,
    so that code which catches either goes on working.
    """


class OptionError(NormwrightError, ValueError):
    """An argument lies outside what is offered."""


class UserCodeError(NormwrightError, ValueError):
    """A user's function is missing or returns the wrong thing."""


class DataError(NormwrightError, ValueError):
    """A data set is missing, half-written or inconsistent."""


class StoreError(NormwrightError, OSError):
    """An experiment file cannot be read or written."""


class RunError(NormwrightError, RuntimeError):
    """An exception inside a run; the message holds the recipe, `__cause__` the exception."""


class MissingExtraError(NormwrightError, ImportError):
    """A command needs packages that are not installed."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> OptionError:
    """The error for a name that is not offered, with the nearest names first.

    Example:
        >>> print(unknown_name("normaliser", "bach", ["batch", "layer"]))
        unknown normaliser 'bach': did you mean 'batch'? (offered: batch, layer)
    """
    offered = list(known)
    near = difflib.get_close_matches(name, offered, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return OptionError(f"unknown {what} {name!r}: {guess}(offered: {', '.join(offered)})")
