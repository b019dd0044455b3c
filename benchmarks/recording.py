"""What recording the layers costs: python -m benchmarks.recording.

A LeNet training step on Fashion-MNIST at batch 256, in turn: a bare step that knows nothing of recording,
a step with recording off, and one that is recorded. A run of E epochs records `records` of its 211·E steps;
its cost is that share of the recorded step's extra time.
"""

from __future__ import annotations

import itertools

from benchmarks.alternate import alternate
from normwright.lab.grid import make_base
from normwright.lab.recipe import TrainingRecipe
from normwright.lab.training import Run, build, load_once, reproducible, steps_per_epoch

REPEATS = 100


def main() -> None:
    """Measures and prints."""
    recipe = make_base("lenet", "fashion-mnist", norm="batch", batch_size=256, lr=0.3, epochs=1, records=0)
    data = load_once(recipe.data, None)
    batch = (data.train_x[:256], data.train_y[:256])
    with reproducible(recipe.training):
        runs = [Run(recipe.training, build(recipe, data), data) for _ in range(3)]
        bare, off, on = runs
        on.recorded = frozenset(range(10**6))
        counters = [itertools.count(), itertools.count()]

        def bare_step() -> None:
            bare.optimiser.zero_grad()
            loss = bare.loss(bare.network(batch[0]), batch[1])
            float(loss.detach())
            loss.backward()
            bare.optimiser.step()
            bare.schedule.step()

        timings = alternate(
            {
                "bare": bare_step,
                "off": lambda: off.step(next(counters[0]), *batch),
                "recorded": lambda: on.step(next(counters[1]), *batch),
            },
            repeats=REPEATS,
        )
    cost_off = timings["off"].ratio_to(timings["bare"]) - 1
    cost_recorded = timings["recorded"].ratio_to(timings["off"]) - 1
    print(f"bare step {1e3 * timings['bare'].median:.1f} ms, {REPEATS} repetitions in turn")
    print(f"recording off: {cost_off:+.1%} of a bare step")
    print(f"a recorded step: {cost_recorded:+.1%} of a step")
    records = TrainingRecipe(norm="none", batch_size=256, lr=1.0).records
    for epochs in (1, 10):
        steps = epochs * steps_per_epoch(recipe.training, len(data.train_y))
        print(f"{records} records in {epochs} epochs ({steps} steps): {cost_recorded * records / steps:+.1%}")


if __name__ == "__main__":
    main()
