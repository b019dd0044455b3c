import math

import numpy as np
import pytest

from normwright import reference
from normwright.errors import OptionError, ShapeError
from normwright.reference import KINDS, TABLE, axes_of, moment_labels, normalise, same_moment

N, C, H, W, G = 3, 6, 2, 5, 2
SHAPE = (N, C, H, W)
ELEMENTS = {  # the table of the design, worked out
    "batch": N * H * W,
    "layer": C * H * W,
    "instance": H * W,
    "group": C // G * H * W,
    "rms": C * H * W,
}


def size(formula: str) -> int:
    sizes = {"N": N, "C": C, "H": H, "W": W, "G": G}
    return eval(formula.replace("·", "*").replace("/", "//"), {}, sizes)


def test_the_table_has_every_kind():
    assert set(KINDS) == set(ELEMENTS)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.kind)
def test_the_table_says_what_the_axes_do(row):
    axes = axes_of(row.kind, SHAPE, groups=G)
    assert axes.count == size(row.elements) == ELEMENTS[row.kind]
    assert axes.weight_shape == tuple(size(axis) for axis in row.parameters)
    assert row.center == (row.kind != "rms")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.kind)
def test_the_chapter_prints_the_table(row):
    (line,) = (line for line in reference.__doc__.splitlines() if line.strip().lower().startswith(row.kind))
    if row.center:
        cells = (", ".join(row.reduces), row.elements, "·".join(row.parameters))
        assert all(cell in line for cell in cells)


@pytest.mark.parametrize("kind", KINDS)
def test_moments_and_elements_make_up_the_tensor(kind):
    axes = axes_of(kind, SHAPE, groups=G)
    assert math.prod(axes.moment_shape) * axes.count == math.prod(SHAPE)
    assert math.prod(axes.view) == math.prod(SHAPE)
    assert math.prod(axes.parameter_shape) == math.prod(axes.weight_shape)
    np.broadcast_shapes(axes.parameter_shape, axes.view)


@pytest.mark.parametrize(
    ("kind", "moment_shape"),
    [("batch", (C,)), ("layer", (N,)), ("instance", (N, C)), ("group", (N, G)), ("rms", (N,))],
)
def test_moment_shapes(kind, moment_shape):
    assert axes_of(kind, SHAPE, groups=G).moment_shape == moment_shape


@pytest.mark.parametrize("kind", KINDS)
def test_same_moment_partitions_the_tensor(kind):
    labels = moment_labels(axes_of(kind, SHAPE, groups=G))
    names, sizes = np.unique(labels, return_counts=True)
    assert names.tolist() == list(range(math.prod(SHAPE) // ELEMENTS[kind]))
    assert set(sizes.tolist()) == {ELEMENTS[kind]}
    for at in np.ndindex(SHAPE):
        np.testing.assert_array_equal(same_moment(kind, SHAPE, at, groups=G), labels == labels[at])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [(0, 0, 0, 0), (1, 2, 1, 3), (2, 5, 1, 4)])
def test_an_element_moves_those_that_share_its_moment_and_no_other(kind, at):
    axes = axes_of(kind, SHAPE, groups=G)
    x = np.random.default_rng(0).normal(size=SHAPE)
    moved = x.copy()
    moved[at] += 1
    before, after = (normalise(values, axes, center=kind != "rms").x_hat for values in (x, moved))
    np.testing.assert_array_equal(before != after, same_moment(kind, SHAPE, at, groups=G))


def test_sizes_may_be_zero():
    assert axes_of("layer", (0, 4)).moment_shape == (0,)
    assert axes_of("batch", (0, 4, 3)).count == 0


@pytest.mark.parametrize(
    ("kind", "shape", "options", "message"),
    [
        ("batch", (4,), {}, "at least 2 axes"),
        ("instance", (4, 3), {}, "at least 3 axes"),
        ("group", (4,), {"groups": 1}, "at least 2 axes"),
        ("group", (4, 6), {"groups": 4}, "divide the channels.*4 groups and 6 channels"),
        ("group", (4, 6), {"groups": 0}, "at least 1"),
        ("group", (4, 6), {"groups": -2}, "at least 1"),
        ("layer", (4,), {}, "at least one axis"),
        (
            "layer",
            (4, 3),
            {"normalized_shape": (4,)},
            r"normalized_shape is \(4,\) and the shape is \(4, 3\)",
        ),
        ("rms", (3,), {"normalized_shape": (4, 3)}, "the shape ends in"),
        ("layer", (4, 3), {"normalized_shape": ()}, "at least one axis"),
    ],
)
def test_a_shape_that_cannot_be_normalised_is_refused(kind, shape, options, message):
    with pytest.raises(ShapeError, match=message):
        axes_of(kind, shape, **options)


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(OptionError, match="did you mean 'batch'"):
        axes_of("bacth", SHAPE)


def test_group_norm_needs_groups():
    with pytest.raises(OptionError, match="pass groups="):
        axes_of("group", SHAPE)


@pytest.mark.parametrize("at", [(0, 0, 0), (0, 0, 0, W), (0, 0, -1, 0), (0, 0, 0, 0, 0)])
def test_an_index_outside_the_shape_is_refused(at):
    with pytest.raises(ShapeError, match="index into the shape"):
        same_moment("batch", SHAPE, at)
