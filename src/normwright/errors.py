"""Every error that normwright raises on purpose.

    NormwrightError
    ├── ShapeError         a tensor or a size that cannot be normalised
    │                      (ValueError, RuntimeError, IndexError)
    ├── DtypeError         a dtype that cannot be normalised          (NotImplementedError, TypeError)
    ├── DeviceError        tensors on different devices                                 (RuntimeError)
    ├── OptionError        an argument outside what is offered        (ValueError, RuntimeError)
    ├── ConversionError    a normaliser cannot become another kind without loss            (ValueError)
    ├── FoldError          a fold would change what a network computes               (RuntimeError)
    ├── UserCodeError      a user's function is missing or returns the wrong thing        (ValueError)
    ├── DataError          a data set is missing, half-written or inconsistent            (ValueError)
    ├── StoreError         a file of normwright's own cannot be read or written              (OSError)
    ├── CheckpointError    a checkpoint holds code, is half-written or another network's  (ValueError)
    ├── CollapseError      a network that adapts would cease to tell classes apart     (RuntimeError)
    ├── RankError          another process of a group failed or died                    (RuntimeError)
    ├── RunError           an exception inside a run, with the run that it was in       (RuntimeError)
    └── MissingExtraError  a command's packages are not installed                        (ImportError)

Where PyTorch raises one type here and another there, ours is a child of both, so that code which
catches PyTorch's goes on working.

A message says what must hold, what came, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NormwrightError(Exception):
    """The root of every error that normwright raises on purpose."""


class ShapeError(NormwrightError, ValueError, RuntimeError, IndexError):
    """A tensor or a size cannot be normalised as asked."""


class DtypeError(NormwrightError, NotImplementedError, TypeError):
    """A dtype cannot be normalised or does not go with the others, or what came for a float is none."""


class DeviceError(NormwrightError, RuntimeError):
    """Tensors of one call lie on different devices."""


class OptionError(NormwrightError, ValueError, RuntimeError):
    """An argument lies outside what is offered."""


class ConversionError(NormwrightError, ValueError):
    """A normaliser cannot become another kind without losing what it does or holds."""


class FoldError(NormwrightError, RuntimeError):
    """A fold would change what a network computes by more than is allowed."""


class UserCodeError(NormwrightError, ValueError):
    """A user's function is missing or returns the wrong thing."""


class DataError(NormwrightError, ValueError):
    """A data set is missing, half-written or inconsistent."""


class StoreError(NormwrightError, OSError):
    """A file of normwright's own, an experiment or a result, cannot be read or written."""


class CheckpointError(NormwrightError, ValueError):
    """A checkpoint is missing, half-written, holds code, or belongs to another network."""


class CollapseError(NormwrightError, RuntimeError):
    """A network that adapts would cease to tell classes apart."""


class RankError(NormwrightError, RuntimeError):
    """Another process of a process group failed or died."""


class RunError(NormwrightError, RuntimeError):
    """An exception inside a run; the message names the run and its settings, `__cause__` the exception."""


class MissingExtraError(NormwrightError, ImportError):
    """A command needs packages that are not installed."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> OptionError:
    """The error for a name that is not offered, with the nearest names first.

    Example:
        >>> print(unknown_name("normaliser", "bach", ["batch", "layer"]))
        unknown normaliser 'bach': did you mean 'batch'? (offered: batch, layer)
    """
    offered = list(known)
    near = difflib.get_close_matches(str(name), offered, n=2, cutoff=0.5)
    guess = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
    if str(name).endswith(".py") and any(each.endswith(":function") for each in offered):
        guess = f": name a function in it, as {name}:function"
    return OptionError(f"unknown {what} {name!r}{guess} (offered: {', '.join(offered)})")
