"""Writes a network as a program, which runs without the code that built it."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from normwright.errors import MissingExtraError, OptionError
from normwright.functional.portable import DECOMPOSITIONS
from normwright.lab.store.whole import write_whole
from normwright.network.trace import first_line


def write_program(
    network: nn.Module, path: Path, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """Writes the network by torch.export (`.pt2`) or as ONNX; the file is whole at every moment.

    The program takes a batch of any size where the network does, and gives tensors in tuples and
    dictionaries, without the classes of a library.

    Args:
        network: in the mode in which it shall run; its parameters no longer require a gradient.
        path: ends in one of `normwright.lab.weights.PROGRAMS`.
        args, kwargs: an example of its inputs.
    Returns:
        Sentences for the user: what the program cannot do.
    Raises:
        OptionError: torch.export or its ONNX exporter cannot write this network.
        MissingExtraError: ONNX needs a package that is not installed.
        StoreError: it cannot be written; the old file stands.
    """
    network.requires_grad_(False)
    plain = _Plain(network)
    program, any_size = _exported(plain, path, args, kwargs)
    if path.suffix == ".onnx":
        program = _without_our_operators(program)
        content = _onnx(program, path, plain.names())
    else:
        content = _pt2(program)
    write_whole(path, content)
    notes = []
    if not any_size:
        notes.append(f"{path} takes inputs of exactly the example's shape: the network fixes its batch size.")
    if any("normwright." in str(node.target) for node in program.graph.nodes if node.op == "call_function"):
        notes.append(f"{path} holds operators of normwright: import normwright before it is loaded.")
    return tuple(notes)


class _Plain(nn.Module):
    """The network with the names of its arguments, and with plain containers for what it returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        names: list[str] = []
        # A function and no list, because torch.export puts a module's own lists back.
        self.names: Callable[[], list[str]] = lambda: names

        def forward(*args: Any, **kwargs: Any) -> Any:
            returned = network(*args, **kwargs)
            names[:] = _names(returned)
            return _plain(returned)

        forward.__signature__ = inspect.signature(network.forward)  # type: ignore[attr-defined]
        self.forward: Callable[..., Any] = forward


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value


def _names(value: Any, name: str = "output") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _names(item, str(key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _names(item, f"{name}_{place}")
    elif isinstance(value, Tensor):
        yield name


def _exported(
    network: _Plain, path: Path, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[ExportedProgram, bool]:
    """The program, and whether it takes a batch of any size."""
    shapes: Any = (
        tuple(map(_dynamic, args))
        if not kwargs
        else {name: _dynamic(value) for name, value in kwargs.items()}
    )
    if not (args and kwargs):
        with _quiet():
            try:
                # Twice the example, because a size of one is taken for a constant.
                program = torch.export.export(
                    network, _doubled(args), _doubled(dict(kwargs)), dynamic_shapes=shapes
                )
                if _takes_any_size(program):
                    return program, True
            except Exception:  # noqa: S110  # whatever stops it, one size is tried below, and raises if that fails
                pass
    with _quiet():
        try:
            return torch.export.export(network, args, dict(kwargs)), False
        except Exception as fault:
            raise OptionError(
                f"{path}: torch.export must be able to follow the network's code, but cannot "
                f"({first_line(fault)}): use nw.fold in Python, where the network stays a module"
            ) from fault


def _takes_any_size(program: ExportedProgram) -> bool:
    names = set(program.graph_signature.user_inputs)
    given = [
        node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names
    ]
    return any(isinstance(value, Tensor) and isinstance(value.shape[0], torch.SymInt) for value in given)


def _dynamic(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {0: Dim.AUTO} if value.dim() else None
    if isinstance(value, Mapping):
        return {name: _dynamic(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_dynamic, value))
    return None


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.cat([value, value]) if value.dim() else value
    if isinstance(value, dict):
        return {name: _doubled(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_doubled, value))
    return value


def _pt2(program: ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx(program: ExportedProgram, path: Path, names: list[str]) -> bytes:
    try:
        with _quiet():
            model = torch.onnx.export(
                program, dynamo=True, output_names=names, external_data=False, verbose=False
            )
    except ImportError as fault:
        raise MissingExtraError(
            f"{path}: writing ONNX needs a package that cannot be imported ({fault}): "
            "pip install onnx onnxscript"
        ) from fault
    except Exception as fault:
        raise OptionError(
            f"{path}: ONNX must have an operator for all that the network does, but the exporter stopped "
            f"({first_line(fault)}): end the name in .pt2"
        ) from fault
    if model is None:
        raise OptionError(f"{path}: the exporter gave no model: end the name in .pt2")
    content: bytes = model.model_proto.SerializeToString()
    return content


def _without_our_operators(program: ExportedProgram) -> ExportedProgram:
    if all(node.target not in DECOMPOSITIONS for node in program.graph.nodes):
        return program
    with _quiet():
        without: ExportedProgram = program.run_decompositions(dict(DECOMPOSITIONS))
    return without


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the exporters warn of among themselves from the user, who can do nothing about it."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "torch.fx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
