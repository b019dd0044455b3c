"""Triton kernels, which serve CUDA and ROCm through PyTorch's dispatcher, without CUDA's or ROCm's compiler.

Triton compiles them with what it brings. Only what launches them it builds with the machine's C compiler
and Python's headers, on first use, and keeps: where it can not, `backends()` and the first call say so.

Registering them imports nothing: Triton is loaded when an operator is first called on a GPU, or when
`normwright.backends()` is asked. `NORMWRIGHT_TRITON=0` leaves the GPU to plain PyTorch, so that the two can
be compared; `NORMWRIGHT_TRITON=interpret` runs the kernels on the CPU in Triton's interpreter, where they
can be tested and stepped through: thousands of times slower.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from normwright.backends import eager
from normwright.backends.checks import checked

SWITCH = "NORMWRIGHT_TRITON"
INTERPRET = "interpret"

# What the kernels were written against: reductions that keep an axis, and arguments in float64.
OLDEST_TRITON = (3, 6)


class Triton(NamedTuple):
    """Whether the kernels are registered; Triton's version, or why they are not."""

    loaded: bool
    reason: str


def interprets() -> bool:
    """Whether the kernels are to run on the CPU, in place of the C++ library."""
    return os.environ.get(SWITCH) == INTERPRET


def load(library: torch.library.Library, names: tuple[str, ...]) -> Triton:
    """Registers the kernels of the named operators for the devices they serve, if they can serve any."""
    reason = _obstacle()
    if reason is not None:
        if _is_for_gpus() and os.environ.get(SWITCH) != "0":
            for name in names:
                library.impl(name, _plain(name, reason), "CUDA")
        return Triton(False, reason)
    if interprets():
        os.environ["TRITON_INTERPRET"] = "1"
        importlib.import_module("normwright.backends.triton.interpreter").put_right()
    for name in names:
        library.impl(name, _when_called(name), "CPU" if interprets() else "CUDA")
    return Triton(True, "")


def status(triton: Triton) -> Triton:
    """What `load` said, with what only importing Triton and asking for a GPU can tell."""
    if not triton.loaded:
        return triton
    try:
        operators = _operators()
    except ImportError as error:
        return Triton(False, str(error))
    version = sys.modules["triton"].__version__
    if interprets():
        return Triton(
            True, f"Triton {version}, interpreted on the CPU: {SWITCH}={INTERPRET} in the environment"
        )
    if not torch.cuda.is_available():
        return Triton(False, f"Triton {version} is installed, but PyTorch sees no GPU")
    refusals = _refusals()
    obstacle = operators.obstacle() if None in refusals else None
    remarks = filter(None, (f"Triton {version}", *refusals, obstacle))
    return Triton(None in refusals, "; ".join(remarks))


def _refusals() -> list[str | None]:
    """Why the kernels do not serve the GPUs that PyTorch sees, each reason once; None is a GPU they serve."""
    refusal_of = importlib.import_module("normwright.backends.triton.devices").refusal_of
    gpus = (torch.device("cuda", number) for number in range(torch.cuda.device_count()))
    return list(dict.fromkeys(map(refusal_of, gpus)))


def _obstacle() -> str | None:
    setting = os.environ.get(SWITCH, "")
    if setting == "0":
        return f"switched off: {SWITCH}=0 in the environment"
    if setting not in ("", INTERPRET):
        return f"{SWITCH} must be 0 or {INTERPRET}, but is {setting!r} in the environment"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: a PyTorch built for CUDA or ROCm brings it, or pip install triton"
    if interprets():
        if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
            return f"{SWITCH}={INTERPRET} must be set before Triton is imported, which has happened already"
        return None
    if not _is_for_gpus():
        return f"PyTorch {torch.__version__} was built without CUDA and ROCm"
    return None


def _is_for_gpus() -> bool:
    return torch.version.cuda is not None or torch.version.hip is not None


@functools.cache
def _operators() -> Any:
    version = importlib.import_module("triton").__version__
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        raise ImportError(f"the kernels need Triton {oldest} or later; this is {version}")
    return importlib.import_module("normwright.backends.triton.operators")


@functools.cache
def warn_once(reason: str) -> None:
    """Says that plain PyTorch serves calls, and why; each reason once."""
    warnings.warn(
        f"normwright runs in plain PyTorch, several times slower: {reason}", RuntimeWarning, stacklevel=5
    )


def _plain(name: str, reason: str) -> Callable[..., Any]:
    """An operator on a GPU that was to have kernels and has none."""

    def operator(*call: Any) -> Any:
        warn_once(reason)
        return eager.FUNCTIONS[name](*call)

    return checked(name, operator)


def _when_called(name: str) -> Callable[..., Any]:
    def operator(*call: Any) -> Any:
        try:
            operators = _operators()
        except ImportError as error:
            return _plain(name, str(error))(*call)
        return getattr(operators, name)(*call)

    return operator
