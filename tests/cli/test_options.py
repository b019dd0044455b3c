"""The options of `normwright compare` are the arguments of `nw.compare`, and show its defaults."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import pytest
import typer

from normwright.cli import compare as command
from normwright.cli.lists import integers, numbers, words
from normwright.lab.compare import compare
from normwright.lab.data.load import READERS
from normwright.lab.networks.building import BUILDERS
from normwright.lab.recipe import DataRecipe, NetworkRecipe, TrainingRecipe

ARGUMENTS = inspect.signature(compare).parameters
FIELDS = {
    field.name: field
    for part in (NetworkRecipe, DataRecipe, TrainingRecipe)
    for field in dataclasses.fields(part)
    if field.name not in ("name", "digest", "norm", "batch_size", "lr", "seed")
}
PLURALS = {"norm": "norms", "batch_size": "batch_sizes", "lr": "lrs"}
NOT_OPTIONS = ("on_stage", "on_progress", "options")


def options() -> dict[str, typing.Any]:
    hints = typing.get_type_hints(command.compare, include_extras=True)
    own = {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}
    return {PLURALS.get(name, name): option for name, option in own.items() if name != "as_json"}


def test_every_argument_and_field_is_an_option():
    wanted = {*ARGUMENTS, *FIELDS} - set(NOT_OPTIONS)
    assert set(options()) == wanted


@pytest.mark.parametrize("name", sorted(options()))
def test_help_shows_the_default(name):
    default = ARGUMENTS[name].default if name in ARGUMENTS else FIELDS[name].default
    if default is None:  # told in words
        assert name in ("jobs", "ray", "data_dir")
        return
    values = default if isinstance(default, tuple) else (default,)
    shown = ",".join(f"{value:g}" if isinstance(value, float) and value else str(value) for value in values)
    assert options()[name].help.endswith(f"[dim]({shown})[/dim]")


def test_help_names_what_the_lab_offers():
    assert set(command.DATA_SETS) - {"images:DIR"} == set(READERS)
    assert set(command.NETWORKS) == set(BUILDERS)


def test_spaces_around_an_element_do_not_count():
    assert words(" none , batch") == ("none", "batch")
    assert integers("2, 32") == (2, 32)
    assert numbers("1e-3 ,1") == (0.001, 1.0)


@pytest.mark.parametrize(
    ("parse", "text", "position"),
    [(numbers, "0.1,x", 2), (integers, "1.5", 1), (words, "a,,b", 2), (numbers, "", 1), (integers, "2,", 2)],
)
def test_error_names_the_element(parse, text, position):
    with pytest.raises(typer.BadParameter, match=f"element {position} of {text!r}"):
        parse(text)
