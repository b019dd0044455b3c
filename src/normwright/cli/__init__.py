"""The command line: one file per command, which parses, calls and prints."""

from __future__ import annotations

import io
import sys

from normwright.errors import NormwrightError

# The import names of what `pip install 'normwright[lab]'` adds.
_EXTRA = ("typer", "rich", "sklearn", "plotly", "narwhals", "jinja2", "markupsafe", "safetensors")


def main() -> None:
    """Runs the command that `sys.argv` holds, and exits.

    Exit status: 0 done; 1 an error, told on the standard error; 2 wrong usage; 3 a shift, where asked for by
    --fail-on-shift; 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "×" shows "?" rather than a traceback
    try:
        # Here and not above: Typer and Rich come with an extra, and their absence needs a word.
        from normwright.cli.app import app

        app(prog_name="normwright")
    except KeyboardInterrupt:  # while the commands are imported; in one, it tells what it leaves
        sys.stderr.write("\nstopped: nothing was written\n")
        sys.exit(130)
    except NormwrightError as error:
        _fail(str(error))
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        _fail(
            f"this command needs the package {package!r}, which is not installed: "
            "pip install 'normwright[lab]'"
        )


def _fail(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(1)
