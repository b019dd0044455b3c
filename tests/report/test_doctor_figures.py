"""What the figures of a diagnosis draw, number by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from normwright.doctor.diagnosis import Diagnosis
from normwright.doctor.statistics.modes import ModeFacts
from normwright.report.doctor_gradients import gradients_section
from normwright.report.doctor_layers import depth_section, layers_section, ribbon
from normwright.report.doctor_moments import gap_section, modes_in_words, noise_section

Make = Callable[..., Diagnosis]


@pytest.fixture
def evidence(make_diagnosis: Make) -> Any:
    """The sample's."""
    return make_diagnosis().evidence


def test_a_ribbon_is_the_percentiles_over_the_steps(evidence: Any) -> None:
    outputs = evidence.activations[1].outputs
    outer, inner, median = ribbon([spread.step for spread in outputs], outputs, "#0072b2")
    columns = list(zip(*(spread.percentiles for spread in outputs), strict=True))
    for band, low, high in ((outer, 0, 4), (inner, 1, 3)):
        assert list(band.y) == pytest.approx([*columns[high], *reversed(columns[low])], rel=1e-4)
    assert list(median.y) == pytest.approx(columns[2], rel=1e-4)
    assert list(median.x) == list(range(8))


def test_a_step_without_finite_values_is_left_out(evidence: Any) -> None:
    outputs = list(evidence.activations[1].outputs)
    nan = float("nan")
    outputs[3] = outputs[3].__class__(**(vars(outputs[3]) | {"percentiles": (nan,) * 5}))
    *_, median = ribbon(range(8), outputs, "#0072b2")
    assert list(median.x) == [0, 1, 2, 4, 5, 6, 7]


def test_layers_with_findings_come_first(evidence: Any) -> None:
    section = layers_section(evidence.activations, {"classifier.norm2"})
    assert section.layers[:2] == ("classifier.norm2", "features.conv1")
    normaliser, convolution = section.views[0], section.views[1]
    assert [panel.figure.layout.title.text for panel in normaliser.panels] == [
        "Input of BatchNorm2d",
        "Output of BatchNorm2d",
    ]
    assert len(convolution.panels) == 1


def test_no_step_stands_twice_on_the_axis(evidence: Any) -> None:
    def axis(count: int) -> Any:
        few = [vars(facts) | {"outputs": facts.outputs[:count]} for facts in evidence.activations]
        section = layers_section([evidence.activations[0].__class__(**facts) for facts in few], ())
        return section.views[0].panels[-1].figure.layout.xaxis

    assert axis(3).dtick == 1
    assert (axis(8).dtick, axis(8).nticks) == (None, 6)


def test_flat_dead_and_spoilt_are_told(evidence: Any) -> None:
    facts = evidence.activations[2]
    spoilt = facts.outputs[0].__class__(**(vars(facts.outputs[0]) | {"nonfinite": 7}))
    sick = facts.__class__(
        **(vars(facts) | {"flat": (0.5, 0.75), "units": 6, "dead": (1, 4), "spatial": True})
        | {"outputs": (spoilt, *facts.outputs[1:])}
    )
    (view,) = layers_section([sick], ()).views
    assert view.notes == (
        "In the flat part of Conv2d: 75 % of the outputs at the last step.",
        "Never active: 2 of 6 channels.",
        "Left out of the ribbons, as NaN or infinite: 7 values.",
    )


def test_depth_draws_every_layer_at_the_last_step(evidence: Any) -> None:
    (view,) = depth_section(evidence.activations).views
    median = view.panels[0].figure.data[-1]
    assert [row[2] for row in median.customdata] == [facts.layer for facts in evidence.activations]
    assert list(median.y) == pytest.approx([0.7] * 5)


def test_gradients_are_those_of_the_first_and_last_step(evidence: Any) -> None:
    layers = evidence.layer_gradients
    (view,) = gradients_section(layers, evidence.covariate_shift).views
    gradient, update, shift = (panel.figure for panel in view.panels)
    first, last = gradient.data
    # the first layer's gradient was 0, which has no place on a logarithmic axis
    assert first.y[0] is None
    assert list(first.y[1:]) == pytest.approx(
        [layer.rms[0] for layer in evidence.layer_gradients[1:]], rel=1e-4
    )
    assert list(last.y) == pytest.approx([layer.rms[-1] for layer in evidence.layer_gradients], rel=1e-4)
    assert list(update.data[1].y) == pytest.approx([y / 10 for y in last.y], rel=1e-4)
    assert list(shift.data[0].y) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_gaps_stand_by_layer(evidence: Any) -> None:
    (view,) = gap_section(evidence.moments, evidence.running).views
    modes, statistics = view.panels[0].figure.data
    assert list(modes.y) == pytest.approx([0.1, 0.2])
    assert list(statistics.y) == pytest.approx([0.05, 0.05])
    assert list(modes.customdata) == ["features.norm1", "classifier.norm2"]


def test_noise_is_drawn_against_the_batch_size(evidence: Any) -> None:
    (view,) = noise_section(evidence.moments).views
    mean, variance = (panel.figure for panel in view.panels)
    assert list(mean.data[1].x) == [16, 32, 64]
    assert list(mean.data[1].y) == pytest.approx([2 / size**0.5 for size in (16, 32, 64)], rel=1e-4)
    assert list(variance.data[0].y) == pytest.approx([1 / size for size in (16, 32, 64)], rel=1e-4)


def test_sections_without_records_say_so() -> None:
    for section in (
        layers_section((), ()),
        gradients_section((), ()),
        gap_section((), ()),
        noise_section(()),
    ):
        assert section.views == ()
        assert section.empty.startswith("There is nothing to draw here")


def test_of_one_sample_no_difference_of_the_outputs_is_told():
    modes = ModeFacts(1, 1, math.nan, 0.5, 0.75, math.nan, math.nan, math.nan, 0.5, math.nan)
    assert modes_in_words(modes, ()) == ("The loss is 0.5 in training mode and 0.75 in inference mode.",)
