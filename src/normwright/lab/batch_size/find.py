"""Finds the batch size from which on training is no faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from normwright.doctor.random_states import random_states_kept
from normwright.errors import OptionError
from normwright.lab.advice.subject import subject_of
from normwright.lab.advice.trainee import Optimiser
from normwright.lab.batch_size.records import BatchSizes
from normwright.lab.batch_size.search import OnStage, Search
from normwright.lab.objective import Loss
from normwright.network.batch_call import ForwardFn


def find_batch_size(
    network: nn.Module | str,
    data: Any,
    loss: str | Loss | None = "cross_entropy",
    *,
    optimiser: Optimiser | str = "sgd",
    sizes: Sequence[int] | None = None,
    tolerance: float = 0.05,
    relative_error: float = 0.02,
    seconds: float = 3.0,
    norm: str | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    forward_fn: ForwardFn | None = None,
    on_stage: OnStage = lambda sentence: None,
    **options: Any,
) -> BatchSizes:
    """Times training steps at growing batch sizes until samples per second level off, and recommends one.

        rate(size) = size / median seconds of a step
        recommended: the smallest size that was run with rate ≥ (1 − tolerance)·(best rate that was run)

    Each rate has a 95 % interval, by the order statistics of the steps' times; where the intervals leave
    other sizes open, a note names them. A step is forward, backward and the optimiser's update on samples
    that lie on the device: reading data is not timed. The search ends where two sizes in a row raise neither
    the best rate nor the highest end of an interval by the tolerance, at the end of the data, or where memory
    is used up. All sizes are then timed again in turn, so that a busy moment of the machine meets them all.

    A copy of the network is trained, from its present values at every size. The network, its optimiser and
    all random states stay as they are, whatever happens; a stream of batches has been read.

    Args:
        network: in training mode as its parts are, else all of it is put into it (one that is compiled is
            timed as it was before); or a name as `compare` takes it: mlp, lenet, vgg, resnet20, lstm,
            `package.module:function`, `path/to/file.py:function`.
        data: a name as `compare` takes it, the two tensors (x, labels) or the four (x_train, y_train, x_test,
            y_test) as a user's function returns them, a data set of PyTorch, or batches of (x, labels) or
            of mappings with `labels`, of which at most 65,536 samples are read.
        loss: cross_entropy, mse, a function (outputs, labels) -> scalar or its name; None where the network's
            output holds it as `loss`.
        optimiser: sgd or adamw, an optimiser of this network, or what makes one for parameters.
        sizes: the sizes to run, all of them; by default 1, 2, 4, … until the search ends.
        tolerance: share of the best rate that the recommended size may lack.
        relative_error: half of a rate's interval, over the rate, at which it counts as known.
        seconds: of timed steps for a size, where it is not known before; seven steps at the least.
        norm: of a network by name, the normaliser in it; by default batch, or those of a function's own.
        device: of a network by name: auto, cpu or cuda.
        data_dir: where data files are looked for first.
        forward_fn: forward_fn(network, batch) in place of network(x).
        on_stage: called with a sentence about each size.
        options: momentum and weight_decay of an optimiser by name, image_size of images:DIR, and, of a
            network by name, any other field of `NetworkRecipe`, as of `compare`.
    Returns:
        The sizes that were run, the noise of batch-norm moments at each, and the recommendation.
    Raises:
        OptionError: an argument lies outside what is offered; there are more classes than outputs; no size
            could be run.
        DataError: no labels, no samples, or fewer than the smallest size.
        UserCodeError: the network fails on the data, or the loss is no scalar.
    Example:
        >>> import torch
        >>> x, labels = torch.randn(64, 8), torch.arange(64) % 2
        >>> found = find_batch_size(nn.Linear(8, 2), (x, labels), sizes=(16, 64), seconds=0.01)
        >>> found.recommended in (16, 64)
        True
    """
    asked = _checked_sizes(sizes)
    for what, value in (("tolerance", tolerance), ("relative_error", relative_error), ("seconds", seconds)):
        if not (isinstance(value, int | float) and 0 < value < (math.inf if what == "seconds" else 1)):
            raise OptionError(
                f"{what} must be above 0{'' if what == 'seconds' else ' and below 1'}, but is {value!r}"
            )
    with random_states_kept(0), torch.inference_mode(False):
        subject = subject_of(
            network, data, loss, optimiser=optimiser, norm=norm, device=device, data_dir=data_dir,
            forward_fn=forward_fn, options=options,
        )  # fmt: skip
        return Search(subject, asked, tolerance, relative_error, seconds, on_stage).run()


def _checked_sizes(sizes: Sequence[int] | None) -> tuple[int, ...]:
    if sizes is None:
        return ()
    if not hasattr(sizes, "__iter__") or not len(sizes):
        raise OptionError(f"sizes must be a sequence such as (32, 64), but is {sizes!r}")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionError(f"a batch size must be at least 1 and a whole number, but is {size!r}")
    return tuple(sorted(set(sizes)))
