"""Tells whether a network's predictions have collapsed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from normwright.errors import OptionError

# Fewer predictions may well be of one class.
_FEW = 8

# Exchangeable numbers fall ten times in a row once in 11! = 4·10⁷.
_FALLS = 10

ScoresOf = Callable[[object], Tensor | None]
Batch = TypeVar("Batch")
Answer = TypeVar("Answer")


def class_scores(output: object) -> Tensor | None:
    """The class scores in what a network answers, (N, K, …), or None where there are none.

    A tensor is taken itself; else what is called `logits`, as an attribute or a key; else the first of a
    tuple or list.
    """
    if isinstance(output, list | tuple) and len(output) and not hasattr(output, "logits"):
        output = output[0]
    elif isinstance(output, Mapping):
        output = output.get("logits")
    elif not isinstance(output, Tensor):
        output = getattr(output, "logits", None)
    if isinstance(output, Tensor) and output.dim() > 1 and output.shape[1] > 1 and output.is_floating_point():
        return output.detach()
    return None


def answers_of_source(call: Callable[[Batch], Answer], batch: Batch, *, waits: bool) -> Callable[[], Answer]:
    """What the network itself answers a batch, asked once, and only where it is wanted.

    Where a forward `waits` for other processes it is asked at once: any of them may want the answer.
    """
    answer = functools.cache(functools.partial(call, batch))
    if waits:
        answer()
    return answer


class Guard:
    """Watches the predictions of a network that adapts, and says when they collapse.

    Collapsed are predictions that are all of one class where the source's, on the same batch, are not; and
    predictions whose mean entropy fell ten batches in a row, to less than half of where it stood.

    Args:
        scores_of: finds the class scores, (N, K, …), in an output; where it gives None, nothing is judged.
    """

    def __init__(self, scores_of: ScoresOf = class_scores) -> None:
        self._scores_of = scores_of
        self._entropies: list[float] = []
        self.judged = 0

    def reason(self, output: object, source: Callable[[], object]) -> str:
        """Why the predictions of a batch are refused, or "".

        Args:
            output: the adapted network's.
            source: answers the batch by the source network; called only where all are of one class.
        Raises:
            OptionError: what `scores_of` found is no (N, K, …).
        """
        scores = self._scores_of(output)
        if scores is None:
            return ""
        _check_scores(scores)
        if not scores.numel():
            return ""
        self.judged += 1
        classes = scores.argmax(1)
        if classes.numel() >= _FEW and bool((classes == classes.flatten()[0]).all()):
            before = self._scores_of(source())
            kinds = 1 if before is None else len(before.argmax(1).unique())
            if kinds > 1:
                return (
                    f"all {classes.numel()} predictions of a batch became class {int(classes.flatten()[0])}, "
                    f"where the source network predicts {kinds} classes"
                )
        return self._falling(_mean_entropy(scores))

    def forget(self) -> None:
        """Begins anew."""
        self._entropies.clear()

    def _falling(self, entropy: float) -> str:
        if self._entropies and not entropy < self._entropies[-1]:
            self._entropies.clear()
        self._entropies.append(entropy)
        if len(self._entropies) <= _FALLS or entropy >= self._entropies[0] / 2:
            return ""
        return (
            f"the predictions' entropy fell {len(self._entropies) - 1} batches in a row, from "
            f"{self._entropies[0]:.3g} to {entropy:.3g} nats"
        )


def _check_scores(scores: object) -> None:
    if isinstance(scores, Tensor) and scores.dim() > 1:
        return
    came = f"a tensor {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
    raise OptionError(
        f"scores_of= must find class scores (N, K, …) in what the network answers, but found {came}: have it "
        "return these, or None where there are none"
    )


def _mean_entropy(scores: Tensor) -> float:
    scores = scores.double() if scores.device.type in ("cpu", "cuda") else scores.float()
    sums = scores.sum(1)
    if bool((scores >= 0).all()) and bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-3).all()):
        probabilities = scores
    else:
        probabilities = scores.softmax(1)
    entropy = float(torch.special.entr(probabilities).sum(1).mean())
    return entropy if math.isfinite(entropy) else 0.0
