"""Runs several commands in one process, because importing PyTorch takes longer than most of them.

`python many_commands.py '[[argument, …], …]'` prints [[status, output, errors], …] as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from normwright.cli import main


def run(arguments: list[str]) -> tuple[int, str, str]:
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    sys.argv = ["normwright", *arguments]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    for stream in (output, errors):
        stream.seek(0)
    return status, output.read(), errors.read()


if __name__ == "__main__":
    json.dump([run(arguments) for arguments in json.loads(sys.argv[1])], sys.stdout)
