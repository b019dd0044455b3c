"""The test of a trained run, taken once and kept: its metric, and of accuracy which samples are right."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from normwright.errors import StoreError
from normwright.lab.data import Data
from normwright.lab.objective import metric_named, right_answers
from normwright.lab.paired import Bools
from normwright.lab.recipe import Recipe
from normwright.lab.store import Store
from normwright.lab.training import build, predict, reproducible
from normwright.network.writing import is_expanded


@dataclass(frozen=True, eq=False)
class Tested:
    """What the test set says of a run.

    Args:
        metric: over all of the test set.
        right: (N,), which of its samples the run gets right, in the order that the digest in the recipe
            fixes; None for a user's metric, and where it was not kept.
    """

    metric: float
    right: Bools | None


def take_test(store: Store, recipe: Recipe, data: Data) -> Tested:
    """The test of a finished run.

    A run that was tested before answers were kept is asked for them again, and they count where they are
    those that gave its metric.

    Raises:
        StoreError: it was not tested yet, and its weights are missing or cannot be read.
    """
    run, name = recipe.hash, recipe.training.metric
    metric, right = store.test(run), store.answers(run, len(data.test_y))
    if metric is None:
        outputs, labels = _outputs(store, recipe, data)
        metric = metric_named(name)(outputs, labels)
        right = _right(outputs, labels) if name == "accuracy" else None
        store.record_test(run, metric)
        if right is not None:
            store.record_answers(run, right)
    elif right is None and name == "accuracy":
        right = _right_again(store, recipe, data, metric)
    return Tested(metric, right)


def _right_again(store: Store, recipe: Recipe, data: Data, metric: float) -> Bools | None:
    if not store.checkpoint_path(recipe.hash).exists():
        return None
    try:
        right = _right(*_outputs(store, recipe, data))
    except StoreError:
        return None  # the metric is known, and needs no weights
    if right.sum() != round(metric * len(right)):
        return None
    store.record_answers(recipe.hash, right)
    return right


def _right(outputs: Tensor, labels: Tensor) -> Bools:
    right: Bools = right_answers(outputs, labels).cpu().numpy()
    return right


def _outputs(store: Store, recipe: Recipe, data: Data) -> tuple[Tensor, Tensor]:
    """The outputs for all test samples, and the labels."""
    weights = store.load_checkpoint(recipe.hash)
    with reproducible(recipe.training):
        network = build(recipe, data).module
        _restore(network, weights)
        x, y = data.test_x.to(recipe.training.device), data.test_y.to(recipe.training.device)
        return predict(network, x), y


def _restore(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Loads the weights, with buffers of whatever shape training left them in."""
    for path, module in network.named_modules():
        for name, buffer in module._buffers.items():
            kept = weights.get(f"{path}.{name}" if path else name)
            if kept is not None and (buffer is None or buffer.shape != kept.shape or is_expanded(buffer)):
                module._buffers[name] = kept.to(next(network.parameters()).device)
    network.load_state_dict(weights)
