"""NaN or infinity, and the layer that it came from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import known
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject


def check(evidence: Evidence) -> Iterator[Fault]:
    """The inputs; then the first layer that gives such values, in the first mini-batch; or the gradients."""
    step = _first_bad_step(evidence)
    at_input = [given for given in known(lambda: evidence.inputs) if given.nonfinite]
    for given in at_input:
        # as in a mask of -inf, which is added before a softmax
        though = _though(evidence) if step is None else ""
        yield Fault(
            "", f"input {given.name} holds {_elements(given.nonfinite)} NaN or infinite{though}",
            given.nonfinite, "nonfinite", "note" if though else None,
        )  # fmt: skip
    of_layer = _first_layer(evidence, step)
    if of_layer is not None:
        if at_input and step is not None:
            message = f"{of_layer.message}; mend the input before this layer"
            of_layer = dataclasses.replace(of_layer, message=message)
        yield of_layer
    elif step is not None:
        yield _of_gradients(evidence, step)


def _first_layer(evidence: Evidence, step: int | None) -> Fault | None:
    """The first layer that gives such values: in the mini-batch that went wrong, else in any, as a note.

    One that gave some before, when all went well, as a mask does, is named only where there is no other.
    """
    bad = [
        (spread.step, facts.layer, spread)
        for facts in known(lambda: evidence.activations)
        for spread in facts.outputs
        if spread.nonfinite and (step is None or spread.step <= step)
    ]
    if not bad:
        return None
    if step is None:
        at, layer, spread = min(bad, key=lambda found: found[0])
    else:
        before = {layer for at, layer, _ in bad if at < step}
        now = [found for found in bad if found[0] == step]
        new = [found for found in now if found[1] not in before]
        if not now:
            return None
        at, layer, spread = (new or now)[0]
    return Fault(
        layer,
        f"{spread.nonfinite:,} of {spread.count:,} outputs are NaN or infinite in mini-batch {at + 1}, here "
        f"first{_though(evidence) if step is None else ''}",
        spread.nonfinite,
        "nonfinite",
        "note" if step is None else None,
    )


def _first_bad_step(evidence: Evidence) -> int | None:
    """The first mini-batch whose loss or gradient is not finite."""
    steps = [step for step, loss in enumerate(known(lambda: evidence.losses)) if not math.isfinite(loss)]
    steps += [
        step
        for facts in known(lambda: evidence.gradients)
        for step, count in zip(facts.steps, facts.nonfinite, strict=True)
        if count
    ]
    return min(steps, default=None)


def _elements(count: int) -> str:
    return "1 element that is" if count == 1 else f"{count:,} elements that are"


def _though(evidence: Evidence) -> str:
    """What is known to be finite where no mini-batch went wrong, or "" where neither could be seen."""
    if known(lambda: evidence.losses):
        return ", though the loss is finite"
    return ", though the gradients are finite" if known(lambda: evidence.gradients) else ""


def _of_gradients(evidence: Evidence, step: int) -> Fault:
    bad = {
        facts.layer: facts.nonfinite[facts.steps.index(step)]
        for facts in known(lambda: evidence.gradients)
        if step in facts.steps and facts.nonfinite[facts.steps.index(step)]
    }
    losses = known(lambda: evidence.losses)
    if losses and not math.isfinite(losses[step]):
        return Fault(
            "", f"the loss is {losses[step]} in mini-batch {step + 1}, though every layer's outputs are "
            "finite", None, "nonfinite",
        )  # fmt: skip
    # A backward begins at the loss.
    ordered = [layer.layer for layer in known(lambda: evidence.layer_gradients) if layer.layer in bad]
    layer = ordered[-1] if ordered else next(reversed(bad))
    though = ", though the loss is finite" if losses else ""
    return Fault(
        layer, f"its gradient is NaN or infinite in mini-batch {step + 1}{though}", bad[layer], "nonfinite"
    )


def healthy() -> Subject:
    """Weights of ordinary size."""
    return _subject(1.0)


def sick() -> Subject:
    """Weights whose products overflow float32 in the second layer."""
    return _subject(1e20)


def _subject(scale: float) -> Subject:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    batch = torch.randn(16, 4), torch.randint(2, (16,))
    return Subject(network, (batch, batch), nn.functional.cross_entropy)


RULE = Rule(
    name="nonfinite_values",
    what="A layer gives NaN or infinite values, or the gradient is such.",
    why="One such value spreads to every weight in the next step of the optimiser, and running statistics "
    "keep it; training cannot recover.",
    advice="Look at the layer that is named: lower the learning rate or the initial weights, put a "
    "normaliser before it, guard a division, a logarithm or a root, and compute sums in float32.",
    references=("Micikevicius et al. 2018, arXiv:1710.03740, section 3",),
    severity="error",
    check=check,
    healthy=healthy,
    sick=sick,
    causal=True,
)
