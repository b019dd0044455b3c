"""The held-out share: stratified, deterministic, no class lost."""

from __future__ import annotations

import pytest
import torch

from normwright.lab.data.split import stratified

LABELS = torch.tensor([label for label, count in enumerate((1, 2, 3, 50, 100)) for _ in range(count)])


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_parts_are_disjoint_complete_and_lose_no_class(share: float) -> None:
    stay, held_out = stratified(LABELS, share)
    assert sorted(torch.cat((stay, held_out)).tolist()) == list(range(len(LABELS)))
    assert set(LABELS[stay].tolist()) == {0, 1, 2, 3, 4}
    assert set(LABELS[held_out].tolist()) == {1, 2, 3, 4}, "a class of one sample stays"


def test_share_holds_in_each_class() -> None:
    _, held_out = stratified(LABELS, 0.1)
    assert torch.bincount(LABELS[held_out]).tolist() == [0, 1, 1, 5, 10]


def test_does_not_depend_on_torch_or_numpy_seeds() -> None:
    torch.manual_seed(1)
    first = stratified(LABELS, 0.3)
    torch.manual_seed(2)
    second = stratified(LABELS, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_is_the_same_on_every_machine() -> None:
    # Written down once: a change of it would change every recorded result.
    _, held_out = stratified(torch.arange(20) % 2, 0.3)
    assert held_out.tolist() == [1, 5, 6, 10, 14, 19]


def test_not_merely_the_first_of_each_class() -> None:
    _, held_out = stratified(torch.zeros(1000, dtype=torch.int64), 0.1)
    assert held_out.max() > 900
    assert held_out.min() < 100
