"""`normwright claims book`: the page again, from records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normwright.cli.claims_options import records_in
from normwright.cli.outputs import check_output, folder
from normwright.errors import OptionError

EXAMPLES = """\
[bold]Examples[/bold]

  normwright claims book --records normwright-claims --out book.html

The table of verdicts, too, for a repository:
  normwright claims book --records docs/claims/records --out book.html --markdown README.md --force
"""


def book(
    records: Annotated[
        Path,
        typer.Option(
            help="Folder of a book, or of its records.", show_default=False, parser=folder, metavar="PATH"
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write, as FILE.html.", show_default=False)],
    markdown: Annotated[
        Path | None,
        typer.Option(help="The table of verdicts to write as well, as FILE.md.", show_default=False),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="A picture beside FILE.md that it shows, as FILE.png.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files that are there.")] = False,
) -> None:
    """Make the page of the book again, from the records of claims that were run."""
    from normwright.report.claims_markdown import to_markdown
    from normwright.report.claims_page import write
    from normwright.report.files import write_whole

    check_output("--out", out, (".html",), replace=force)
    if markdown is not None:
        check_output("--markdown", markdown, (".md",), replace=force)
    elif picture is not None:
        raise typer.BadParameter("--picture goes with --markdown, which shows it: name both, or neither")
    found = list(records_in(records, option="--records").values())
    if not found:
        raise OptionError(
            f"--records must hold records of claims, but {records} holds none: `normwright claims run` "
            "makes them"
        )
    write(found, out)
    if markdown is not None:
        beside = markdown.parent
        shown = "" if picture is None else _from(beside, picture)
        write_whole(to_markdown(found, picture=shown, page=_from(beside, out)), markdown)
    for path in (out, markdown):
        if path is not None:
            typer.echo(f"written: {path}")


def _from(folder: Path, path: Path) -> str:
    """How a file in the folder names the path."""
    import os

    return Path(os.path.relpath(path, folder)).as_posix()
