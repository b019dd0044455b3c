"""Every layer is timed in every kind of run."""

from benchmarks.children import DEFAULT, in_child
from benchmarks.overhead import BOUNDS, LAYERS, measure_overheads, overhead_table


def test_every_layer_and_run():
    rows = in_child(DEFAULT, measure_overheads, inner=1, repeats=1)
    assert {(row.layer, row.run) for row in rows} == {(layer, run) for layer in LAYERS for run in BOUNDS}
    assert len(overhead_table(rows).splitlines()) == 2 + len(rows)
