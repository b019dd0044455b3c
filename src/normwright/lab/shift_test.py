"""`nw.shift_test`: whether two data sets come from one distribution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normwright.errors import OptionError
from normwright.lab.samples import Reading, Samples, read_samples
from normwright.shift.judge import Stage, check_options, judged
from normwright.shift.report import ShiftReport


def _silent(sentence: str) -> None:
    pass


def shift_test(
    reference: Any,
    current: Any,
    *,
    label: str = "",
    with_labels: bool = False,
    samples: int = 10_000,
    level: float = 0.05,
    alarm: float = 0.2,
    seed: int = 0,
    split: str | None = None,
    current_split: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    data_dir: Path | None = None,
    on_stage: Stage = _silent,
) -> ShiftReport:
    """Tests whether two data sets come from one distribution."""
    check_options(level, alarm, seed)
    if samples < 1:
        raise OptionError(f"samples must be at least 1, but is {samples}")
    sets: list[Samples] = []
    for source, name, usual, chosen in (
        (reference, "reference", "train", split),
        (current, "current", "test", current_split or split),
    ):
        on_stage(f"reading {source if isinstance(source, str | Path) else name}")
        how = Reading(
            samples,
            seed,
            label,
            chosen,
            image_size,
            None if mean is None else tuple(mean),
            None if std is None else tuple(std),
            data_dir,
        )
        read = read_samples(source, name, usual, how)
        sets.append(read.with_labels() if with_labels else read)
    return judged(
        sets[0].rows,
        sets[1].rows,
        level=level,
        alarm=alarm,
        seed=seed,
        notes=(*sets[0].notes, *sets[1].notes),
        on_stage=on_stage,
    )
