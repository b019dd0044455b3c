"""`normwright backends`: which kernels are loaded, and if not, why."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def backends(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show which kernels are loaded, and if not, why."""
    import normwright

    found = normwright.backends()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(backend) for backend in found], indent=2))
        return
    table = Table("backend", "devices", "loaded", "why", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for backend in found:
        loaded = Text("yes", "green") if backend.loaded else Text("no", "yellow")
        table.add_row(Text(backend.name), Text(backend.devices), loaded, Text(backend.reason))
    Console().print(table)
