"""Times one kernel launcher under candidates of its launch settings."""

from __future__ import annotations

import importlib
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.alternate import Task
from benchmarks.cases import EPS, Case
from benchmarks.contenders import MOMENTUM
from benchmarks.device import rotation
from benchmarks.device.bandwidth import fraction_of, least_copies
from benchmarks.device.candidates import candidates
from benchmarks.device.clock import clock_of, in_turn
from benchmarks.device.measure import in_modes, inputs_of
from benchmarks.inputs import Inputs
from normwright.backends.gradients import DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.masks import MASKED

FAMILIES = {
    "batch_norm": "channels",
    "group_norm": "groups",
    "instance_norm": "groups",
    "layer_norm": "rows",
    "rms_norm": "rows",
}

# How far a result may be from that of the table's own settings, which adds up in another order.
_TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float32: 1e-4}

# Called with settings, or None for the table's own: the gradients, or y and what is kept.
Launcher = Callable[[Any], Sequence[Tensor]]


@dataclass(frozen=True)
class Trial:
    """What is tried: a case (of mode "step") and the part of it, "forward" or "backward"."""

    case: Case
    part: str
    device: str = "cuda"
    seconds: float = 1.0
    most: int | None = None
    least: int = 7


class Tried(NamedTuple):
    """One candidate: its settings, its fraction of the copy bandwidth, or why it has none."""

    settings: str
    fraction: float | None
    trouble: str = ""


@dataclass(frozen=True)
class TrialResult:
    """The candidates of a trial, the table's own first."""

    trial: Trial
    tried: tuple[Tried, ...]

    @property
    def own(self) -> Tried:
        """The table's own."""
        return self.tried[0]

    @property
    def best(self) -> Tried:
        """The quickest."""
        return max(self.tried, key=lambda tried: tried.fraction or 0.0)


def run_trial(trial: Trial) -> TrialResult:
    """Times every candidate in turn, beside a copy, on sets of inputs in a row."""
    device = torch.device(trial.device)
    count = rotation.sets_needed(trial.case, rotation.second_cache_bytes(device))
    sets = [inputs_of(trial.case, device, seed) for seed in range(count)]
    launchers = [_launcher(trial, inputs) for inputs in sets]
    options = _options(trial, sets[0])
    trouble = {str(settings): _trouble(trial, launchers[0], settings) for settings in options}
    tasks: dict[str, Task] = {
        str(settings): _rotating(launchers, settings)
        for settings in options
        if trouble[str(settings)] is None
    }
    copy = {"copy": rotation.rotating_copy(sets)}
    timings = in_turn(copy | tasks, clock_of(device), seconds=trial.seconds, least=trial.least)
    unit = timings["copy"].median
    copies = least_part_copies(trial)
    return TrialResult(
        trial,
        tuple(
            Tried(name, fraction_of(copies, timings[name].median, unit))
            if name in timings
            else Tried(name, None, trouble[name] or "")
            for name in map(str, options)
        ),
    )


def compile_trial(trial: Trial) -> None:
    """Runs every candidate once, for what that compiles."""
    inputs = inputs_of(trial.case, torch.device(trial.device), seed=0)
    launcher = _launcher(trial, inputs)
    for settings in _options(trial, inputs):
        _trouble(trial, launcher, settings)


def least_part_copies(trial: Trial) -> float:
    """The least copies of the part alone."""
    forward, step = (least_copies(case) for case in in_modes(trial.case, ("forward", "step")))
    return forward if trial.part == "forward" else step - forward


def _options(trial: Trial, inputs: Inputs) -> list[Any]:
    return candidates(own_settings(trial, inputs.x))[: trial.most]


def own_settings(trial: Trial, x: Tensor) -> Any:
    """What the table says for the trial."""
    case, backward = trial.case, trial.part == "backward"
    package = "normwright.backends.triton"
    family = FAMILIES[case.operator]
    if family == "rows":
        table = importlib.import_module(f"{package}.settings")
        assert case.normalized_shape is not None
        return table.rows_tile(math.prod(case.normalized_shape), backward=backward)
    if family == "channels":
        view = importlib.import_module(f"{package}.channels_view")
        masked = case.residual and case.activation in MASKED
        derives = case.activation is not None and not masked
        return view.seen_as_channels(x, None, backward=backward, derives=derives and backward).tile
    table = importlib.import_module(f"{package}.groups_settings")
    channels, space = x.shape[1], math.prod(x.shape[2:])
    share = channels // _groups(case)
    if case.layout == "channels-last":
        return table.group_columns(channels, share, space, x.element_size(), backward=backward)
    whole = table.group_tile(share, space, backward=backward)
    return whole or table.group_pieces(share, space, backward=backward)


def _groups(case: Case) -> int:
    return case.groups or case.shape[1]


def _launcher(trial: Trial, inputs: Inputs) -> Launcher:
    """The launcher of the trial's part with everything but its settings filled in."""
    family = FAMILIES[trial.case.operator]
    module = importlib.import_module(f"normwright.backends.triton.{family}")
    given, activation = _detached(inputs), trial.case.activation
    masked = given.residual is not None and activation in MASKED
    forward = getattr(module, f"{family}_forward{'_masked' if masked else ''}")
    settings = _settings(trial.case, given)
    call = (given.x, given.residual, given.weight, given.bias, *settings, EPS, activation)
    if trial.part == "forward":
        return _with_settings(forward, call)
    _, moments, *mask = forward(*call)
    inputs_again = (
        given.x,
        None if masked or activation is None else given.residual,
        given.weight,
        given.bias,
    )
    kept = (mask[0] if masked else None, moments, *(settings if family != "channels" else ()))
    wanted = DX | (DRESIDUAL if given.residual is not None and activation else 0) | DWEIGHT
    wanted |= DBIAS if given.bias is not None else 0
    backward = getattr(module, f"{family}_backward")
    return _with_settings(backward, (given.dy, *inputs_again, *kept, activation, wanted))


def _settings(case: Case, inputs: Inputs) -> tuple[Any, ...]:
    """What stands between the tensors and eps in a forward."""
    if case.operator == "batch_norm":
        return (inputs.running_mean, inputs.running_var, None, MOMENTUM)
    if case.normalized_shape is not None:
        return (len(case.normalized_shape), case.center)
    return (_groups(case),)


def _with_settings(function: Callable[..., Any], call: tuple[Any, ...]) -> Launcher:
    return lambda settings: function(*call, tile=settings)


def _detached(inputs: Inputs) -> Inputs:
    return Inputs(*(None if tensor is None else tensor.detach() for tensor in inputs))  # type: ignore[arg-type]


def _rotating(launchers: Sequence[Launcher], settings: Any) -> Task:
    def run() -> None:
        kept = [launcher(settings) for launcher in launchers]
        kept.clear()

    return run


def _trouble(trial: Trial, launcher: Launcher, settings: Any) -> str | None:
    """Why a candidate is not timed: it raises, or gives another result than the table's own."""
    try:
        wanted, found = launcher(None), launcher(settings)
        results = slice(0, 1) if trial.part == "forward" else slice(None)
        same = all(_close(a, b) for a, b in zip(wanted[results], found[results], strict=True))
    except Exception as error:
        traceback.print_exc()
        return f"raises {type(error).__name__}: {error}".splitlines()[0][:120]
    return None if same else "gives another result"


def _close(wanted: Tensor | None, found: Tensor | None) -> bool:
    if wanted is None or found is None:
        return wanted is found
    if not wanted.numel():
        return not found.numel()
    largest = float(wanted.abs().max())
    return float((wanted.float() - found.float()).abs().max()) <= _TOLERANCE[wanted.dtype] * max(largest, 1.0)
