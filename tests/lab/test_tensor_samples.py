"""The samples of a data set as tensors: what a draw of them keeps."""

import torch

from normwright.lab.tensor_samples import samples_of


def test_a_draw_keeps_how_many_classes_there_are():
    labels = torch.zeros(500, dtype=torch.int64)
    labels[7] = 9
    drawn = samples_of(torch.randn(500, 3), labels, "rows").taken(3, seed=0)
    assert int(drawn.labels.max()) == 0
    assert drawn.classes == 10
    assert drawn.with_labels().classes == 10


def test_without_labels_the_classes_are_not_known():
    assert samples_of(torch.randn(5, 3), None, "rows").classes is None
