"""Lets these tests import what they share, under any way of starting pytest."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent

for folder in (str(HERE.parent), str(HERE)):
    if folder not in sys.path:
        sys.path.append(folder)
