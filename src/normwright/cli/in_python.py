"""The verbs that are no commands, since they change a network's modules and nothing that a file holds."""

from __future__ import annotations

import difflib
from typing import Any

import typer
from typer.core import TyperGroup

from normwright.cli.wrong_values import in_words

_SAME = (
    "It keeps the weights and their names, so that a checkpoint would stay as it is. In Python, where the "
    "network is built: network = normwright.{verb}(network)"
)
IN_PYTHON = {verb: _SAME.format(verb=verb) for verb in ("accelerate", "freeze", "unfreeze")}
IN_PYTHON["freeze"] += ". For a network that is built with frozen norms: normwright convert --to frozen"


class Commands(TyperGroup):
    """The commands; says how what is none is done in Python, and what a wrong value must be."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Parses the options of the command that is asked for, and runs it."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = in_words(error)
            raise

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """The command that is asked for; wrong usage where there is none."""
        near = difflib.get_close_matches(args[0], [*self.commands, *IN_PYTHON], n=1)
        if near and near[0] in IN_PYTHON:
            guess = "" if near[0] == args[0] else f" Did you mean {near[0]!r}?"
            ctx.fail(f"No such command {args[0]!r}.{guess} {IN_PYTHON[near[0]]}")
        return super().resolve_command(ctx, args)
