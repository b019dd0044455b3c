"""One run: builds the network of a recipe, trains it, and measures what it costs."""

from __future__ import annotations

import copy
import dataclasses
import heapq
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from normwright.errors import OptionError, UserCodeError
from normwright.lab.data import Data, load
from normwright.lab.machine import CLOCKS, clock_of
from normwright.lab.memory import peak_bytes
from normwright.lab.networks import BuiltNetwork, build_network
from normwright.lab.objective import loss_named, metric_named
from normwright.lab.optimisation import make_optimiser, make_schedule
from normwright.lab.plain import plain_tensors
from normwright.lab.recipe import DataRecipe, Recipe, TrainingRecipe
from normwright.lab.recorder import Recorder, recorded_steps
from normwright.lab.run import RunResult
from normwright.network.acceleration.accelerate import accelerate

EVALUATION_BATCH = 1024

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Trained:
    """A finished run: what was measured, and the weights it ended with (on the CPU)."""

    result: RunResult
    weights: dict[str, Tensor]


# Those that take the moments of each channel over the samples of a batch.
_OVER_THE_BATCH = ("batch", "renorm", "ghost", "whitening")


def check_batch(recipe: Recipe, samples: int) -> None:
    """A batch must fit the training split, and batch norm needs two samples in every batch.

    Args:
        recipe: says how many of the samples are used, and in what batches.
        samples: of the whole training split.
    Raises:
        OptionError: more samples are asked for than there are; the batch is larger than the split, or leaves
            a normaliser over the batch a last batch of one; virtual batches do not divide the batch.
    """
    training, norm, size = recipe.training, recipe.training.norm, recipe.training.batch_size
    if training.samples > samples:
        raise OptionError(
            f"samples must be at most the {samples:,} samples of the training split, but is "
            f"{training.samples:,}: 0 takes all"
        )
    samples = training.samples or samples
    if size > samples:
        raise OptionError(
            f"batch size must be at most the {samples:,} samples of the training split, but is {size:,}"
        )
    ghost_size = recipe.network.ghost_size
    if norm == "ghost" and size % ghost_size:
        raise OptionError(
            f"ghost norm needs batches of whole virtual batches, but batch size {size} is no multiple of "
            f"the ghost_size {ghost_size}: take a ghost_size that divides it, or leave ghost norm out"
        )
    last = smallest_batch(training, samples)
    least = last % ghost_size or ghost_size if norm == "ghost" else last
    if norm in _OVER_THE_BATCH and least == 1:
        to_take = "another ghost_size" if norm == "ghost" else _fitting_sizes(size, samples)
        raise OptionError(
            f"{norm} norm needs at least two samples in every {'virtual ' if norm == 'ghost' else ''}batch, "
            f"but batch size {size} leaves one of the {samples:,} samples for the last batch: "
            f"{f'take {to_take}, or ' if to_take else ''}leave {norm} norm out"
        )


def _fitting_sizes(size: int, samples: int) -> str:
    """The two batch sizes nearest to one that leaves a last batch of one, which leave none; "" for none."""
    fitting = (other for other in range(2, samples + 1) if samples % other != 1)
    return " or ".join(map(str, sorted(heapq.nsmallest(2, fitting, key=lambda other: abs(other - size)))))


def smallest_batch(recipe: TrainingRecipe, samples: int) -> int:
    """Samples of the smallest batch of a run over so many: the last of an epoch, if the run comes so far."""
    cut_short = 0 < recipe.max_steps < steps_per_epoch(recipe, samples)
    return recipe.batch_size if cut_short else samples % recipe.batch_size or recipe.batch_size


def steps_per_epoch(recipe: TrainingRecipe, samples: int) -> int:
    """Training steps in one pass over so many samples; the last batch may be smaller."""
    return math.ceil(samples / recipe.batch_size)


def steps_in_all(recipe: TrainingRecipe, samples: int) -> int:
    """Training steps of a run over so many samples: its epochs, or fewer if `max_steps` ends it."""
    steps = recipe.epochs * steps_per_epoch(recipe, samples)
    return min(steps, recipe.max_steps) if recipe.max_steps else steps


def used_samples(recipe: TrainingRecipe, data: Data) -> Data:
    """The data with as much of its training split as the recipe uses, in the order in which they stand.

    Of their labels, the recipe's share is wrong.
    """
    if recipe.samples not in (0, len(data.train_y)):
        order = torch.randperm(len(data.train_y), generator=torch.Generator().manual_seed(0))
        chosen = order[: recipe.samples].sort().values
        data = dataclasses.replace(data, train_x=data.train_x[chosen], train_y=data.train_y[chosen])
    if recipe.label_noise:
        wrong = _some_wrong(data.train_y, recipe.label_noise, len(data.classes))
        data = dataclasses.replace(data, train_y=wrong)
    return data


def _some_wrong(labels: Tensor, share: float, classes: int) -> Tensor:
    """The labels, a share of them replaced by another class; which and by which is the same in every run."""
    generator = torch.Generator().manual_seed(0)
    changed = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    steps = torch.randint(1, classes, (len(changed),), generator=generator)
    wrong = labels.clone()
    wrong[changed] = (labels[changed] + steps) % classes
    return wrong


class Sized(Protocol):
    """What of the data decides a network's shape."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""


def build(recipe: Recipe, data: Sized) -> BuiltNetwork:
    """The network of a recipe, on its device, with weights drawn from its seed; accelerated on the CPU.

    Draws from PyTorch's global generator, which it seeds.
    """
    torch.manual_seed(recipe.training.seed)
    built = build_network(recipe.network, recipe.training.norm, data.sample_shape, len(data.classes))
    built.module.to(recipe.training.device)
    if torch.device(recipe.training.device).type == "cpu":
        accelerate(built.module, inplace=True)
    return built


def train(recipe: Recipe, data: Data, *, on_step: OnStep | None = None) -> Trained:
    """Trains the network of a recipe. Equal recipes and data give equal numbers on one machine.

    PyTorch's random state and thread count are as before when it returns or raises.

    Args:
        recipe: what is trained, and how.
        data: the recipe's data set.
        on_step: called after every step with (steps done, steps in all).
    Returns:
        The measurements and the weights. A loss or an output that is not finite ends the run as diverged.
    Raises:
        OptionError: a batch size that does not fit the data; see `check_batch`.
        UserCodeError: a user's network, loss or metric returns the wrong thing.
        Whatever a user's code raises.
    """
    check_batch(recipe, len(data.train_y))
    with reproducible(recipe.training):
        built = build(recipe, data)
        used = used_samples(recipe.training, data).to(recipe.training.device)
        return Run(recipe.training, built, used).train(on_step)


def run_recipe(recipe: Recipe, *, directory: Path | None = None, on_step: OnStep | None = None) -> Trained:
    """`train` on the data that the recipe names; a process reads them once for many runs."""
    return train(recipe, load_once(recipe.data, directory), on_step=on_step)


# The data set of the last run of this process; most often the next run has the same.
_last_loaded: dict[DataRecipe, Data] = {}


def load_once(recipe: DataRecipe, directory: Path | None) -> Data:
    """`load`, remembered by the recipe with its digest; one without a digest reads the data anew.

    The digest is that of the source, and does not tell how it is split.
    """
    if recipe.digest and recipe in _last_loaded:
        return _last_loaded[recipe]
    with plain_tensors():
        data = load(recipe, directory=directory)
    _last_loaded.clear()
    _last_loaded[dataclasses.replace(recipe, digest=data.digest)] = data
    return data


@torch.no_grad()
def predict(network: nn.Module, x: Tensor) -> Tensor:
    """The outputs (N, classes) for samples x (N, ...) in inference mode; the mode is put back afterwards."""
    training = network.training
    network.eval()
    try:
        # Clones, because a network may change its input in place, and the samples are evaluated again.
        return torch.cat([network(part.clone()) for part in x.split(EVALUATION_BATCH)])
    finally:
        network.train(training)


def evaluate(network: nn.Module, x: Tensor, y: Tensor, metric: str) -> float:
    """The metric over all of x and y, in inference mode.

    Args:
        network: (N, ...) -> (N, classes).
        x: (N, ...) samples; y: (N,) labels, on the network's device.
        metric: as in the recipe.
    """
    return metric_named(metric)(predict(network, x), y)


@contextmanager
def reproducible(recipe: TrainingRecipe) -> Iterator[None]:
    """Threads, random state, choice of algorithms and `plain_tensors` of a run, put back afterwards.

    The generators of PyTorch, NumPy and Python are seeded, for a user's code may draw from any.
    """
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    device = torch.device(recipe.device)
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), plain_tensors():
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        # One CPU thread has no choice to make, and PyTorch's switch costs a second and fills fresh memory.
        if device.type != "cpu" or recipe.threads > 1:
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_num_threads(threads)
            if torch.are_deterministic_algorithms_enabled() != deterministic:
                torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


class Run:
    """One run while it trains."""

    def __init__(self, recipe: TrainingRecipe, built: BuiltNetwork, data: Data) -> None:
        self.recipe, self.data, self.placement = recipe, data, built.placement
        self.network = built.module
        self.loss, self.metric = loss_named(recipe.loss), metric_named(recipe.metric)
        self.steps = steps_in_all(recipe, len(data.train_y))
        self.optimiser = make_optimiser(recipe, self.network.parameters())
        self.schedule = make_schedule(recipe, self.optimiser, self.steps)
        self.recorder = Recorder(self.network, self.placement.places, seed=recipe.seed)
        self.recorded = recorded_steps(self.steps, recipe.records)
        self.evaluated = _evaluated_steps(recipe, self.steps, steps_per_epoch(recipe, len(data.train_y)))
        self.losses: list[float] = []
        self.clock = clock_of(recipe.device, recipe.threads)
        self.now = CLOCKS[self.clock]
        self.seconds: list[float] = []
        self.evaluations: list[tuple[int, float]] = []

    def train(self, on_step: OnStep | None) -> Trained:
        """Every step, evaluation and recording of the run."""
        peak = self._peak_bytes()
        diverged = False
        try:
            for step, chosen in enumerate(itertools.islice(self._batches(), self.steps)):
                if not self.step(step, self.data.train_x[chosen], self.data.train_y[chosen]):
                    diverged = True
                    break
                if step + 1 in self.evaluated and not self._evaluate(step + 1):
                    diverged = True
                    break
                if on_step is not None:
                    on_step(step + 1, self.steps)
        finally:
            self.recorder.stop()
        return Trained(self._result(diverged, peak), _on_cpu(self.network.state_dict()))

    def _batches(self) -> Iterator[Tensor]:
        """Indices of each batch: a new order every epoch if the recipe shuffles, whatever the normaliser."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        samples = len(self.data.train_y)
        for epoch in range(self.recipe.epochs):
            if epoch == 0 or self.recipe.shuffle:
                order = torch.randperm(samples, generator=generator).to(self.data.train_y.device)
            yield from order.split(self.recipe.batch_size)

    def step(self, step: int, x: Tensor, y: Tensor) -> bool:
        """One training step; False when the loss is not finite."""
        recorded = step in self.recorded
        start = self.now()
        if recorded:
            self.recorder.begin(step)
        self.optimiser.zero_grad()
        loss = self.loss(self._outputs(x), y)
        self.losses.append(float(loss.detach()))
        if not math.isfinite(self.losses[-1]):
            return False
        loss.backward()
        if recorded:
            self.recorder.after_backward()
        self.optimiser.step()
        self.schedule.step()
        if recorded:
            self.recorder.after_update()
        else:
            finish_queue(x.device)
            self.seconds.append(self.now() - start)
        return True

    def _outputs(self, x: Tensor) -> Tensor:
        outputs = self.network(x)
        if not (isinstance(outputs, Tensor) and outputs.shape[:1] == x.shape[:1]):
            raise UserCodeError(
                f"the network must return a tensor with one row per sample ({len(x)}), "
                f"but returned {getattr(outputs, 'shape', type(outputs).__name__)}"
            )
        return outputs

    def _evaluate(self, done: int) -> bool:
        """Takes the validation metric; False when the last update left no finite outputs to take it of."""
        outputs = predict(self.network, self.data.validation_x)
        if not bool(torch.isfinite(outputs).all()):
            return False
        self.evaluations.append((done, self.metric(outputs, self.data.validation_y)))
        return True

    def _peak_bytes(self) -> int:
        """Measured on copies, so that neither the weights, the data nor the random state are touched."""
        x, y = (part[: self.recipe.batch_size].clone() for part in (self.data.train_x, self.data.train_y))
        network = copy.deepcopy(self.network)
        optimiser = make_optimiser(self.recipe, network.parameters())

        def step() -> None:
            optimiser.zero_grad()
            self.loss(network(x), y).backward()
            optimiser.step()

        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            step()  # the optimiser's state is there from the second step on
            optimiser.zero_grad()
            state = [value for values in optimiser.state.values() for value in values.values()]
            held = [*network.parameters(), *network.buffers(), *state, x, y]
            return peak_bytes(step, [value for value in held if isinstance(value, Tensor)], x.device)

    def _result(self, diverged: bool, peak: int) -> RunResult:
        return RunResult(
            diverged=diverged,
            loss=np.asarray(self.losses, dtype=np.float32),
            evaluation_steps=np.asarray([step for step, _ in self.evaluations], dtype=np.int64),
            validation=np.asarray([value for _, value in self.evaluations], dtype=np.float64),
            milliseconds=1000 * statistics.median(self.seconds) if self.seconds else math.nan,
            peak_bytes=peak,
            places=len(self.placement.places),
            left_out=len(self.placement.left_out),
            trace=self.recorder.trace(),
            clock=self.clock,
        )


def _evaluated_steps(recipe: TrainingRecipe, steps: int, per_epoch: int) -> frozenset[int]:
    """`evaluations` points per epoch, evenly spaced, the last at the end of training."""
    points = min(math.ceil(recipe.evaluations * steps / per_epoch), steps)
    return frozenset(math.ceil(steps * (i + 1) / points) for i in range(points))


def finish_queue(device: torch.device) -> None:
    """Waits for a GPU, so that a step's time is its own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _on_cpu(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in state.items() if isinstance(value, Tensor)}
