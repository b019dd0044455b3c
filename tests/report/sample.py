"""A comparison as a real one looks: curves, gaps, and runs that diverged."""

from __future__ import annotations

import math

from normwright.lab.records import (
    Band,
    Comparison,
    GradientProfile,
    Interval,
    Lead,
    Learning,
    RateMap,
    Ribbon,
    Row,
)

NORMS = ("none", "batch", "layer", "group", "rms")
BATCH_SIZES = (2, 32)
LRS = (0.1, 0.3, 1.0, 3.0)
LAYERS = ("features.norm1", "features.norm2", "classifier.norm3")
WEIGHTS = ("features.conv1", "features.conv2", "classifier.linear1", "classifier.linear2")

# How soon each normaliser learns and how well it ends, per batch size; None diverges in every run.
_SPEED: dict[tuple[str, int], tuple[float, float] | None] = {
    ("none", 2): None,
    ("batch", 2): (0.9, 0.61),
    ("layer", 2): (3.4, 0.952),
    ("group", 2): (3.9, 0.958),
    ("rms", 2): (3.0, 0.949),
    ("none", 32): (0.55, 0.87),
    ("batch", 32): (5.2, 0.974),
    ("layer", 32): (3.1, 0.958),
    ("group", 32): (3.6, 0.963),
    ("rms", 32): (2.9, 0.955),
}


def comparison(
    *,
    network: str = "mlp",
    data: str = "digits",
    norms: tuple[str, ...] = NORMS,
    batch_sizes: tuple[int, ...] = BATCH_SIZES,
    layers: tuple[str, ...] = LAYERS,
    seeds: int = 3,
    records: int = 40,
    diverge_all: bool = False,
) -> Comparison:
    """A comparison; at batch size 2 every run without a normaliser diverged, and batch norm is poor."""
    alive = [
        (norm, size)
        for size in batch_sizes
        for norm in norms
        if not diverge_all and _speed(norm, size) is not None
    ]
    steps = tuple(range(0, 40 * records, 40))
    return Comparison(
        network=network,
        data=data,
        metric="accuracy",
        target=0.85,
        command=f"normwright compare {network} --data {data} --norm {','.join(norms)} "
        f"--batch-size {','.join(map(str, batch_sizes))} --lr 0.1,0.3,1,3 --seeds {seeds}",
        machine="cpu, 2 cores, torch 2.13.0, Python 3.11.2, Linux x86_64",
        epochs=10,
        runs=len(norms) * len(batch_sizes) * len(LRS) * seeds,
        rows=tuple(
            _row(norm, size, seeds, dead=(norm, size) not in alive) for size in batch_sizes for norm in norms
        ),
        verdicts=tuple((size, _verdict(size, dead=diverge_all)) for size in batch_sizes),
        leads=tuple(_lead(size, norms, seeds, dead=diverge_all) for size in batch_sizes),
        learning=tuple(_learning(norm, size, seeds) for norm, size in alive),
        rate_maps=tuple(_rate_map(norm, batch_sizes, seeds, dead=diverge_all) for norm in norms),
        ribbons=tuple(
            _ribbon(norm, size, layer, depth, steps)
            for norm, size in alive
            for depth, layer in enumerate(layers)
            if steps
        ),
        gradients=tuple(_profile(norm, size, steps) for norm, size in alive if steps),
    )


def _speed(norm: str, size: int) -> tuple[float, float] | None:
    return _SPEED.get((norm, size), (2.0 + 0.3 * len(norm), 0.94))


def _verdict(size: int, *, dead: bool) -> str:
    if dead:
        return "Every run diverged, so there is nothing to choose between: try lower learning rates."
    if size == 2:
        return (
            "Group norm is best (test accuracy 0.958), but layer norm is within the noise of three seeds. "
            "Without a normaliser every run diverged; batch norm never reached 0.85."
        )
    return (
        "Batch norm is best (test accuracy 0.974, 95 % interval 0.968 to 0.980): it reaches 0.85 in "
        "9.45 times fewer steps than no normaliser."
    )


def _lead(size: int, norms: tuple[str, ...], seeds: int, *, dead: bool) -> Lead:
    alive = {norm: speed[1] for norm in norms if (speed := _speed(norm, size)) is not None}
    if dead or not alive:
        return Lead(size, None, None, (), (), "diverged")
    highest = max(alive, key=lambda norm: alive[norm])
    if seeds < 3:
        return Lead(size, highest, None, tuple(norm for norm in alive if norm != highest), (), "seeds")
    level = ("layer",) if size == 2 and "layer" in alive else ()
    return Lead(size, highest, None if level else highest, level, (), "level" if level else "")


def _interval(mean: float, half: float, seeds: int) -> Interval:
    return Interval(mean, mean - half, mean + half, seeds) if seeds > 1 else Interval(mean, None, None, 1)


def _row(norm: str, size: int, seeds: int, *, dead: bool) -> Row:
    speed = _speed(norm, size)
    if dead or speed is None:
        return Row(norm, size, None, None, None, 0, seeds, None, None, 1.0, None, None, 0, 0)
    pace, final = speed
    reached = seeds if final > 0.85 else 0
    ratio = None if not reached or size == 2 else _interval(pace / 0.55, 0.3 * pace, seeds)
    return Row(
        norm=norm,
        batch_size=size,
        lr=0.3 if norm == "layer" else 1.0,
        test=_interval(final, 0.006, seeds),
        validation=_interval(final + 0.004, 0.005, seeds),
        reached=reached,
        seeds=seeds,
        steps=_interval(4000 / pace, 160, seeds) if reached else None,
        ratio=ratio,
        diverged=0.25 if norm in ("layer", "none") else 0.0,
        milliseconds=1.84 + 0.2 * len(norm),
        peak_bytes=7_340_032 + 100_000 * len(norm),
        places=6 if norm != "none" else 0,
        left_out=2 if norm == "group" else 0,
    )


def _band(steps: tuple[int, ...], values: list[float], spread: float) -> Band:
    return Band(
        steps,
        tuple(values),
        tuple(value * (1 - spread) for value in values),
        tuple(value * (1 + spread) for value in values),
    )


def _learning(norm: str, size: int, seeds: int) -> Learning:
    pace, final = _speed(norm, size) or (1.0, 0.5)
    spread = 0.12 if seeds > 1 else 0.0
    steps = tuple(range(1600))
    loss = [2.3 * math.exp(-pace * step / 700) + 0.02 + 0.01 * (1 + math.sin(step * 1.7)) for step in steps]
    evaluations = tuple(range(0, 1601, 40))
    metric = [0.1 + (final - 0.1) * (1 - math.exp(-pace * step / 500)) for step in evaluations]
    return Learning(norm, size, _band(steps, loss, spread), _band(evaluations, metric, spread / 6))


def _rate_map(norm: str, sizes: tuple[int, ...], seeds: int, *, dead: bool) -> RateMap:
    def metric(size: int, lr: float) -> float | None:
        speed = _speed(norm, size)
        if dead or speed is None or (norm == "layer" and lr == 3.0):
            return None
        return speed[1] * (1 - 0.08 * abs(math.log10(lr)))

    def diverged(size: int, lr: float) -> int:
        return seeds if metric(size, lr) is None else int(norm == "rms" and lr == 3.0)

    return RateMap(
        norm,
        LRS,
        sizes,
        tuple(tuple(metric(size, lr) for lr in LRS) for size in sizes),
        tuple(tuple(diverged(size, lr) for lr in LRS) for size in sizes),
    )


def _ribbon(norm: str, size: int, layer: str, depth: int, steps: tuple[int, ...]) -> Ribbon:
    def triple(step: int, *, normalised: bool) -> tuple[float, float, float]:
        if norm == "rms" and depth == 0 and not normalised:
            return -40.0 - step, 0.1 * step, 40.0 + step  # far wider than the others
        drift = math.sin(step / 300 + depth + len(norm)) * (0.15 if normalised else 0.8)
        width = 1.0 if normalised else 0.6 + step / 900
        return drift - width, drift, drift + width

    return Ribbon(
        norm,
        size,
        layer,
        steps,
        tuple(triple(step, normalised=False) for step in steps),
        tuple(triple(step, normalised=norm != "none") for step in steps),
    )


def _profile(norm: str, size: int, steps: tuple[int, ...]) -> GradientProfile:
    depth = len(WEIGHTS)

    def gradient(step: int, layer: int) -> float:
        if norm == "none" and step == 0 and layer == 0:
            return 0.0  # vanished altogether
        reach = 1.4 if norm == "none" else 0.06 + 0.05 * (ord(norm[0]) % 7)
        return 10 ** (-0.5 - reach * (depth - 1 - layer) - step / 2000)

    return GradientProfile(
        norm,
        size,
        WEIGHTS,
        steps,
        tuple(tuple(gradient(step, layer) for layer in range(depth)) for step in steps),
        tuple(tuple(0.01 * gradient(step, layer) ** 0.5 for layer in range(depth)) for step in steps),
    )
