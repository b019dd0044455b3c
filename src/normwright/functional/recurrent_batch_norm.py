"""Batch normalisation with statistics per time step, as a function."""

from __future__ import annotations

from torch import Tensor

from normwright.errors import OptionError
from normwright.functional.arguments import whole
from normwright.functional.batch_norm import batch_norm
from normwright.functional.step_statistics import StepStatistics, check_step_statistics


def recurrent_batch_norm(
    input: Tensor,
    step: int,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches_tracked: Tensor | None = None,
    moving: bool = True,
) -> Tensor:
    """Normalises each channel at one time step of a recurrent network, by the statistics of that step.

        y = (x - mean)/√(variance + eps)·weight + bias

    In training mean and biased variance are the batch's, and row min(step, T - 1) of the running statistics
    moves towards them, as in `batch_norm`; in inference they are that row's.

    Args:
        input: (N, C), floating point; the N sequences that have this step.
        step: counted from 0.
        running_mean, running_var: (T, C), the last row for all steps from T - 1 on. Moved in place.
        weight, bias: (C,), or None for 1 and 0.
        training: normalise by this batch's moments.
        momentum: share of this batch in the running statistics; None takes 1/num_batches_tracked.
        eps: added to the variance; same unit as input².
        num_batches_tracked: (T,), integers, raised by one in training; needed where momentum is None.
        moving: whether training moves the running statistics.
    Returns:
        (N, C).
    Raises:
        ShapeError: a single sequence in training, or a tensor of another shape.
        OptionError: a step below 0, or momentum=None without num_batches_tracked.
    References:
        Cooijmans et al. 2017, arXiv:1603.09025.
    Example:
        >>> x, mean, variance = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1), torch.ones(2, 1)
        >>> recurrent_batch_norm(x, 5, mean, variance, training=True, momentum=0.5).round()
        tensor([[-1.],
                [ 1.]])
        >>> mean.flatten()
        tensor([0., 1.])
    """
    step = whole("step", step)
    if step < 0:
        raise OptionError(f"step must be at least 0, but is {step}: time steps are counted from 0")
    features = input.shape[1] if input.dim() > 1 else 0
    check_step_statistics(features, running_mean, running_var, num_batches_tracked, momentum)
    count = running_mean if num_batches_tracked is None else num_batches_tracked
    slot = StepStatistics(running_mean, running_var, count, momentum).slot(step)
    mean: Tensor | None = running_mean[slot]
    variance: Tensor | None = running_var[slot]
    counted = None if num_batches_tracked is None or not training else num_batches_tracked[slot]
    if training and not moving:
        mean = variance = counted = None
    call = (mean, variance, weight, bias, training, momentum, eps)
    return batch_norm(input, *call, num_batches_tracked=counted)
