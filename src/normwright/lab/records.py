"""What a comparison found: plain frozen records, which the table, the JSON and the report are made from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval (Student's t); low and high are None for one seed."""

    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Row:
    """One normaliser at one batch size, at the learning rate that validation chose.

    Args:
        lr: the chosen learning rate, None when every run diverged.
        test, validation: the metric over the seeds at that rate; None when every run diverged.
        reached: how many seeds reached the target; `steps` and `ratio` are None unless all did.
        steps: training steps until the validation metric first reached the target.
        ratio: steps of no normaliser over steps of this one, paired by seed (above 1 is faster).
        diverged: share of all runs of this normaliser and batch size, over every rate, that diverged.
        milliseconds: median time of a training step, by `machine.clock_of`; None where no run was timed so.
        peak_bytes: most memory that tensors held at once in a training step.
        places: places of a normaliser in the network; `left_out`, those where this one is undefined.
    """

    norm: str
    batch_size: int
    lr: float | None
    test: Interval | None
    validation: Interval | None
    reached: int
    seeds: int
    steps: Interval | None
    ratio: Interval | None
    diverged: float
    milliseconds: float | None
    peak_bytes: int | None
    places: int
    left_out: int


@dataclass(frozen=True)
class Lead:
    """Who leads at one batch size, and whether that is a win. See `lead`, which holds the rule.

    Args:
        highest: the normaliser with the highest mean test metric, among those of which most seeds finished;
            None where every run diverged. One that finished in fewer seeds may have more.
        winner: the same where it is told from every other, and else None.
        level: those that are not shown to be lower than the highest.
        unfinished: those that cannot be told from it for the seeds that diverged: they got more in fewer
            seeds, or have fewer than three in common with it.
        doubt: why there is no winner, `diverged`, `chance`, `alone`, `seeds`, `unfinished` or `level`; ""
            where there is.
        by_totals: those compared with the highest by accuracies alone, as their answers to the test samples,
            or those of the highest, are not kept. The luck of the test set is then counted too low.
        enough_seeds: about how many seeds would tell the highest from all in `level`, were its leads to stay
            as they are; None where no number would, or it is not known.
        enough_samples: about how many test samples would, in the same number of seeds.
    """

    batch_size: int
    highest: str | None
    winner: str | None
    level: tuple[str, ...]
    unfinished: tuple[str, ...]
    doubt: str
    by_totals: tuple[str, ...] = ()
    enough_seeds: int | None = None
    enough_samples: int | None = None


@dataclass(frozen=True)
class Band:
    """A curve over training steps: mean over seeds, and the lowest and highest seed."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Learning:
    """Learning curves of one row: training loss and validation metric."""

    norm: str
    batch_size: int
    loss: Band
    metric: Band


@dataclass(frozen=True)
class RateMap:
    """Validation metric of one normaliser over learning rates (columns) and batch sizes (rows).

    A value is the mean over seeds; None where every seed diverged. `diverged` counts diverged seeds.
    """

    norm: str
    lrs: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    metric: tuple[tuple[float | None, ...], ...]
    diverged: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Ribbon:
    """15th, 50th and 85th percentile of one normaliser place over training, first seed of one row.

    `input` and `output` hold a triple (p15, p50, p85) per step in `steps`.
    """

    norm: str
    batch_size: int
    layer: str
    steps: tuple[int, ...]
    input: tuple[tuple[float, float, float], ...]
    output: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class GradientProfile:
    """Gradient norm and update-to-weight ratio by layer, first seed of one row.

    `gradient[i][j]` and `update[i][j]` belong to `steps[i]` and `layers[j]`; layers run from the
    input to the loss. A layer is a module that owns a weight; its norm is taken over its weight.
    """

    norm: str
    batch_size: int
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    gradient: tuple[tuple[float, ...], ...]
    update: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that one comparison found.

    Args:
        network, data, metric, target: as asked for.
        command: the command that makes this comparison again.
        machine: device, versions and core count, in one line.
        rows: one per normaliser and batch size, in the order asked for.
        verdicts: (batch size, verdict in words), one per batch size.
        leads: who leads and whether it wins, one per batch size in the same order.
        runs: how many runs there are in all.
        max_steps: training steps after which a run ends before its epochs do; 0 for none.
    """

    network: str
    data: str
    metric: str
    target: float
    command: str
    machine: str
    epochs: int
    runs: int
    rows: tuple[Row, ...]
    verdicts: tuple[tuple[int, str], ...]
    leads: tuple[Lead, ...]
    learning: tuple[Learning, ...]
    rate_maps: tuple[RateMap, ...]
    ribbons: tuple[Ribbon, ...]
    gradients: tuple[GradientProfile, ...]
    max_steps: int = 0

    def to_json(self, *, curves: bool = False) -> str:
        """The comparison as JSON, null for what is not finite; `curves=True` adds what the report draws."""
        parts = dataclasses.asdict(self)
        if not curves:
            for name in ("learning", "ribbons", "gradients"):
                del parts[name]
        # JSON has no infinity and no NaN; they are read back as null.
        finite = json.loads(json.dumps(parts), parse_constant=lambda name: None)
        return json.dumps(finite, indent=2, allow_nan=False)
