"""A diagnosis as a real one looks: layers with findings, and gaps in the evidence."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from normwright.doctor.diagnosis import Diagnosis
from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.missing import Missing
from normwright.doctor.rule import Outcome
from normwright.doctor.statistics.modes import ModeFacts
from normwright.doctor.statistics.moments import MomentFacts, NoiseFacts
from normwright.doctor.statistics.running import RunningFacts
from normwright.doctor.training.activations import ActivationFacts
from normwright.doctor.training.covariate_shift import CovariateShift
from normwright.doctor.training.gradients import LayerGradients
from normwright.doctor.training.spread import Spread

LAYERS = ("features.conv1", "features.norm1", "features: relu", "classifier.norm2", "classifier.linear")
STEPS = 8
RULE = "weight_decay_on_norm"


def diagnosis(
    *,
    network: str = "lenet",
    layers: tuple[str, ...] = LAYERS,
    findings: tuple[Finding, ...] | None = None,
    skipped: tuple[tuple[str, str], ...] = (),
    **evidence: Any,
) -> Diagnosis:
    """A diagnosis of one rule, with evidence of the layers but for the parts that are given."""
    found = tuple(finding(layer) for layer in layers if "norm" in layer) if findings is None else findings
    outcomes = (
        Outcome(RULE, "finding" if found else "pass"),
        *(Outcome(rule, "skipped", why) for rule, why in skipped),
    )
    return Diagnosis(network, found, outcomes, evidence_of(layers, **evidence))


def finding(layer: str, **given: Any) -> Finding:
    """A finding with figures."""
    usual = {"value": 1e-4, "threshold": 0.0, "because": "decay pulls to 0", "advice": "Take it out."}
    return Finding(RULE, given.pop("severity", "warning"), layer, f"{layer} decays", **(usual | given))


def evidence_of(layers: tuple[str, ...] = LAYERS, **given: Any) -> Evidence:
    """Evidence of a network of these layers; a part that nobody gives is missing."""
    norms = [layer for layer in layers if "norm" in layer]
    parts = {field.name: Missing("this sample has none") for field in dataclasses.fields(Evidence)} | {
        "network": "LeNet",
        "optimiser": "SGD",
        "sizes": (64, 64, 13),
        "accumulation": 2,
        "activations": tuple(activation(layer, depth) for depth, layer in enumerate(layers)),
        "layer_gradients": tuple(gradients(layer, depth) for depth, layer in enumerate(layers)),
        "covariate_shift": tuple(shift(layer, depth) for depth, layer in enumerate(layers[1:], 1)),
        "moments": tuple(moments(layer, depth) for depth, layer in enumerate(norms)),
        "running": tuple(running(layer) for layer in norms),
        "modes": ModeFacts(
            **{field.name: 0.0 for field in dataclasses.fields(ModeFacts)}
            | {"samples": 256, "outputs": 0.42, "loss_training": 2.0, "loss_inference": 2.5}
            | {"accuracy_training": 0.9, "accuracy_inference": 0.7}
        ),
    }
    return Evidence(**(parts | given))


def spread(step: int, scale: float, **given: Any) -> Spread:
    """A distribution around 0."""
    usual = {
        "step": step,
        "count": 4096,
        "nonfinite": 0,
        "mean": 0.0,
        "deviation": scale,
        "skewness": 0.0,
        "least": -3 * scale,
        "most": 3 * scale,
        "percentiles": (-2.3 * scale, -scale, 0.1 * step, scale, 2.3 * scale),
    }
    return Spread(**(usual | given))


def activation(layer: str, depth: int, **given: Any) -> ActivationFacts:
    """One layer; its outputs widen with the steps."""
    outputs = tuple(spread(step, 1 + depth + step / 10) for step in range(STEPS))
    norm = "norm" in layer
    usual = {
        "layer": layer,
        "kind": "BatchNorm2d" if norm else "Conv2d",
        "of_normaliser": norm,
        "calls": (1,) * STEPS,
        "inputs": outputs if norm else (),
        "outputs": outputs,
    }
    return ActivationFacts(**(usual | given))


def gradients(layer: str, depth: int) -> LayerGradients:
    """Gradients that vanish towards the input; the first layer's is 0 at the start."""
    rms = tuple(0.0 if depth == 0 and step == 0 else 10.0 ** (depth - 4 - step / 10) for step in range(STEPS))
    return LayerGradients(layer, tuple(range(STEPS)), rms, rms, tuple(value / 10 for value in rms))


def shift(layer: str, depth: int) -> CovariateShift:
    """One layer's internal covariate shift."""
    row = (0.1 * depth,) * STEPS
    return CovariateShift(
        **{field.name: row for field in dataclasses.fields(CovariateShift)}
        | {"layer": layer, "depth": depth, "rule": "SGD, lr 0.1"}
    )


def moments(layer: str, depth: int) -> MomentFacts:
    """A normaliser whose noise falls with the root of the batch."""
    noise = tuple(
        NoiseFacts(samples, 9.0 * samples, 256 // samples, (depth + 1) / math.sqrt(samples), 1 / samples)
        for samples in (64, 32, 16)
    )
    return MomentFacts(
        **{field.name: 0.0 for field in dataclasses.fields(MomentFacts)}
        | {"layer": layer, "kind": "BatchNorm2d", "noise": noise, "gap": 0.1 * (depth + 1)}
    )


def running(layer: str) -> RunningFacts:
    """Running statistics that are a little off."""
    return RunningFacts(
        **{field.name: () for field in dataclasses.fields(RunningFacts)}
        | {"layer": layer, "kind": "BatchNorm2d", "gap": 0.05, "untrained": False}
    )
